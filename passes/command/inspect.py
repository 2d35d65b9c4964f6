"""Look at a model: what it takes and gives, what it is made of, what it costs.

Shows inputs, outputs, opset, ops, the structures ptqc recognised (LayerNorm, GELU, attention,
residual blocks) and the layers it could quantize. `--text` prints the whole graph, one value a
line; `--cost` the multiply-accumulates and bytes per node.
"""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .options import dims, positive, read_model
from .screen import Screen

EXAMPLE = "  ptqc inspect model.onnx --cost --dims batch=1"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="an .onnx file")
    parser.add_argument("--text", action="store_true", help="print the graph's text form")
    parser.add_argument(
        "--cost", action="store_true", help="print what every node costs, the dearest first"
    )
    parser.add_argument(
        "--dims",
        type=dims,
        default={},
        metavar="NAME=N,...",
        help="sizes for --cost of the dimensions that the model leaves open",
    )
    parser.add_argument(
        "--top", type=positive, default=25, metavar="N", help="rows of the cost table"
    )


def stopped(args: argparse.Namespace) -> str:
    return "nothing was written"


def run(args: argparse.Namespace, screen: Screen) -> Any:
    graph: Any = read_model(args.model, screen)
    found: dict[str, Any] = _summary(args.model, graph)
    if args.text:
        from ir import show

        found["text"] = show(graph)
        if screen.json_to != "-":
            print(found["text"], end="")
    else:
        _show_summary(found, screen)
    if args.cost:
        from ir.analysis.cost import cost

        with screen.working("counting"):
            bill = cost(graph, args.dims)
        found["cost"] = asdict(bill)
        _show_cost(bill, args.top, screen)
    return found


def _summary(path: str, graph) -> dict[str, Any]:
    from ir.analysis import idioms
    from ir.analysis.blocks import blocks
    from ir.analysis.streams import residuals
    from ir.graph import constant, nodes
    from passes.sites import linears

    walked = list(nodes(graph))
    weights = {id(t): t for node in walked for v in node.inputs if (t := constant(v)) is not None}
    layers = list(linears(graph))
    return {
        "model": str(path),
        "name": graph.graph.name,
        "opset": _opset(path),
        "producer": graph.producer_name or "unknown",
        "file_bytes": Path(path).stat().st_size,
        "inputs": {v.name: f"{v.dtype}{v.shape}" for v in graph.graph.inputs},
        "outputs": {v.name: f"{v.dtype}{v.shape}" for v in graph.graph.outputs},
        "nodes": len(walked),
        "ops": dict(Counter(_op(node) for node in walked).most_common()),
        "idioms": dict(Counter(i.kind for i in idioms.find(graph)).most_common()),
        "blocks": dict(Counter(b.kind for b in blocks(graph)).most_common()),
        "residual_streams": [len(r.blocks) for r in residuals(graph)],
        "weights": sum(t.size for t in weights.values()),
        "weight_bytes": sum(t.nbytes for t in weights.values()),
        "linear_layers": len(layers),
    }


def _streams(lengths: list[int]) -> str:
    long = [f"{n} blocks" for n in lengths if n > 1]
    return f"{len(lengths)}, of {', '.join(long)}" if long else str(len(lengths))


def _op(node) -> str:
    return f"{node.domain}.{node.op_type}" if node.domain else node.op_type


def _opset(path: str) -> dict[str, int]:
    """As the file has it: capture brings everything to one opset."""
    import onnx

    proto = onnx.load(path, load_external_data=False)
    return {entry.domain or "ai.onnx": entry.version for entry in proto.opset_import}


def _show_summary(found: dict[str, Any], screen: Screen) -> None:
    from .tables import count, size, table

    def listed(counts: dict[str, int]) -> str:
        return ", ".join(f"{number} {name}" for name, number in counts.items()) or "none"

    rows = [("input", f"{name}  {kind}") for name, kind in found["inputs"].items()]
    rows += [("output", f"{name}  {kind}") for name, kind in found["outputs"].items()]
    rows += [
        ("opset", ", ".join(f"{name} {number}" for name, number in found["opset"].items())),
        ("producer", found["producer"]),
        ("file", size(found["file_bytes"])),
        ("weights", f"{count(found['weights'])} numbers, {size(found['weight_bytes'])}"),
        ("nodes", found["nodes"]),
        ("ops", listed(found["ops"])),
        ("recognised", listed(found["idioms"])),
        ("blocks", listed(found["blocks"])),
        ("residual streams", _streams(found["residual_streams"])),
        (
            "linear layers",
            f"{found['linear_layers']} with constant weights, which recipes can quantize",
        ),
    ]
    screen.show(table(Path(found["model"]).name, ("", ""), rows))


def _show_cost(bill, top: int, screen: Screen) -> None:
    from .tables import count, size, table

    dearest = sorted(bill.rows, key=lambda r: (-r.macs, -r.weight_bytes - r.activation_bytes))
    rows = [
        (
            r.name,
            r.op_type,
            count(r.macs),
            size(r.weight_bytes),
            size(r.activation_bytes),
            count(r.nonlinear),
        )
        for r in dearest[:top]
    ]
    rows.append(
        (
            "total",
            "",
            count(bill.macs),
            size(bill.weight_bytes),
            size(bill.activation_bytes),
            count(sum(bill.nonlinear.values())),
        )
    )
    left = len(bill.rows) - top
    note = f"{left} cheaper nodes not shown: --top {len(bill.rows)}" if left > 0 else ""
    columns = ("node", "op", ">MACs", ">weights", ">activations", ">nonlinear")
    screen.show(table("cost of one run", columns, rows, note))
