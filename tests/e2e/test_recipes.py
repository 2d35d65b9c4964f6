"""Recipes on the models that quantizers break on: executed by ONNX Runtime, against float."""

import numpy as np
import onnx
import pytest

import backends
import ir
import passes
from ir.capture import to_proto
from passes.core import Stat
from tests.e2e import execute
from tests.e2e.edges import EDGES, typed
from tests.e2e.odd import ODD
from tests.e2e.target import Plain

MODELS = {**ODD, **EDGES}
LEAST = {"clean": 100, "w8a8": 30, "w8a8_dynamic": 30, "w8a16": 34, "w4a16": 16}
"""dB that every model must keep."""
HARDER = {
    ("looped", "w8a8"): 24, ("fan_out", "w4a16"): 11,
    ("convolutions", "w4a16"): 15,
}  # fmt: skip
SITES = {
    "byte_classifier": 4, "audio_one_rate": 8, "audio_two_rates": 8, "looped": 3, "detector": 5,
    "old_cnn": 5, "old_cnn_marks": 5, "tied": 3, "fan_out": 3, "defaults": 2, "float16": 2,
    "double": 2, "empties": 3, "constant_input": 3, "convolutions": 4, "gemms": 3, "products": 2,
    "attention": 12, "functions": 4, "merged": 5, "scanned": 2,
}  # fmt: skip
"""Linear layers whose weight can carry 8 bits."""


def placed(result):
    return next(s for s in result.report.steps if s.step.startswith("place"))


@pytest.mark.parametrize("recipe", ["clean", "w8a8", "w8a8_dynamic"])
@pytest.mark.parametrize("name", MODELS)
def test_executed_close_to_float(name, recipe):
    ran = execute.quantize(*MODELS[name](), recipe)
    assert ran.db > HARDER.get((name, recipe), LEAST[recipe])


@pytest.mark.parametrize("name", MODELS)
def test_every_weight_is_coded(name):
    ran = execute.quantize(*MODELS[name](), "w8a16")
    assert ran.db > LEAST["w8a16"]
    assert len(placed(ran.result).sites) == SITES[name]
    codes = {
        v.name for g in _graphs(ran.result.graph) for v in g.initializers.values()
        if v.dtype == ir.graph.onnx_ir.DataType.INT8 and len(v.shape) > 1
    }  # fmt: skip
    shared = {"merged": 3, "functions": 1}.get(name, 0)  # tied: as it is and turned round
    assert len(codes) == SITES[name] - shared


def _graphs(graph):
    return [graph.graph, *graph.graph.subgraphs()]


@pytest.mark.parametrize("name", MODELS)
def test_four_bits(name):
    db = execute.quantize(*MODELS[name](), "w4a16").db
    assert db > HARDER.get((name, "w4a16"), LEAST["w4a16"])


@pytest.mark.parametrize("name", ["audio_two_rates", "looped", "merged", "scanned", "fan_out"])
def test_any_runtime_runs_the_graph_as_it_is(name):
    """Bodies and tied weights without our lowering: functions inlined, nothing fused."""
    for recipe in ("w8a8", "w8a16"):
        ran = execute.quantize(*MODELS[name](), recipe, target=Plain())
        assert ran.db > HARDER.get((name, recipe), LEAST[recipe])


def test_a_branch_that_never_ran_stays_float_and_says_so():
    ran = execute.quantize(*ODD["audio_one_rate"](), "w8a8", target=Plain())
    step = placed(ran.result)
    assert [s.partition("'")[2][:4] for s in step.sites] == ["k16_"] * 4
    missed = {s.site for s in step.skips if "no calibration sample reached it" in s.reason}
    assert missed == {"Conv 'k8_n0'", "Conv 'k8_n1'", "MatMul 'k8_n7'", "Gemm 'k8_n10'"}
    both = placed(execute.quantize(*ODD["audio_two_rates"](), "w8a8", target=Plain()).result)
    assert len(both.sites) == 8


def test_bodies_run_integer_kernels():
    for name, count in (("audio_two_rates", 6), ("looped", 3), ("merged", 5), ("scanned", 2)):
        model, feeds = MODELS[name]()
        built = backends.build(passes.run(model, "w8a8{share=0}", data=feeds))
        kernels = [k["kernel"] for k in built.manifest.kernels]
        assert sum(bool(k) for k in kernels) >= count, (name, built.manifest.kernels)


def test_outputs_keep_names_order_and_types():
    for name in ("fan_out", "float16", "double", "detector"):
        model, feeds = MODELS[name]()
        made = to_proto(passes.run(model, "w8a8", data=feeds).graph)
        for before, after in zip(model.graph.output, made.graph.output, strict=True):
            assert before.name == after.name
            assert before.type.tensor_type.elem_type == after.type.tensor_type.elem_type
        assert [i.name for i in made.graph.input] == [i.name for i in model.graph.input]


def test_mask_constants_enter_no_range():
    model, feeds = MODELS["attention"]()
    result = passes.run(model, "w8a8", data=feeds[:-1])
    ranges = result.stats[Stat.HISTOGRAM]
    assert len(ranges) >= 8
    for accumulator in ranges.values():
        assert 0 < max(max(-b.low, b.high) for b in accumulator.result().bins) < 1e3
    made = backends.build(result).model
    one = execute.outputs(model, feeds)
    two = execute.outputs(to_proto(made), feeds)
    for a, b in zip(one, two, strict=True):
        a, b = a["y"].ravel(), b["y"].ravel()
        assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > 0.99


def test_bfloat16_is_computed_in_float32():
    """ONNX Runtime has no bfloat16 kernels to compare with: the executor's own float is."""
    model, feeds = typed(onnx.TensorProto.BFLOAT16)
    report = passes.run(model, "w8a8", data=feeds).report
    assert len(next(s for s in report.steps if s.step.startswith("place")).sites) == 2
    assert report.sqnr["y"] > 30
