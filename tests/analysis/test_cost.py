import math

import numpy as np
import onnx
import onnx_ir
import pytest
import torch
from onnx import TensorProto as T
from onnx import helper as h
from torch import nn

import ir
from ir.analysis import shapes
from ir.analysis.cost import cost
from ir.errors import PassError
from tests.analysis.exporting import script_export
from tests.analysis.nets import EncoderLayer, ResNet18


def one(op_type, inputs, opset=25, constants=(), outputs=1, **attributes):
    """A model of one node; inputs are shapes, or arrays for constants."""
    names = [f"i{k}" for k in range(len(inputs))]
    node = h.make_node(op_type, names, [f"o{k}" for k in range(outputs)], **attributes)
    graph = h.make_graph(
        [node],
        "g",
        [
            h.make_tensor_value_info(n, T.FLOAT, s)
            for n, s in zip(names, inputs, strict=True)
            if not isinstance(s, np.ndarray)
        ],
        [h.make_tensor_value_info("o0", T.FLOAT, None)],
        [
            onnx.numpy_helper.from_array(s, n)
            for n, s in zip(names, inputs, strict=True)
            if isinstance(s, np.ndarray)
        ],
    )
    proto = h.make_model(graph, opset_imports=[h.make_opsetid("", opset)], ir_version=13)
    return shapes.infer(onnx_ir.from_proto(proto))


def weight(*shape):
    return np.zeros(shape, np.float32)


@pytest.mark.parametrize(
    ("graph", "macs"),
    [
        (one("Conv", [(2, 6, 8, 8), weight(10, 6, 3, 3)]), 2 * 10 * 6 * 6 * 6 * 9),
        (one("Conv", [(1, 6, 8, 8), weight(12, 2, 3, 3)], group=3), 12 * 36 * 2 * 9),
        (one("Conv", [(1, 6, 8, 8), weight(6, 1, 3, 3)], group=6), 6 * 36 * 9),
        (one("ConvTranspose", [(1, 4, 5, 5), weight(4, 3, 2, 2)], strides=[2, 2]), 4 * 25 * 3 * 4),
        (one("MatMul", [(2, 3, 4, 5), (5, 7)]), 2 * 3 * 4 * 5 * 7),
        (one("MatMul", [(5,), (5, 7)]), 35),
        (one("Gemm", [(5, 4), weight(7, 5)], transA=1, transB=1), 4 * 5 * 7),
        (one("Einsum", [(2, 3, 4), (2, 5, 4)], equation="bid,bjd->bij"), 2 * 3 * 5 * 4),
        (one("Einsum", [(2, 6, 3, 4), (4, 5)], equation="...id,dj->...ij"), 2 * 6 * 3 * 4 * 5),
        (one("Einsum", [(3, 4)], equation="ij->ji"), 0),
        (one("Attention", [(2, 4, 5, 8), (2, 2, 6, 8), (2, 2, 6, 3)]), 2 * 4 * 5 * 6 * (8 + 3)),
        (
            one("Attention", [(2, 5, 32), (2, 6, 16), (2, 6, 16)], q_num_heads=4, kv_num_heads=2),
            2 * 5 * 6 * (32 + 32),
        ),
        (one("LSTM", [(7, 2, 3), weight(1, 20, 3), weight(1, 20, 5)], outputs=3, hidden_size=5),
         7 * 2 * (20 * 3 + 20 * 5)),
    ],
)  # fmt: skip
def test_macs_by_hand(graph, macs):
    assert cost(graph).macs == macs


@pytest.fixture(scope="module")
def resnet():
    net = ResNet18().eval()
    axes = {"x": {0: "batch"}}
    return script_export(
        net, (torch.zeros(1, 3, 64, 64),), 13, input_names=["x"], dynamic_axes=axes
    ), net


def test_resnet18_has_the_published_number_of_relus(resnet):
    """262,144 + 4 x 262,144 + 4 x 131,072 + 4 x 65,536 + 4 x 32,768."""
    found = cost(resnet[0], {"batch": 1})
    assert found.nonlinear["Relu"] == 2_228_224
    assert "ReLU6" not in found.nonlinear


