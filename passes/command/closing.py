"""The closing table of `ptqc quantize`: facts as plain data, and how they look."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from backends.base import BODY

from .tables import decibels, seconds, size, table

if TYPE_CHECKING:
    from .quantize import Outcome

SHOWN = 8
"""Rows at most of a list in the terminal; JSON and HTML have all."""


def facts(outcome: Outcome) -> dict[str, Any]:
    """Everything about a run, ready for JSON."""
    from .screen import version

    report, measured = outcome.result.report, outcome.measured
    manifest = outcome.artifact.manifest
    return {
        "ptqc": version(),
        "model": str(outcome.args.model),
        "output": str(outcome.args.output),
        "recipe": outcome.args.recipe,
        "pipeline": report.pipeline,
        "seed": report.seed,
        "target": report.target,
        "accuracy": {
            "measured_on": measured.data,
            "samples": measured.samples,
            "executed_by": report.target,
            "outputs": {
                name: None if figures is None else asdict(figures)
                for name, figures in measured.outputs.items()
            },
            "simulated_db": {
                name: None if figures is None else figures.sqnr_db
                for name, figures in measured.simulated.items()
            },
        },
        "size": {
            "float_bytes": measured.float_file_bytes,
            "bytes": manifest.sizes["model"],
            "ratio": manifest.sizes["model"] / measured.float_file_bytes,
            "weight_bytes": manifest.sizes.get("weights"),
            "float_weight_bytes": _weight_bytes(outcome.float_graph),
        },
        "latency": {
            "float_ms": measured.float_milliseconds,
            "ms": measured.milliseconds,
            "ratio": measured.latency_ratio,
            "threads": 1,
            "inputs": measured.batch,
        },
        "layers": {
            "quantized": len(outcome.kernels),
            "kernels": dict(Counter(row["kernel"] for row in outcome.kernels if row["kernel"])),
            "without_kernel": [row for row in outcome.kernels if not row["kernel"]],
            "refused": refused(report),
        },
        "steps": [asdict(step) for step in report.steps],
        "seconds": report.seconds,
        "peak_bytes": report.peak_bytes,
        "warnings": list(outcome.warnings),
    }


def refused(report) -> list[dict[str, str]]:
    """Layers that `place` left float, with its reasons; `spare` may have freed others."""
    rows = [
        {"layer": skip.site, "reason": skip.reason}
        for step in report.steps
        if step.step.startswith("place")
        for skip in step.skips
    ]
    freed = [
        {"layer": site, "reason": "made float again: it cost the outputs too much"}
        for step in report.steps
        if step.step.startswith("spare")
        for site in step.sites
    ]
    return rows + freed


def _weight_bytes(graph) -> int:
    from ir.graph import constant

    values = graph.graph.initializers.values()
    return sum(t.nbytes for t in map(constant, values) if t is not None)


def tables(found: dict[str, Any]) -> list[Any]:
    """The facts as tables for a terminal."""
    accuracy, layers = found["accuracy"], found["layers"]
    where = (
        f"{accuracy['samples']} samples of {accuracy['measured_on']}, "
        f"executed by {accuracy['executed_by']}"
    )
    outputs = [
        (
            name,
            decibels(row["sqnr_db"]),
            "" if (plain := accuracy["simulated_db"].get(name)) is None else decibels(plain),
            f"{row['cosine']:.5f}",
            f"{row['max_abs']:.3g}",
        )
        for name, row in accuracy["outputs"].items()
        if row is not None
    ]
    made = [
        table(
            f"{found['model']} -> {found['output']}",
            ("output", ">SQNR", ">simulated", ">cosine", ">largest error"),
            _cut(outputs),
            where,
        ),
        table("", ("", ">float", ">quantized", ">ratio"), _sizes(found)),
        table("", ("step", ">sites", ">skipped", ">SQNR after", ">time", ">check"), _steps(found)),
    ]
    kernels = [f"{number} as {name}" for name, number in layers["kernels"].items()]
    kernels += [f"{len(layers['without_kernel'])} in float" for _ in layers["without_kernel"][:1]]
    made.append(
        f"{layers['quantized']} layers quantized" + (f": {', '.join(kernels)}" if kernels else "")
    )
    if BODY in layers["kernels"]:
        made.append(f"  {BODY}: every code is rounded as told, computed in float, not faster")
    made += _reasons("of them in float", (row["reason"] for row in layers["without_kernel"]))
    made.append(f"{len(layers['refused'])} layers left as they were")
    made += _reasons("left", (row["reason"] for row in layers["refused"]))
    made.append(f"{seconds(found['seconds'])} in all, peak memory {size(found['peak_bytes'])}")
    return made


def _reasons(what: str, reasons: Iterable[str]) -> list[str]:
    return [
        f"  {number} {what}: {reason}" for reason, number in Counter(reasons).most_common(SHOWN)
    ]


def _cut(rows: list[Any]) -> list[Any]:
    if len(rows) <= SHOWN:
        return rows
    return [
        *rows[: SHOWN - 1],
        (f"{len(rows) - SHOWN + 1} more: --json", *[""] * (len(rows[0]) - 1)),
    ]


def _sizes(found: dict[str, Any]) -> list[tuple[str, ...]]:
    sizes, timed = found["size"], found["latency"]
    rows = [("file", size(sizes["float_bytes"]), size(sizes["bytes"]), f"{sizes['ratio']:.2f}")]
    if sizes["weight_bytes"] and sizes["float_weight_bytes"]:
        rows.append(
            (
                "weights",
                size(sizes["float_weight_bytes"]),
                size(sizes["weight_bytes"]),
                f"{sizes['weight_bytes'] / sizes['float_weight_bytes']:.2f}",
            )
        )
    if timed["ratio"] is not None:
        rows.append(
            (
                f"latency, {timed['threads']} thread",
                f"{timed['float_ms']:.3g} ms",
                f"{timed['ms']:.3g} ms",
                f"{timed['ratio']:.2f}",
            )
        )
    return rows


def _steps(found: dict[str, Any]) -> list[tuple[object, ...]]:
    return [
        (
            step["step"],
            len(step["sites"]),
            len(step["skips"]),
            decibels(min(step["sqnr"].values())) if step["sqnr"] else "",
            seconds(step["seconds"]),
            seconds(step["check_seconds"]),
        )
        for step in found["steps"]
    ]
