"""What the artifact is worth when its target executes it: error per output, size, latency."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import calib
from calib import metrics
from ir.errors import PtqcError

if TYPE_CHECKING:
    import backends

BATCHES = 16
"""Batches at most that the errors are measured on."""
SIMULATED = 4
"""Batches at most that are also simulated."""
APART = 3.0
"""dB between simulation and execution that codes at a rounding boundary do not explain."""
Feeds = dict[str, np.ndarray]
Outputs = dict[str, "metrics.Comparison | None"]


@dataclass
class Measured:
    """Figures of the executed artifact against the float model, both in the target's runtime."""

    data: str
    """What they were measured on, in words."""
    samples: int
    outputs: Outputs
    simulated: Outputs = field(default_factory=dict)
    """The same of the coded graph by its functions' bodies, in the torch executor."""
    float_file_bytes: int = 0
    milliseconds: float | None = None
    float_milliseconds: float | None = None
    batch: str = ""
    """Shapes of the batch that latency was measured on."""
    warnings: list[str] = field(default_factory=list)

    @property
    def latency_ratio(self) -> float | None:
        if self.milliseconds is None or not self.float_milliseconds:
            return None
        return self.milliseconds / self.float_milliseconds


def measure(
    float_path: str,
    graph,
    artifact: backends.Artifact,
    *,
    coded=None,
    calibration=None,
    held_out=None,
    seed: int = 0,
    progress: Callable[[str, int, int | None], None] = lambda what, done, total: None,
) -> Measured:
    """Run the float model and the artifact on the same feeds, one thread each.

    coded: the graph that the artifact was built from; its simulation stands beside the execution,
    for a kernel that saturates or was joined wrongly shows only in the difference of the two.
    """
    import backends
    from backends.ort.bench import latency

    name, source = _source(graph, calibration, held_out, seed)
    feeds = list(islice(iter(source), BATCHES))
    reference = _float_session(float_path, graph, artifact)
    tested = artifact.session(1)
    found = Measured(name, _samples(feeds), compare(reference, tested, feeds, progress))
    if coded is not None:
        part = feeds[:SIMULATED]
        found.simulated = compare(reference, Simulation(coded), part, progress)
        executed = compare(reference, tested, part)
        found.warnings += _deviations(found.simulated, executed)
    found.float_file_bytes = model_bytes(Path(float_path), graph)
    found.batch = ", ".join(f"{key}{list(a.shape)}" for key, a in feeds[0].items())
    progress("latency", 0, None)
    timed = latency([reference, tested], feeds[0])
    found.float_milliseconds, found.milliseconds = timed.milliseconds
    found.warnings += _warnings(found, backends)
    return found


class Simulation:
    """A coded graph run by the bodies of its functions, with a session's `run`."""

    def __init__(self, coded) -> None:
        from backends.torch import Executor

        self._executor = Executor(coded, threads=1, keep_bytes=0)

    def run(self, feeds: Feeds) -> dict[str, np.ndarray]:
        from passes.evaluate import to_numpy

        return {name: to_numpy(value) for name, value in self._executor.run(feeds).items()}


def _deviations(simulated: Outputs, executed: Outputs) -> Iterable[str]:
    """Outputs whose execution is worse than their simulation by more than rounding can be."""
    for name, plain in simulated.items():
        real = executed.get(name)
        if plain is not None and real is not None and plain.sqnr_db - real.sqnr_db > APART:
            yield (
                f"output {name} has {real.sqnr_db:.1f} dB as executed but {plain.sqnr_db:.1f} dB "
                "as simulated: a kernel computes something else; please report the model"
            )


def compare(reference, tested, feeds: Iterable[Feeds], progress=None) -> Outputs:
    """{float output: figures} over all feeds; outputs are paired by place.

    None for an output of which the float model itself makes NaN or Inf: it has no error to measure.
    """
    sums: dict[str, metrics.Difference | None] = {}
    feeds = list(feeds)
    for number, batch in enumerate(feeds, 1):
        pairs = zip(reference.run(batch).items(), tested.run(batch).values(), strict=True)
        for (name, wanted), found in pairs:
            if np.asarray(wanted).dtype.kind != "f":
                continue
            total = sums.setdefault(name, metrics.Difference())
            if not np.isfinite(wanted).all():
                sums[name] = None
            elif total is not None:
                total.add(wanted, found)
        if progress is not None:
            progress("measuring", number, len(feeds))
    return {
        name: None if total is None else total.result()
        for name, total in sums.items()
        if total is None or total.elements
    }


def _float_session(path: str, graph, artifact: backends.Artifact) -> Any:
    """The user's own file where the runtime takes it, else the captured graph."""
    import backends

    target = backends.target(artifact.manifest.target)
    try:
        return target.open(Path(path), threads=1)
    except PtqcError:
        return target.open(graph, threads=1)


def _source(graph, calibration, held_out, seed: int) -> tuple[str, Iterable[Feeds]]:
    if held_out is not None:
        return "held-out data", held_out
    if calibration is not None:
        return "calibration data", calibration
    return "random inputs", calib.data.synthetic(graph, 4, seed)


def _samples(feeds: list[Feeds]) -> int:
    first = [next(iter(batch.values())) for batch in feeds]
    return sum(a.shape[0] if a.ndim else 1 for a in first)


def _warnings(found: Measured, backends) -> Iterable[str]:
    if found.data == "random inputs":
        yield "errors were measured on random inputs; give --eval DATA for meaningful figures"
    unknown = [name for name, figures in found.outputs.items() if figures is None]
    if unknown:
        yield f"the float model makes NaN or Inf of output {', '.join(unknown)} on the data"
    measured = {name: figures for name, figures in found.outputs.items() if figures is not None}
    lost = [name for name, figures in measured.items() if not figures.sqnr_db >= 10]
    if lost:
        yield (
            f"output {', '.join(lost)} lost more than a tenth of its signal's power (below 10 dB); "
            "ptqc compare tells which layers to --keep"
        )
    if found.latency_ratio is not None and found.latency_ratio > 1:
        yield f"the artifact is slower than the float model ({found.latency_ratio:.2f} of its time)"


def model_bytes(path: Path, graph=None) -> int:
    """Size of a model's file with its external weights, or of an artifact's folder."""
    if path.is_dir():
        return sum(p.stat().st_size for p in path.iterdir() if p.name != "manifest.json")
    import onnx_ir

    places = set()
    for value in graph.graph.initializers.values() if graph is not None else ():
        if isinstance(value.const_value, onnx_ir.ExternalTensor):
            places.add(Path(value.const_value.path))
    return path.stat().st_size + sum(p.stat().st_size for p in places)
