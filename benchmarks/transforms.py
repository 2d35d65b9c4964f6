"""Every equivalent transform on every reference model: what it folds and refuses, whether the
function stays, and what it costs. And random maps folded into every stream that admits them.

python -m benchmarks.transforms [--models NAME ...] [--transforms NAME ...] [--source torch]
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

import ir
import models
import passes
from benchmarks import sizes
from benchmarks.cases import CACHE, CASES, GRAPHS, Case, prepare
from benchmarks.double import doubled, doubled_feed
from benchmarks.feeds import Feed
from benchmarks.peers import Failed, script
from benchmarks.record import RESULTS, Row, keep, machine, show
from benchmarks.workers.protocol import memory_mb
from ir import fold
from ir.analysis.streams import Stream, streams
from ir.edit import Edit
from ir.errors import DataError, PtqcError
from ir.graph import Graph, clone
from ir.verify import Stage, verify
from passes import evaluate
from passes.core import Effect, Pass
from passes.registry import passes as registered

MODELS = (
    "digits_vit", "fashion_cnn", "fashion_vit", "dit", "resnet18", "mobilenetv2",
    "efficientnet_lite0", "ppocr_det", "terrain_unet", "minilm", "whisper_encoder",
    "whisper_decoder", "smollm2_off_grid", "big24",
)  # fmt: skip
KEYS = ("model", "source", "transform")
COLUMNS = ["model", "transform", "folded", "refused", "float32", "double", "cpu_s", "delta_mb"]
FAMILY = "passes.equivalent."
RANDOM = "random "
ROTATION = f"{RANDOM}rotation"
ROTATED = "fold_norm | center | rotate{hadamard=false}"
"""Random orthogonal matrices over all that takes one."""
TIMEOUT = 3600
Draw = Callable[[Stream, int, np.random.Generator], np.ndarray]


def transforms() -> dict[str, type[Pass]]:
    """The registered EXACT passes whose modules lie in passes/equivalent, by name."""
    return {
        name: cls for name, cls in sorted(registered().items())
        if cls.effect is Effect.EXACT and cls.__module__.startswith(FAMILY)
    }  # fmt: skip


def _order(stream: Stream, channels: int, rng: np.random.Generator) -> np.ndarray:
    """Any order, or one within each run of channels that must stay together."""
    span = getattr(stream, "span", 0) or channels
    starts = range(0, channels, span)
    return np.concatenate([s + rng.permutation(min(span, channels - s)) for s in starts])


DRAWN: dict[str, Draw] = {
    "scale": lambda _, channels, rng: np.exp(rng.normal(size=channels)),
    "shift": lambda _, channels, rng: rng.normal(size=channels),
    "permute": _order,
}
"""Maps by the name that a stream lists them under; `ir.fold` has a `fold_<name>` for each that it
can fold."""


def maps() -> list[str]:
    return [name for name in DRAWN if hasattr(fold, f"fold_{name}")]


def model_of(case: Case, source: str) -> tuple[Graph, Feed]:
    """The float graph, tidied, and a feed of the sizes of the model's own example."""
    if source == "file" or case.name.startswith("digits_"):
        graph, feed = ir.capture(case.model), sizes.drawn(case)[0]
    else:
        module = importlib.import_module(f"models.{case.name}")
        graph = models.capture(module)
        feed = _example(module, graph)
    return passes.run(graph, "as_float32 | clean", check=passes.Check.NONE).graph, feed


def _example(module: Any, graph: Graph) -> Feed:
    """The example's sizes; its numbers from the model's own data, where it has some."""
    inputs, example = graph.graph.inputs, module.example()
    if isinstance(example, Mapping):
        shapes = {str(v.name): example[v.name].shape for v in inputs}
    else:
        flat = [tuple(t.shape) for t in sizes.flat(example)]
        shapes = {str(v.name): shape for v, shape in zip(inputs, flat, strict=True)}
    kinds = {str(v.name): v.dtype.numpy() for v in inputs if v.dtype is not None}
    fixed = {name: [False] * len(shape) for name, shape in shapes.items()}
    feed = sizes.feeds(shapes, fixed, kinds, seed=1)[0]
    real = module.evaluation(1)[0] if hasattr(module, "evaluation") else {}
    if not real or not all(array.size for array in real.values()):
        return feed
    return {name: sizes.filled(real[name], array.shape) for name, array in feed.items()}


