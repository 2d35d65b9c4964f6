"""Compare a quantized model with its float model, layer by layer, the worst first.

Every value that both models compute is compared on the data; with `--win-back N` each of the N
worst layers is made float again, alone, and what the outputs win is measured: the `--keep` to type.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .options import add_data, add_threads, positive, read_model
from .screen import Screen

EXAMPLE = "  ptqc compare model.onnx model-int8 --data photos/ --win-back 5"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("float", metavar="FLOAT", help="the float model, an .onnx file")
    parser.add_argument(
        "quantized", metavar="QUANT", help="a folder that ptqc quantize wrote, or an .onnx file"
    )
    add_data(parser, "--data", "what to compare on", required=True)
    parser.add_argument("--samples", type=positive, default=16, metavar="N", help="samples at most")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the choice of samples")
    parser.add_argument(
        "--win-back",
        type=positive,
        metavar="N",
        help="measure what keeping each of the N worst "
        "layers float wins back (one run of the data per layer)",
    )
    add_threads(parser)
    parser.add_argument("--top", type=positive, default=20, metavar="N", help="rows to show")


def stopped(args: argparse.Namespace) -> str:
    return "nothing was written"


def run(args: argparse.Namespace, screen: Screen) -> Any:
    import backends
    import passes
    from backends.torch.executor import using_threads
    from calib import data
    from passes.compare import compare, win_back

    from . import measure

    graph: Any = read_model(args.float, screen)
    model = model_file(args.quantized)
    coded: Any = with_value_names(read_model(str(model), screen), graph)
    batches = list(
        data.load(
            args.data,
            graph,
            batch_size=args.batch,
            limit=args.samples,
            seed=args.seed,
            preprocess=args.preprocess,
        )
    )
    target = backends.target("ort")
    with screen.working("comparing") as bar:
        executed = measure.compare(
            target.open(Path(args.float), threads=1),
            target.open(model, threads=1),
            batches,
            bar.units,
        )
        with using_threads(args.threads):
            rows = compare(graph, coded, batches)
            won = []
            if args.win_back:
                bar.step("winning back")
                clean = passes.run(graph, "clean", check=passes.Check.NONE).graph
                won = win_back(clean, coded, batches, limit=args.win_back)
    found = {
        "float": str(args.float),
        "quantized": str(args.quantized),
        "outputs_executed": {
            name: asdict(figures) for name, figures in executed.items() if figures is not None
        },
        "values": [asdict(row) for row in rows],
        "win_back": [{**asdict(row), "keep": row.selector} for row in won],
    }
    screen.show(*_tables(found, args))
    return found


def model_file(path: str) -> Path:
    """The model inside an artifact's folder, whose checksums are checked, or the file itself."""
    if not Path(path).is_dir():
        return Path(path)
    import backends

    model = backends.load(path).model
    assert isinstance(model, Path)
    return model


def with_value_names(lowered, float_graph):
    """A kernel that writes codes only leaves no float value: decode them under that value's name.

    QLinearConv's codes of %h are called %h.codes; its inputs 6 and 7 are their scale and zero
    point. The codes are made again from the decoded value, which changes none of them, so that a
    change of %h reaches its readers.
    """
    from ir.edit import Edit
    from ir.graph import clone, nodes

    wanted = {v.name for node in nodes(float_graph) for v in node.outputs}
    present = {v.name for node in nodes(lowered) for v in node.outputs}
    copy = clone(lowered)
    edit = Edit(copy, by="compare")
    for node in [n for n in nodes(copy) if n.op_type == "QLinearConv"]:
        codes = node.outputs[0]
        name = (codes.name or "").rpartition(".codes")[0]
        if name in wanted and name not in present:
            readers = [(use.node, use.idx) for use in codes.uses()]
            parts = list(node.inputs[6:8])
            decode = edit.node("DequantizeLinear", [codes, *parts], like=name, after=node)
            again = edit.node(
                "QuantizeLinear", [decode.outputs[0], *parts], like=f"{name}.again", after=decode
            )
            for reader, index in readers:
                edit.set_input(reader, index, again.outputs[0])
    return copy


def _tables(found: dict[str, Any], args: argparse.Namespace) -> list[Any]:
    from .tables import decibels, table

    outputs = [
        (name, decibels(row["sqnr_db"]), f"{row['cosine']:.5f}")
        for name, row in found["outputs_executed"].items()
    ]
    values = [
        (v["value"], v["op"], decibels(v["sqnr_db"]), f"{v['cosine']:.5f}", "output" * v["output"])
        for v in found["values"]
    ]
    left = len(values) - args.top
    note = f"{left} better values not shown: --top {len(values)}" if left > 0 else ""
    columns = ("value", "computed by", ">SQNR", ">cosine", "")
    made = [
        table("outputs, executed", ("output", ">SQNR", ">cosine"), outputs),
        table("values, worst first", columns, values[: args.top], note),
    ]
    if args.win_back:
        won = [
            (w["layer"], w["op"], decibels(w["sqnr_db"]), f"{w['gain_db']:+.2f} dB",
             f"--keep '{w['keep']}'")
            for w in found["win_back"]
        ]  # fmt: skip
        columns = ("layer", "op", ">outputs then", ">gain", "to keep it float")
        made.append(table("what a float layer wins back", columns, won))
    return made
