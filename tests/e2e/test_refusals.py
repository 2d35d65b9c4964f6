"""What cannot be quantized says why; what looks odd and can be is."""

import numpy as np
import pytest

import passes
from ir.errors import PassError
from tests.e2e import execute
from tests.e2e.build import Build

F = np.float32


def one_input(make, shape=(4, 8)):
    b = Build(50)
    x = b.input("x", ["n", *shape[1:]])
    b.output(make(b, x), None)
    return b.model(), [{"x": b.rng.normal(size=shape).astype(F)} for _ in range(3)]


def poisoned(b, x):
    numbers = b.rng.normal(size=(8, 8)).astype(F)
    numbers[3, 4] = np.nan
    return b.op("MatMul", x, b.const(numbers, "poisoned"))


REFUSED = {
    "no layer": (lambda b, x: b.op("Relu", x), "holds no MatMul, Gemm or Conv with a constant"),
    "no node": (lambda b, x: x, "matched nothing in 0 nodes"),
    "two values": (lambda b, x: b.op("MatMul", x, b.op("Transpose", x, perm=[1, 0])), "holds no"),
    "left": (
        lambda b, x: b.op("MatMul", b.weight(4, 4), x), "its constant is the left factor"),
    "recurrent": (
        lambda b, x: b.op("GRU", b.op("Unsqueeze", x, b.ints(1)), b.weight(1, 12, 8),
                          b.weight(1, 12, 4), hidden_size=4), "GRU layers are not coded"),
    "NaN": (poisoned, "a weight is not finite (at %poisoned)"),
}  # fmt: skip


@pytest.mark.parametrize("recipe", ["w8a8", "w8a8_dynamic", "w8a16", "w4a16"])
@pytest.mark.parametrize("name", REFUSED)
def test_says_why(name, recipe):
    make, reason = REFUSED[name]
    model, feeds = one_input(make)
    with pytest.raises(PassError) as caught:
        passes.run(model, recipe, data=feeds)
    assert reason in str(caught.value)


def test_empty_and_zero_weights():
    def make(b, x):
        none = b.op("MatMul", x, b.const(np.zeros((8, 0), F)))
        zero = b.op("MatMul", x, b.const(np.zeros((8, 4), F)))
        return b.op("Concat", none, zero, b.op("MatMul", x, b.weight(8, 4)), axis=1)

    ran = execute.quantize(*one_input(make), "w8a8")
    step = next(s for s in ran.result.report.steps if s.step.startswith("place"))
    assert len(step.sites) == 2
    assert [s.reason for s in step.skips] == ["its weight is empty"]
    assert ran.db > 30


def test_outputs_that_forbid_by_minus_infinity():
    def make(b, x):
        scores = b.op("MatMul", x, b.weight(8, 16))
        never = np.zeros(16, F)
        never[:3] = -np.inf
        return b.op("Add", scores, b.const(never))

    model, feeds = one_input(make)
    result = passes.run(model, "w8a8{share=0}", data=feeds)
    (db,) = result.report.sqnr.values()
    assert 25 < db < 60


def test_a_local_function_without_inlining_is_refused_not_broken():
    from tests.e2e.edges import functions

    model, feeds = functions()
    with pytest.raises(PassError, match="put inline before"):
        passes.run(model, "place{w=i8@0x1*f32} | rtn", data=feeds)
