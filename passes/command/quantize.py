"""Quantize a model: run a recipe, build for a target, write the artifact, measure what was written.

MODEL is an .onnx file of any opset from 7 up; external data is read where it lies. (A torch module
goes through the Python API: examples/export_torch.py.) OUT becomes a folder with model.onnx and
manifest.json, written whole or not at all. The closing table is of the artifact as its target
executes it.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .options import add_data, add_threads, check_place, pair, pipeline, positive, read_model
from .screen import Screen

if TYPE_CHECKING:
    import backends
    from calib.data import Batches
    from ir.graph import Graph
    from passes.run import Result

    from .measure import Measured

EXAMPLE = (
    "  ptqc quantize model.onnx --recipe w8a8 --calib photos/ \\\n"
    "      --preprocess resize=256,crop=224,mean=127,std=128 -o model-int8"
)
CHECKS = ("none", "verify", "compare", "each")


@dataclass
class Outcome:
    """All that one run found, for the table, the JSON and the HTML report."""

    args: argparse.Namespace
    result: Result
    artifact: backends.Artifact
    measured: Measured
    kernels: list[dict[str, str]]
    warnings: list[str]
    float_graph: Graph
    """The last float graph; where the model came in coded, the model as it came in."""
    data: Batches | None
    """What per-layer errors are measured on."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(written=False)
    parser.add_argument("model", metavar="MODEL", help="the float model, an .onnx file")
    parser.add_argument(
        "-r",
        "--recipe",
        required=True,
        metavar="R",
        help="a recipe's name (see ptqc recipes) or a pipeline's text",
    )
    add_data(parser, "--calib", "calibration data")
    parser.add_argument(
        "--eval",
        metavar="DATA",
        help="held-out data to measure the result on, read like "
        "--calib; without it the figures are on calibration data and say so",
    )
    parser.add_argument("--target", default="ort", metavar="T", help="where the artifact will run")
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help="the folder to write")
    parser.add_argument(
        "--set",
        type=pair,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an option of the recipe; may be repeated",
    )
    parser.add_argument(
        "--keep",
        action="append",
        default=[],
        metavar="SELECTOR",
        help="layers that stay "
        "float: first, last, depthwise, Conv, into:Softmax, value:NAME, ...; may be repeated",
    )
    parser.add_argument(
        "--samples", type=positive, default=128, metavar="N", help="samples at most of each data"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of every random choice")
    add_threads(parser)
    parser.add_argument(
        "--check",
        choices=CHECKS,
        default="compare",
        help="nothing, the graph's grammar after every step, also its outputs (of EXACT steps in a "
        "row at the last one), or its outputs after each",
    )
    parser.add_argument(
        "--html", metavar="FILE", help="also write a report with plots, one self-contained file"
    )
    parser.add_argument(
        "--crash-dir",
        metavar="DIR",
        help="where a failing step leaves its graph and the rest "
        "of the pipeline; `python -m passes FOLDER` repeats the failure",
    )
    parser.add_argument(
        "--resume",
        metavar="FILE",
        help="a checkpoint of the calibration: gone on from when it "
        "is there, kept when the run is stopped, removed at the end",
    )


def stopped(args: argparse.Namespace) -> str:
    if args.written:
        return f"{args.output} is written and whole; the report was not finished"
    saved = Path(args.resume or "")
    if args.resume and list(saved.absolute().parent.glob(f"{saved.name}.step*")):
        return f"nothing was written to {args.output}; the same command goes on from {args.resume}"
    return (
        f"nothing was written to {args.output}; "
        "with --resume FILE a calibration that is stopped can go on later"
    )


def run(args: argparse.Namespace, screen: Screen) -> Any:
    chosen = pipeline(args.recipe, dict(args.set), args.keep)
    for option in ("output", "json", "html", "resume"):
        check_place(
            getattr(args, option), f"--{option}", inputs=(args.model, args.calib, args.eval)
        )
    from . import closing, html

    if args.html:
        html.require()
    graph: Any = read_model(args.model, screen)
    outcome = _quantize(args, chosen, graph, screen)
    found = closing.facts(outcome)
    screen.show(*closing.tables(found))
    if args.html:
        with screen.working("writing the report"):
            html.write(Path(args.html), found, outcome)
        screen.show(f"report: {args.html}")
    return found


def _quantize(args: argparse.Namespace, chosen, graph, screen: Screen) -> Outcome:
    import backends
    import passes

    from .measure import measure

    batches = _data(args.calib, graph, args)
    held_out = _data(args.eval, graph, args)
    with screen.working("quantizing") as bar:
        result = passes.run(
            graph,
            chosen,
            data=batches,
            target=args.target,
            check=passes.Check[args.check.upper()],
            seed=args.seed,
            crash_dir=args.crash_dir,
            progress=bar.units,
            checkpoint=args.resume,
            watch=[_steps(bar, len(chosen))],
            threads=args.threads,
        )
        bar.step("building")
        artifact = backends.build(result, args.target)
        bar.step("measuring")
        measured = measure(
            args.model,
            graph,
            artifact,
            coded=result.graph,
            calibration=batches,
            held_out=held_out,
            seed=args.seed,
            progress=bar.units,
        )
        bar.step("writing")
        artifact.save(args.output)
        args.written = True
    written = backends.load(args.output)
    for text in (*result.report.warnings, *measured.warnings):
        screen.warn(text)
    data = held_out if held_out is not None else batches
    return Outcome(
        args, result, written, measured, written.manifest.kernels, screen.warnings,
        result.float_graph or graph, data,
    )  # fmt: skip


def _data(source: str | None, graph, args: argparse.Namespace) -> Batches | None:
    if source is None:
        return None
    from calib import data

    return data.load(
        source,
        graph,
        batch_size=args.batch,
        limit=args.samples,
        seed=args.seed,
        preprocess=args.preprocess,
    )


def _steps(bar, total: int):
    """An observer that tells the progress bar which step runs."""
    from passes.watch import Observer

    class Steps(Observer):
        def before(self, number, step, graph) -> None:
            bar.step(f"step {number}/{total} {step.name}")

    return Steps()
