"""Every analysis takes time in proportion to the number of nodes."""

import math

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import TensorProto as T
from onnx import helper as h

from ir.analysis import idioms, shapes
from ir.analysis.blocks import blocks
from ir.analysis.cost import cost
from ir.analysis.masks import masked_values
from ir.analysis.streams import streams
from tests.work import calls, exponent

LAYER = """
u = ReduceMean<keepdims=1>(x, last)
d = Sub(x, u)
p = Pow(d, two)
v = ReduceMean<keepdims=1>(p, last)
ve = Add(v, eps)
sd = Sqrt(ve)
nd = Div(d, sd)
ng = Mul(nd, gain)
n = Add(ng, gain)
q0 = MatMul(n, w)
q1 = Reshape(q0, heads)
q = Transpose<perm=[0,2,1,3]>(q1)
k0 = MatMul(n, w)
k1 = Reshape(k0, heads)
k = Transpose<perm=[0,2,3,1]>(k1)
v0 = MatMul(n, w)
v1 = Reshape(v0, heads)
v2 = Transpose<perm=[0,2,1,3]>(v1)
s = MatMul(q, k)
sm = Add(s, mask)
pr = Softmax<axis=-1>(sm)
o = MatMul(pr, v2)
o1 = Transpose<perm=[0,2,1,3]>(o)
o2 = Reshape(o1, merged)
o3 = MatMul(o2, w)
h = Add(x, o3)
up = MatMul(h, w)
z = Div(up, root)
e = Erf(z)
e1 = Add(e, one)
g = Mul(up, e1)
g2 = Mul(g, half)
dn = MatMul(g2, w)
y = Add(h, dn)
"""


def transformer(layers):
    """34 nodes a layer, norms and GELU written out, one mask computed in front."""
    scalars = {"two": 2, "eps": 1e-5, "root": math.sqrt(2), "one": 1, "half": 0.5, "low": -1e9}
    arrays = {k: np.float32(v) for k, v in scalars.items()} | {
        "last": np.array([-1]), "heads": np.array([0, 0, 2, 4]), "merged": np.array([0, 0, 8]),
        "gain": np.linspace(1, 2, 8, dtype=np.float32), "w": np.eye(8, dtype=np.float32),
    }  # fmt: skip
    template = [onnx.parser.parse_node(line) for line in LAYER.strip().splitlines()]
    inner = {o for node in template for o in node.output}

    def named(name, layer):
        if name == "x":
            return f"y_{layer - 1}" if layer else "x"
        return f"{name}_{layer}" if name in inner else name

    nodes = [h.make_node("Mul", ["hidden", "low"], ["mask"])]
    for layer in range(layers):
        for node in template:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            del copy.input[:], copy.output[:]
            copy.input.extend(named(v, layer) for v in node.input)
            copy.output.extend(named(v, layer) for v in node.output)
            nodes.append(copy)
    graph = h.make_graph(
        nodes, "g",
        [h.make_tensor_value_info("x", T.FLOAT, ["batch", 4, 8]),
         h.make_tensor_value_info("hidden", T.FLOAT, ["batch", 1, 1, 4])],
        [h.make_tensor_value_info(f"y_{layers - 1}", T.FLOAT, None)],
        [onnx.numpy_helper.from_array(np.asarray(a), k) for k, a in arrays.items()],
    )  # fmt: skip
    proto = h.make_model(graph, opset_imports=[h.make_opsetid("", 25)], ir_version=13)
    return shapes.infer(onnx_ir.from_proto(proto))


@pytest.fixture(scope="module")
def small_and_large():
    return transformer(60), transformer(300)


ANALYSES = {
    "idioms": (idioms.find, 3),
    "masks": (masked_values, 1),
    "blocks": (blocks, 2),
    "streams": (streams, 4),
    "orders": (lambda graph: streams(graph, "permute"), 2),
    "cost": (lambda graph: cost(graph, {"batch": 1}).rows, 34),
}


@pytest.mark.parametrize("name", ANALYSES)
def test_work_is_linear(name, small_and_large):
    small, large = small_and_large
    analysis, per_layer = ANALYSES[name]
    assert len(list(analysis(large))) >= 300 * per_layer
    few, many = (calls(lambda graph: list(analysis(graph)), each) for each in (small, large))
    assert exponent((60, 300), (few, many)) < 1.03
    assert many < 300 * 34 * 300  # calls a node
