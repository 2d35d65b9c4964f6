"""The shapes that clean-up derives against what ONNX Runtime computes, some sizes open."""

import numpy as np
import onnx
import onnx_ir
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from passes.cleanup.dims import Dims
from passes.cleanup.symbols import Poly

SIZES = {"n": 2, "h": 11, "w": 13}


def derived_and_real(node, inputs, constants):
    """(sizes that `Dims` derives, put to numbers where it can; the real shape) of one node.

    inputs: {name: shape with names from SIZES}; constants: {name: array}
    """
    infos = [helper.make_tensor_value_info(k, TensorProto.FLOAT, s) for k, s in inputs.items()]
    output = helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, None)
    tensors = [onnx.numpy_helper.from_array(a, k) for k, a in constants.items()]
    graph = helper.make_graph([node], "g", infos, [output], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    parsed = onnx_ir.from_proto(model)
    dims = Dims()
    (only,) = parsed.graph
    dims.learn(only)
    feeds = {
        k: np.zeros([SIZES.get(d, d) for d in s], np.float32) for k, s in inputs.items()
    }  # fmt: skip
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options)
    return dims.shape(only.outputs[0]), session.run(None, feeds)[0].shape


def number(size):
    """A derived size at SIZES; None for a name that is not an input's."""
    if isinstance(size, int):
        return size
    names = {name for term, _ in size.terms for name in term}
    if not names <= set(SIZES):
        return None
    return sum(k * int(np.prod([SIZES[n] for n in term])) for term, k in size.terms)


def agree(found, real, known):
    """Every size that was derived is the real one; at least `known` of them were."""
    numbers = [number(size) for size in found]
    assert len(numbers) == len(real)
    assert all(a in (None, b) for a, b in zip(numbers, real, strict=True)), (numbers, real)
    assert sum(a is not None for a in numbers) >= known


windows = st.fixed_dictionaries(
    {
        "kernel_shape": st.lists(st.integers(1, 3), min_size=2, max_size=2),
        "strides": st.lists(st.integers(1, 3), min_size=2, max_size=2),
        "dilations": st.lists(st.integers(1, 2), min_size=2, max_size=2),
        "pads": st.lists(st.integers(0, 1), min_size=4, max_size=4),
    }
)
sides = st.sampled_from([(11, 13), ("h", "w"), ("h", 13)])
modes = st.sampled_from(["NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"])


def windowed(options, mode):
    """Attributes as the standard allows them: no pads beside auto_pad."""
    options = dict(options)
    if mode != "NOTSET":
        del options["pads"]
        options["dilations"] = [1, 1]
    return options | {"auto_pad": mode}


@settings(max_examples=60, deadline=None)
@given(windows, sides, modes)
def test_convolutions(options, size, mode):
    node = helper.make_node("Conv", ["x", "w"], ["y"], **windowed(options, mode))
    weight = np.zeros((4, 3, *options["kernel_shape"]), np.float32)
    agree(*derived_and_real(node, {"x": ["n", 3, *size]}, {"w": weight}), known=2)
    if size == (11, 13):
        agree(*derived_and_real(node, {"x": ["n", 3, *size]}, {"w": weight}), known=4)


@settings(max_examples=60, deadline=None)
@given(windows, sides, st.booleans())
def test_pooling(options, size, up):
    pads = [
        min(p, k - 1) for p, k in zip(options["pads"], options["kernel_shape"] * 2, strict=True)
    ]
    options = options | {"pads": pads}
    node = helper.make_node("MaxPool", ["x"], ["y"], ceil_mode=int(up), **options)
    known = 4 if size == (11, 13) and not up else 2
    agree(*derived_and_real(node, {"x": ["n", 3, *size]}, {}), known)


@pytest.mark.parametrize(
    ("op", "attributes", "constants", "known"),
    [
        ("Pad", {}, {"p": np.array([0, 0, 1, 2, 0, 0, 3, 0])}, 4),
        ("GlobalAveragePool", {}, {}, 4),
        ("ConvTranspose", {"group": 3, "strides": [2, 2]}, {"k": np.zeros((3, 2, 2, 2), "f4")}, 2),
        ("Resize", {}, {"": None, "s": np.array([2, 3, 20, 20])}, 4),
    ],
)
def test_other_windows(op, attributes, constants, known):
    names = ["x", *constants]
    if op == "Resize":
        names, constants = ["x", "", "", "s"], {"s": constants["s"]}
    node = helper.make_node(op, names, ["y"], **attributes)
    agree(*derived_and_real(node, {"x": ["n", 3, "h", "w"]}, constants), known)


@pytest.mark.parametrize("turned", [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_gemm(turned):
    a, b = (["h", 5][:: 1 - 2 * turned[0]], [5, 4][:: 1 - 2 * turned[1]])
    node = helper.make_node("Gemm", ["a", "b"], ["y"], transA=turned[0], transB=turned[1])
    agree(*derived_and_real(node, {"a": a}, {"b": np.zeros(b, np.float32)}), known=2)


def test_an_open_size_leaves_the_others_of_a_broadcast_known():
    node = helper.make_node("Add", ["a", "b"], ["y"])
    SIZES["m"] = SIZES["n"]
    found, real = derived_and_real(node, {"a": ["n", "h", 1, 5], "b": ["m", 1, "w", 5]}, {})
    del SIZES["m"]
    assert [number(size) for size in found] == [None, 11, 13, 5]
    assert real == (2, 11, 13, 5)


@pytest.mark.parametrize("length", [1, 2, 6])
def test_a_table_cut_at_the_length_has_the_length_in_a_sum(length):
    from passes.cleanup.sizes import broadcast, cut

    end = Poly.named("s")
    assert broadcast((Poly.named("b"), end, 4), (1, cut(6, end), 4)) == (Poly.named("b"), end, 4)
    rows = np.zeros((1, 6, 4))[:, :length]  # min(6, s) rows: s wherever numpy adds them at all
    assert (np.zeros((2, length, 4)) + rows).shape[1] == length
    assert broadcast((Poly.named("t"),), (cut(6, end),)) == (None,)