def pipeline_of(cls: type[Pass]) -> str:
    """The pass with its defaults, behind the statistics that it needs."""
    step = cls()
    wanted = {stat.value for stat in step.required()}
    if step.needs_one_of:
        wanted.add(min(stat.value for stat in step.needs_one_of))
    return f"collect{{[{' '.join(sorted(wanted))}]}} | {step}" if wanted else str(step)


def transformed(graph: Graph, cls: type[Pass], feed: Feed) -> tuple[Graph, Row]:
    """The graph after one transform, and what that did and cost (statistics do not count)."""
    if Stage.FLOAT not in cls.takes:
        raise DataError("it works on coded graphs", hint="see the studies")
    return stepped(graph, pipeline_of(cls), feed)


def stepped(graph: Graph, pipeline: str, feed: Feed) -> tuple[Graph, Row]:
    """The graph after a pipeline, and what its last step did and cost."""
    reset_peak()
    before = memory_mb("VmRSS")
    result = passes.run(graph, pipeline, data=[feed], check=passes.Check.VERIFY)
    step = result.report.steps[-1]
    row = {
        "folded": len(step.sites),
        "refused": len(step.skips),
        "reasons": grouped(skip.reason for skip in step.skips),
        "cpu_s": round(step.cpu_seconds, 3),
        "delta_mb": round(memory_mb("VmHWM") - before, 1),
    }
    return result.graph, row


def randomised(graph: Graph, kind: str, seed: int = 0) -> tuple[Graph, Row]:
    """A random map of one kind folded into every stream of a copy that admits it."""
    copy, rng = clone(graph), np.random.default_rng(seed)
    edit = Edit(copy, f"random_{kind}")
    folded, reasons = 0, []
    reset_peak()
    before, started = memory_mb("VmRSS"), time.process_time()
    for stream in streams(copy, "permute" if kind == "permute" else "scale"):
        if stream.blocked or kind not in stream.maps:
            reasons.append(stream.blocked or f"admits no {kind}")
            continue
        drawn = DRAWN[kind](stream, stream.channels, rng)
        reason = getattr(fold, f"{kind}_refusal")(stream, drawn)
        if reason:
            reasons.append(reason)
            continue
        getattr(fold, f"fold_{kind}")(stream, drawn, edit)
        folded += 1
    edit.finish()
    seconds = time.process_time() - started
    verify(copy, Stage.FLOAT)
    row = {"folded": folded, "refused": len(reasons), "reasons": grouped(reasons)}
    cost = {"cpu_s": round(seconds, 3), "delta_mb": round(memory_mb("VmHWM") - before, 1)}
    return copy, row | cost


def grouped(reasons) -> dict[str, int]:
    """Reasons by number, names and figures taken out, the most frequent first."""
    plain = (re.sub(r"\d+\.\d+", "#", reason) for reason in reasons)
    words = (" ".join(w for w in r.split() if not w.startswith(("'", "%"))) for r in plain)
    return dict(Counter(words).most_common())


