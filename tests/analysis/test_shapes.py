import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import TensorProto as T
from onnx import helper as h

from ir.analysis import shapes
from ir.errors import PassError


def model(nodes, inputs, outputs, tensors=(), functions=(), opset=25):
    graph = h.make_graph(
        nodes,
        "g",
        [h.make_tensor_value_info(n, t, s) for n, t, s in inputs],
        [h.make_tensor_value_info(n, T.FLOAT, None) for n in outputs],
        [onnx.numpy_helper.from_array(np.asarray(a), n) for n, a in tensors],
    )
    imports = [h.make_opsetid("", opset), h.make_opsetid("own", 1)]
    proto = h.make_model(graph, opset_imports=imports, ir_version=13, functions=list(functions))
    return onnx_ir.from_proto(proto)


def heads(batch):
    """Split [batch, seq, 8] into heads [batch, seq, 2, 4] by a computed Reshape target."""
    nodes = [
        h.make_node("Shape", ["x"], ["s"], end=2),
        h.make_node("Concat", ["s", "tail"], ["target"], axis=0),
        h.make_node("Reshape", ["x", "target"], ["y"]),
    ]
    return model(nodes, [("x", T.FLOAT, [batch, "seq", 8])], ["y"], [("tail", np.array([2, 4]))])


def test_a_computed_reshape_target_is_followed_and_symbols_are_kept():
    graph = shapes.infer(heads("batch"))
    assert shapes.dims(graph.graph.outputs[0]) == ("batch", "seq", 2, 4)
    assert shapes.dtype(graph.graph.outputs[0]) == onnx_ir.DataType.FLOAT


def test_elements_binds_symbols_and_names_the_one_that_is_missing():
    y = shapes.infer(heads("batch")).graph.outputs[0]
    assert shapes.elements(y, {"batch": 3, "seq": 5}) == 120
    with pytest.raises(PassError, match=r"'batch'.*binding=\{'batch': 1\}"):
        shapes.elements(y, {"seq": 5})


def test_formulas_of_symbols_are_evaluated():
    nodes = [h.make_node("Concat", ["x", "x"], ["y"], axis=0)]
    y = shapes.infer(model(nodes, [("x", T.FLOAT, ["n", 3])], ["y"])).graph.outputs[0]
    assert shapes.elements(y, {"n": 5}) == 30


def test_unknown_shape_is_an_error_that_says_what_to_do():
    y = heads(2).graph.outputs[0]
    with pytest.raises(PassError, match="infer"):
        shapes.elements(y)


def test_bodies_and_functions_are_filled():
    body = h.make_graph(
        [h.make_node("Add", ["x", "x"], ["inner"])],
        "then",
        [],
        [h.make_tensor_value_info("inner", T.FLOAT, None)],
    )
    other = h.make_graph(
        [h.make_node("Neg", ["x"], ["outer"])],
        "else",
        [],
        [h.make_tensor_value_info("outer", T.FLOAT, None)],
    )
    twice = h.make_function(
        "own", "Twice", ["a"], ["b"], [h.make_node("Add", ["a", "a"], ["b"])],
        [h.make_opsetid("", 25)],
    )  # fmt: skip
    nodes = [
        h.make_node("If", ["c"], ["i"], then_branch=body, else_branch=other),
        h.make_node("Twice", ["i"], ["y"], domain="own"),
    ]
    inputs = [("x", T.FLOAT, ["n", 4]), ("c", T.BOOL, [])]
    graph = shapes.infer(model(nodes, inputs, ["y"], functions=[twice]))
    inner = next(graph.graph.subgraphs()).outputs[0]
    assert shapes.dims(inner) == ("n", 4)
    assert shapes.dims(graph.graph.outputs[0]) == ("n", 4)


def test_a_contradiction_does_not_stop_the_rest():
    nodes = [
        h.make_node("MatMul", ["x", "w"], ["bad"]),
        h.make_node("Relu", ["x"], ["y"]),
        h.make_node("Unheard", ["x"], ["odd"], domain="own"),
    ]
    weights = [("w", np.zeros((5, 2), np.float32))]
    graph = shapes.infer(model(nodes, [("x", T.FLOAT, [2, 4])], ["bad", "y", "odd"], weights))
    assert shapes.dims(graph.graph.outputs[1]) == (2, 4)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_no_official_node_test_gets_a_wrong_shape():
    """Over every single-node model of the onnx package: unknown is allowed, wrong is not."""
    from onnx.backend.test.case.node import collect_testcases

    wrong, known, total = [], 0, 0
    for case in collect_testcases(None):  # pyright: ignore[reportArgumentType]
        graph = onnx_ir.from_proto(case.model)
        declared = [shapes.dims(v) for v in graph.graph.outputs]
        for value in graph.graph.outputs:
            value.shape = None
        shapes.infer(graph)
        for value, want in zip(graph.graph.outputs, declared, strict=True):
            found = shapes.dims(value)
            if want is None:
                continue
            total += 1
            known += found is not None
            if found is not None and (
                len(found) != len(want)
                or any(isinstance(a, int) and isinstance(b, int) and a != b
                       for a, b in zip(found, want, strict=True))
            ):  # fmt: skip
                wrong.append((case.name, found, want))
    assert wrong == []
    assert known >= 0.85 * total > 1000