def test_resnet18_macs_and_weights_equal_those_torch_counts(resnet):
    graph, net = resnet
    counted = []

    def count(module, inputs, output):
        counted.append(output.numel() * math.prod(module.weight.shape[1:]))

    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    net(torch.zeros(1, 3, 64, 64))
    found = cost(graph, {"batch": 2})
    assert found.macs == 2 * sum(counted)
    stored = 4 * sum(
        math.prod(t.shape) for t in (v.const_value for v in graph.graph.initializers.values())
        if t is not None and t.dtype == onnx_ir.DataType.FLOAT
    )  # fmt: skip
    assert stored <= found.weight_bytes <= stored + 256  # the rest: axes and shapes


def test_an_unbound_symbol_is_named_with_the_remedy(resnet):
    with pytest.raises(PassError, match=r"'batch'.*binding=\{'batch': 1\}"):
        cost(resnet[0])


def test_idioms_count_once_and_relu6_is_not_a_relu():
    class Net(nn.Module):
        def forward(self, x):
            return (
                nn.functional.relu6(nn.functional.gelu(x)) + nn.functional.hardswish(x) + x.relu()
            )

    graph = script_export(Net(), (torch.zeros(3, 5),), 13)
    found = cost(graph).nonlinear
    assert found == {"Gelu": 15, "ReLU6": 15, "HardSwish": 15, "Relu": 15}


def test_attention_is_counted_as_its_products():
    b, s, c = 2, 5, 16
    graph = script_export(EncoderLayer(c, 2), (torch.zeros(b, s, c),), 17)
    assert cost(graph).macs == b * s * (4 * c * c + 8 * c * c) + 2 * b * s * s * c
    assert cost(graph).nonlinear["Softmax"] == b * 2 * s * s


def test_qdq_changes_neither_macs_nor_nonlinearities():
    plain = h.make_node("MatMul", ["x", "w"], ["m"]), h.make_node("Relu", ["m"], ["y"])
    coded = (
        h.make_node("QuantizeLinear", ["x", "s"], ["q"]),
        h.make_node("DequantizeLinear", ["q", "s"], ["d"]),
        h.make_node("MatMul", ["d", "w"], ["m"]),
        h.make_node("Relu", ["m"], ["y"]),
    )
    tensors = [
        onnx.numpy_helper.from_array(np.float32(0.1), "s"),
        onnx.numpy_helper.from_array(weight(4, 6), "w"),
    ]
    costs = []
    for nodes in (plain, coded):
        graph = h.make_graph(
            nodes, "g", [h.make_tensor_value_info("x", T.FLOAT, [3, 4])],
            [h.make_tensor_value_info("y", T.FLOAT, None)], tensors,
        )  # fmt: skip
        proto = h.make_model(graph, opset_imports=[h.make_opsetid("", 25)], ir_version=13)
        costs.append(cost(onnx_ir.from_proto(proto)))
    assert costs[0].macs == costs[1].macs == 3 * 4 * 6
    assert costs[0].nonlinear == costs[1].nonlinear == {"Relu": 18}


def test_the_callers_graph_is_untouched():
    graph = one("MatMul", [("n", 4), weight(4, 6)])
    for value in graph.graph.outputs:
        value.shape = None
    assert cost(graph, {"n": 3}).macs == 72
    assert graph.graph.outputs[0].shape is None
    assert str(graph.graph.inputs[0].shape) == "[n,4]"


def test_symbols_of_the_exporter_follow_from_the_inputs():
    graph = ir.parse(
        """graph g(%x: f32[batch,4]) -> %y {
  %w : f32[4,3] = const seed:1
  %h : f32[unk__0,4] = Relu(%x)
  %y : f32[unk__1,3] = MatMul(%h, %w)
}"""
    )
    assert cost(graph, {"batch": 2}).macs == 2 * 4 * 3
    with pytest.raises(PassError, match="'batch'"):
        cost(graph, {})
    assert [str(d) for d in next(iter(graph.graph)).outputs[0].shape] == ["unk__0", "4"]
