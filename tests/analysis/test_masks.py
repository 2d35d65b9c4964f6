"""Mask constants are found in whatever form exporters leave them, and nothing else is."""

import numpy as np
import onnx
import onnx_ir
import pytest
import torch
from onnx import TensorProto as T
from onnx import helper as h

from ir.analysis import shapes
from ir.analysis.masks import masked_values
from tests.analysis.exporting import script_export, values_of
from tests.analysis.nets import Llama

FEEDS = {
    "x": np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32) * 5,
    "m": np.array([[[1, 1, 0, 1]], [[1, 0, 0, 1]]], np.float32),
}


def graph_of(nodes, tensors, bodies=(), functions=()):
    """x [2,3,4] scores and m [2,1,4] (1 = keep) to y."""
    graph = h.make_graph(
        nodes,
        "g",
        [
            h.make_tensor_value_info("x", T.FLOAT, [2, 3, 4]),
            h.make_tensor_value_info("m", T.FLOAT, [2, 1, 4]),
        ],
        [h.make_tensor_value_info("y", T.FLOAT, None)],
        [onnx.numpy_helper.from_array(np.asarray(a), n) for n, a in tensors.items()],
    )
    imports = [h.make_opsetid("", 25), h.make_opsetid("own", 1)]
    proto = h.make_model(graph, opset_imports=imports, ir_version=13, functions=list(functions))
    return shapes.infer(onnx_ir.from_proto(proto))


def n(op, inputs, output, **attributes):
    return h.make_node(op, inputs.split(), [output], **attributes)


SOFTMAX = [n("Softmax", "s", "y", axis=-1)]
WRITTEN_OUT = [
    n("ReduceMax", "s last", "top", keepdims=1),
    n("Sub", "s top", "z"),
    n("Exp", "z", "e"),
    n("ReduceSum", "e last", "t", keepdims=1),
    n("Div", "e t", "y"),
]
ADDED = [n("Sub", "one m", "gone"), n("Mul", "gone c", "big"), n("Add", "x big", "s")]
CASES = {
    "added": (ADDED, {"big", "s", "c"}),
    "spread": (
        [n("Sub", "one m", "gone"), n("Mul", "gone c", "b0"), n("Unsqueeze", "b0 first", "b1"),
         n("Squeeze", "b1 first", "b2"), n("Expand", "b2 shape", "b3"), n("Add", "b3 x", "s")],
        {"c", "b0", "b1", "b2", "b3", "s"},
    ),
    "where": (
        [n("Cast", "m", "keep", to=T.BOOL), n("Where", "keep x c", "s")], {"c", "s"}
    ),
    "chosen first": (
        [n("Cast", "m", "keep", to=T.BOOL), n("Where", "keep zero c", "w"), n("Add", "w x", "s")],
        {"c", "w", "s"},
    ),
    "positive factor": (
        [n("Sub", "m one", "gone"), n("Mul", "gone minus_c", "big"), n("Add", "x big", "s")],
        {"big", "s"},
    ),
    "subtracted": (
        [n("Sub", "one m", "gone"), n("Mul", "gone minus_c", "big"), n("Sub", "x big", "s")],
        {"s"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("end", ["softmax", "written out"])
@pytest.mark.parametrize("low", [-1e4, -65504.0, -1e9, float(np.finfo(np.float32).min)])
@pytest.mark.parametrize("case", CASES)
def test_forms_of_masks(case, low, end):
    nodes, carried = CASES[case]
    tensors = {
        "c": np.float32(low), "minus_c": np.float32(-low), "one": np.float32(1),
        "zero": np.float32(0), "first": np.array([0]), "last": np.array([-1]),
        "shape": np.array([2, 3, 4]),
    }  # fmt: skip
    graph = graph_of([*nodes, *(SOFTMAX if end == "softmax" else WRITTEN_OUT)], tensors)
    found = masked_values(graph)
    assert carried <= set(found)
    assert not {"x", "m", "one", "zero", "gone", "keep", "y", "e", "t"} & set(found)
    check_thresholds(graph, found)


def check_thresholds(graph, found):
    """At or below the threshold there is mask, above it is what the scores alone give."""
    computed = [v for node in graph.graph for v in node.outputs if v.name in found]
    for value, array in zip(computed, values_of(graph, FEEDS, computed), strict=True):
        hidden = array <= found[value.name]
        if array.min() < 0 or hidden.any():
            assert hidden.any()
            assert np.abs(array[~hidden]).max(initial=0) < 50


def test_minus_infinity_and_constant_of_shape():
    low = onnx.numpy_helper.from_array(np.array([-np.inf], np.float32))
    nodes = [
        n("ConstantOfShape", "square", "full", value=low),
        n("Trilu", "full one_up", "later", upper=1),
        n("Add", "x later", "s"),
        *SOFTMAX,
    ]
    graph = graph_of(nodes, {"square": np.array([3, 4]), "one_up": np.int64(2)})
    found = masked_values(graph)
    assert {"full", "later", "s"} <= set(found)
    check_thresholds(graph, {k: v for k, v in found.items() if k != "full"})


def test_large_constants_away_from_a_softmax_are_data():
    nodes = [n("Add", "x c", "h"), n("Relu", "h", "r"), n("Add", "x r", "s"), *SOFTMAX]
    assert masked_values(graph_of(nodes, {"c": np.float32(-1e9)})) == {}


def test_scores_without_a_mask_are_data():
    nodes = [n("Add", "x c", "s"), *SOFTMAX]
    assert masked_values(graph_of(nodes, {"c": np.float32(-30)})) == {}


def test_masks_enter_functions_and_bodies():
    inner = h.make_function(
        "own", "Masked", ["scores", "bias"], ["p"],
        [n("Add", "scores bias", "sum"), n("Softmax", "sum", "p", axis=-1)],
        [h.make_opsetid("", 25)],
    )  # fmt: skip
    call = h.make_node("Masked", ["x", "big"], ["y"], domain="own")
    nodes = [n("Sub", "one m", "gone"), n("Mul", "gone c", "big"), call]
    tensors = {"one": np.float32(1), "c": np.float32(-1e9)}
    found = masked_values(graph_of(nodes, tensors, functions=[inner]))
    assert {"c", "big", "bias", "sum"} == set(found)

    branches = [
        h.make_graph(
            [n("Mul", f"gone {c}", f"b_{c}")], c, [], [h.make_tensor_value_info(f"b_{c}", 1, None)]
        )
        for c in ("c", "one")
    ]
    choose = h.make_node("If", ["yes"], ["big"], then_branch=branches[0], else_branch=branches[1])
    nodes = [n("Sub", "one m", "gone"), choose, n("Add", "x big", "s"), *SOFTMAX]
    found = masked_values(graph_of(nodes, {**tensors, "yes": np.bool_(True)}))
    assert {"c", "b_c", "big", "s"} == set(found)


def test_the_mask_a_decoder_computes():
    args = torch.zeros(2, 5, dtype=torch.int64), torch.arange(5).repeat(2, 1)
    graph = script_export(Llama(layers=2), args, 14, input_names=["ids", "positions"])
    found = masked_values(graph)
    softmaxes = [node for node in graph.graph if node.op_type == "Softmax"]
    assert len(softmaxes) == 2
    for node in softmaxes:
        assert found[node.inputs[0].name] < -1e30
    assert not any(node.op_type in ("MatMul", "Softmax") and node.outputs[0].name in found
                   for node in graph.graph)  # fmt: skip
