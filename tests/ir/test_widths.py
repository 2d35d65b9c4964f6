"""Elements of 2 to 8 bits: all codes, in plain ONNX Runtime, the torch executor, and numpy."""

import numpy as np
import onnx_ir
import pytest
import torch

from backends import reference
from backends.ort.session import Level, Session
from backends.torch import Executor
from ir import ops
from ir.edit import Edit
from ir.errors import PipelineError
from ir.formats import integer
from ir.graph import OPSET, Graph
from ir.qtype import QType, container

ELEMENTS = [f"{sign}{bits}" for sign in "iu" for bits in range(2, 9)]
LAYOUTS = ["0", "0x1", "1x0", "4x1", "1x1"]
"""One scale, one a column, one a row, one for four rows of a column, one each."""


@pytest.mark.parametrize("element", ELEMENTS)
def test_limits_are_those_of_the_width_and_the_container_holds_them(element):
    qtype, bits = QType(element), int(element[1:])
    low, high = qtype.limits
    assert high - low == 2**bits - 1
    assert low == (-(2 ** (bits - 1)) if element[0] == "i" else 0)
    stored = QType(container(element))
    assert stored.bits == {2: 2, 3: 4, 4: 4, 5: 8, 6: 8, 7: 8, 8: 8}[bits]
    assert qtype.narrow is (stored.bits != bits)
    codes = np.arange(low, high + 1)
    held = codes.astype(integer.dtype(element))
    np.testing.assert_array_equal(held.astype(np.int64), codes)
    assert onnx_ir.DataType.from_numpy(held.dtype) == ops.onnx_type(element)


@pytest.mark.parametrize("element", ["i1", "u0", "i9", "u12", "i64", "e2m1", "i"])
def test_other_widths_are_refused(element):
    with pytest.raises(PipelineError, match="no ONNX integer type"):
        container(element)
    if element != "e2m1":  # a table: its codes lie in u4
        with pytest.raises(PipelineError):
            ops.onnx_type(element)


def looped(x, scale, zero, qtype):
    """Number by number: divide, round half to even, move, hold."""
    low, high = qtype.limits
    out = np.empty(x.shape, np.int64)
    for place in np.ndindex(*x.shape):
        at = (
            ()
            if qtype.per_tensor
            else tuple(
                0 if size == 0 else i // size for i, size in zip(place, qtype.block, strict=True)
            )
        )
        steps = round(float(np.float32(x[place]) / np.float32(scale[at])))
        out[place] = min(max(steps + (0 if zero is None else int(zero[at])), low), high)
    return out


def case(element, layout, affine):
    """Numbers around every code and beyond both ends, in four columns of their own scales."""
    qtype = QType.parse(f"{element}@{layout}*f32" + (f"+{element}" if affine else ""))
    low, high = qtype.limits
    codes = np.arange(low - 3, high + 4)
    codes = np.concatenate([codes, np.full(-len(codes) % 4, high + 9)])
    x = np.stack([codes, codes + 0.5, codes - 0.25, codes[::-1]], 1)  # halves: ties
    shape, rng = qtype.scale_shape(x.shape), np.random.default_rng(0)
    scale = np.asarray(2.0 ** rng.integers(-2, 3, shape), np.float32)  # exact quotients
    zero = np.asarray(rng.integers(low, high + 1, shape)).astype(integer.dtype(element))
    whole = integer.expand(np.asarray(scale, np.float64), x.shape, qtype)
    return qtype, (x * whole).astype(np.float32), scale, zero if affine else None


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("element", ELEMENTS)
def test_all_codes_are_reached_and_nothing_beyond(element, layout, affine):
    qtype, x, scale, zero = case(element, layout, affine)
    wanted = looped(x, scale, zero, qtype)
    if not affine:
        assert set(range(qtype.limits[0], qtype.limits[1] + 1)) <= set(wanted.ravel().tolist())
    codes = integer.encode(x, scale, zero, qtype)
    np.testing.assert_array_equal(codes.astype(np.int64), wanted)
    origin = 0 if zero is None else integer.expand(zero.astype(np.int64), x.shape, qtype)
    numbers = (wanted - origin) * integer.expand(np.asarray(scale, np.float64), x.shape, qtype)
    np.testing.assert_array_equal(integer.decode(codes, scale, zero, qtype), numbers)
    graph = rounded(qtype, x, scale, zero)
    for level in (Level.NONE, Level.ALL):
        (run,) = Session(graph, level=level, threads=1).run({"x": x}).values()
        np.testing.assert_array_equal(run, numbers)


def rounded(qtype, x, scale, zero=None):
    """Encode and Decode of an input at one scale."""
    value = onnx_ir.val("x", onnx_ir.DataType.FLOAT, x.shape)
    graph = Graph(
        onnx_ir.Graph([value], [], nodes=[], opset_imports={"": OPSET}, name="g"), ir_version=13
    )
    edit = Edit(graph)
    parts = [edit.constant(np.asarray(part), "part") for part in (scale, zero) if part is not None]
    encode = edit.quant("Encode", qtype, [value, *parts], like="x")
    decode = edit.quant("Decode", qtype, [encode.outputs[0], *parts], like="x", after=encode)
    graph.graph.outputs.append(decode.outputs[0])
    ops.define(graph)
    return graph


@pytest.mark.parametrize("element", ELEMENTS)
def test_executor_and_reference_hold_codes_at_the_elements_limits(element):
    qtype, x, scale, _ = case(element, "0", False)
    wanted = integer.decode(integer.encode(x, scale, None, qtype), scale, None, qtype)
    graph = rounded(qtype, x, scale)
    name = graph.graph.outputs[0].name
    np.testing.assert_array_equal(reference.run(graph, {"x": x})[name], wanted)
    np.testing.assert_array_equal(Executor(graph).run({"x": x})[name].numpy(), wanted)


def test_a_gradient_passes_inside_the_limits_of_a_narrow_element_only():
    qtype, scale = QType.parse("i6@0*f32"), np.float32(0.5)
    x = torch.tensor([-40.0, -16.2, -15.9, 0.1, 15.4, 15.8, 40.0], requires_grad=True)
    graph = rounded(qtype, x.detach().numpy(), scale)
    (y,) = Executor(graph).run({"x": x}).values()
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [0, 1, 1, 1, 1, 0, 0])