def reset_peak() -> None:
    """Let VmHWM begin anew at what is held now; where Linux refuses, peaks are of the process."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        print("the peak of memory cannot be reset here", file=sys.stderr)


def compared(graph: Graph, change: Callable[[Graph, Feed], tuple[Graph, Row]], feed: Feed) -> Row:
    """One transform: in float32 (and by the double-precision arbiter), and folded in double."""
    after, row = change(graph, feed)
    outputs = [evaluate.outputs_of(g, [feed]) for g in (graph, after)]
    row |= {
        "float32": evaluate.difference(*outputs).relative,
        "arbiter": evaluate.same_function(graph, after, [feed]).relative,
    }
    del after, outputs
    return row | in_double(graph, change, feed, row["folded"])


def in_double(
    graph: Graph, change: Callable[[Graph, Feed], tuple[Graph, Row]], feed: Feed, folded: int
) -> Row:
    """The same on weights of doubles: what is left is no rounding. A transform that knows float32
    only says so in `double_failure`, and keeps its figures in float32."""
    wide, feed = doubled(graph), doubled_feed(feed)
    try:
        after, row = change(wide, feed)
    except PtqcError as error:
        return {"double_failure": str(error)}
    pair = (evaluate.outputs_of(g, [feed], torch.float64) for g in (wide, after))
    found: Row = {"double": evaluate.difference(*pair).relative}
    return found if row["folded"] == folded else found | {"folded_double": row["folded"]}


def changes(names: list[str]) -> dict[str, Callable[[Graph, Feed], tuple[Graph, Row]]]:
    """What may be measured, by name: transforms, then random maps."""
    found: dict[str, Callable[[Graph, Feed], tuple[Graph, Row]]] = {
        name: lambda g, feed, cls=cls: transformed(g, cls, feed)
        for name, cls in transforms().items()
    }
    for kind in maps():
        found[RANDOM + kind] = lambda g, _, kind=kind: randomised(g, kind)
    found[ROTATION] = lambda g, feed: stepped(g, ROTATED, feed)
    return {name: change for name, change in found.items() if not names or name in names}


def measured(case: Case, source: str, names: list[str]) -> list[Row]:
    """The rows of one model. What goes wrong becomes a row's `failure`."""
    graph, feed = model_of(case, source)
    rows = []
    for name, change in changes(names).items():
        row: Row = {"model": case.name, "source": source, "transform": name}
        try:
            row |= compared(graph, change, feed)
        except PtqcError as error:
            row["failure"] = str(error)
        except Exception as error:  # another's defect must not cost the other rows
            traceback.print_exc()
            row["failure"] = f"{type(error).__name__}: {error}"
        rows.append(row | machine())
    return rows


def told(row: Row) -> Row:
    figures = {k: f"{row[k]:.1e}" for k in ("float32", "double") if k in row}
    return row | figures


def refusals(row: Row) -> list[str]:
    """Lines below the table: why sites were refused."""
    what = f"{row['model']} {row['transform']}"
    lines = [f"{what}: {count} x {reason}" for reason, count in row.get("reasons", {}).items()]
    return lines + [f"{what}, in double: {row[k]}" for k in ("double_failure",) if k in row]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--transforms", nargs="+", default=[], metavar="NAME")
    parser.add_argument("--source", choices=["file", "torch"], default="file")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    known = [*transforms(), *(RANDOM + kind for kind in maps()), ROTATION]
    if unknown := set(args.transforms) - set(known):
        parser.error(f"no transform {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    all_cases = CASES | GRAPHS
    if args.one:
        rows = measured(all_cases[args.models[0]], args.source, args.transforms)
        print("\n" + json.dumps(rows))
        return
    here = [sys.executable, "-m", "benchmarks.transforms", "--one", "--source", args.source]
    chosen = ["--transforms", *args.transforms] if args.transforms else []
    for name in args.models:
        try:
            prepare(all_cases[name])
            rows: Any = script([*here, "--models", name, *chosen], TIMEOUT)
        except DataError as error:
            print(f"{name}: left out: {error}", flush=True)
            continue
        except Failed as failure:
            why = str(failure).replace(str(CACHE), ".bench")
            row = {"model": name, "source": args.source, "transform": "all", "failure": why}
            rows = [row | machine()]
        for row in rows:
            keep("transforms", row, KEYS)
        show(f"{name}, equivalent transforms ({args.source})", [told(r) for r in rows], COLUMNS)
        print("\n".join(line for row in rows for line in refusals(row)), flush=True)
    print(f"written: {RESULTS / 'transforms.jsonl'}")


if __name__ == "__main__":
    main()
