"""Run a recipe on a model and measure what ONNX Runtime then really computes."""

from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime as ort

import backends
import ir
import passes
from ir.capture import to_proto


def session(model: onnx.ModelProto, optimize=True) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])


def outputs(model: onnx.ModelProto, feeds: list[dict], optimize=True) -> list[dict]:
    run = session(model, optimize)
    names = [o.name for o in run.get_outputs()]
    return [dict(zip(names, run.run(None, feed), strict=True)) for feed in feeds]


def sqnr(one: list[dict], two: list[dict], names=None) -> float:
    """dB over all float outputs and feeds together: each output counts by its own power."""
    worst = np.inf
    for name in names or one[0]:
        signal = noise = 0.0
        for a, b in zip(one, two, strict=True):
            assert (a[name].shape, a[name].dtype) == (b[name].shape, b[name].dtype), name
            if a[name].dtype.kind != "f" and a[name].dtype.name != "bfloat16":
                continue
            first = a[name].astype(np.float64)
            signal += float(np.sum(first**2))
            noise += float(np.sum((first - b[name].astype(np.float64)) ** 2))
        if signal:
            worst = min(worst, 10 * np.log10(signal / noise) if noise else np.inf)
    return worst


@dataclass
class Ran:
    """One recipe on one model: executed dB (the worst output), and the run's result."""

    db: float
    result: passes.Result


def quantize(
    model: onnx.ModelProto, feeds: list[dict], recipe: str, target=None, fused: bool = True
) -> Ran:
    """Calibrate on all feeds but the last, and measure on all of them.

    fused: whether ONNX Runtime may fuse the model that is measured against. On CPUs without VNNI
    the fused kernels of a model that arrives quantized may saturate, and are then no reference.

    target None: the model is built for ONNX Runtime and its optimised session is measured. A
    `Target`: the graph is run as it is, its functions inlined and nothing fused.
    """
    graph = ir.capture(model)
    before = to_proto(graph).SerializeToString()
    result = passes.run(graph, recipe, data=feeds[:-1], target=target or "ort")
    assert to_proto(graph).SerializeToString() == before, "the caller's model was changed"
    made = result.graph if target else backends.build(result, "ort").model
    after = outputs(to_proto(made), feeds, optimize=target is None)
    return Ran(sqnr(outputs(model, feeds, optimize=fused), after), result)
