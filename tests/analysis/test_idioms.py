"""Hand-built variants of idioms no torch exporter writes, and graphs that only look like idioms."""

import math

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import TensorProto as T
from onnx import helper as h

from ir.analysis import idioms, shapes
from tests.analysis.exporting import assert_same

RNG = np.random.default_rng(0)
FEEDS = {"x": RNG.normal(size=(2, 2, 3, 8)).astype(np.float32)}
ANGLES = RNG.uniform(0, 3, (1, 1, 3, 4)).astype(np.float32)
HALF = {"cos": np.cos(ANGLES), "sin": np.sin(ANGLES)}
FULL = {k: np.concatenate((v, v), -1) for k, v in HALF.items()}
TWICE = {k: np.repeat(v, 2, -1) for k, v in HALF.items()}
NUMBERS = {
    "half": 0.5, "one": 1, "two": 2, "three": 3, "root2": math.sqrt(2), "r2": 1 / math.sqrt(2),
    "eps": 1e-3, "minus_half": -0.5, "c": math.sqrt(2 / math.pi), "a": 0.044715, "alpha": 1.702,
    "ca": math.sqrt(2 / math.pi) * 0.044715, "wrong": 0.06, "six": 6, "zero": 0,
}  # fmt: skip
ARRAYS = {
    "last": np.array([-1]), "channels": np.array([1]), "begin": np.array([0]),
    "middle": np.array([4]), "end": np.array([8]), "step": np.array([2]), "next": np.array([1]),
    "gain": np.linspace(0.5, 2, 8, dtype=np.float32), "shift": np.ones(8, np.float32) / 3,
    "keys": RNG.normal(size=(2, 2, 5, 8)).astype(np.float32), "pairs": np.array([0, 0, 0, 4, 2]),
    "flat": np.array([2, 2, 3, 8]),
}  # fmt: skip


def build(text, extra=None, outputs=("y",)):
    """A graph from lines `y = Op(a, b) {attributes}`; x is f32[2,2,3,8]."""
    nodes = [onnx.parser.parse_node(line) for line in text.strip().splitlines()]
    used = {name for node in nodes for name in node.input}
    arrays = {k: np.float32(v) for k, v in NUMBERS.items()} | ARRAYS | (extra or {})
    graph = h.make_graph(
        nodes,
        "g",
        [h.make_tensor_value_info("x", T.FLOAT, FEEDS["x"].shape)],
        [h.make_tensor_value_info(o, T.FLOAT, None) for o in outputs],
        [onnx.numpy_helper.from_array(np.asarray(a), k) for k, a in arrays.items() if k in used],
    )
    proto = h.make_model(graph, opset_imports=[h.make_opsetid("", 25)], ir_version=13)
    return shapes.infer(onnx_ir.from_proto(proto))


NORM = "s = Mul(x, x)\nm = ReduceMean<keepdims=1>(s, last)\ne = Add(eps, m)\n"
CENTRED = (
    "u = ReduceMean<keepdims=1>(x, last)\nd = Sub(x, u)\np = Pow(d, two)\n"
    "m = ReduceMean<keepdims=1>(p, last)\ne = Add(m, eps)\n"
)
PARTS = "a1 = Slice(x, begin, middle, last)\nb1 = Slice(x, middle, end, last)\n"
PAIRED = PARTS + (
    "ac = Mul(a1, cos)\nbs = Mul(b1, sin)\nbc = Mul(cos, b1)\nas = Mul(sin, a1)\n"
    "re = Sub(ac, bs)\nim = Add(as, bc)\n"
)
STEPS = "a1 = Slice(x, begin, end, last, step)\nb1 = Slice(x, next, end, last, step)\n"
KT = "kt = Transpose<perm=[0,1,3,2]>(keys)\n"
HITS = {
    "rms, pow -0.5": (NORM + "r = Pow(e, minus_half)\ny = Mul(r, x)", "RMSNormalization", {}),
    "rms, 1 / sqrt, gain": (
        NORM + "q = Sqrt(e)\nr = Div(one, q)\nn = Mul(x, r)\ny = Mul(gain, n)",
        "RMSNormalization", {},
    ),
    "rms, div": (NORM + "q = Sqrt(e)\ny = Div(x, q)", "RMSNormalization", {}),
    "layer norm, twice subtracted": (
        CENTRED + "f = Sub(x, u)\nq = Sqrt(e)\nn = Div(f, q)\ng = Mul(n, gain)\ny = Add(shift, g)",
        "LayerNormalization", {},
    ),
    "layer norm, pow 0.5": (
        CENTRED + "q = Pow(e, half)\nn = Div(d, q)\ny = Mul(n, gain)", "LayerNormalization", {}
    ),
    "gelu, half first": (
        "h = Mul(x, half)\nz = Mul(x, r2)\nf = Erf(z)\ng = Add(one, f)\ny = Mul(h, g)", "Gelu", {}
    ),
    "gelu, half inside": (
        "z = Div(x, root2)\nf = Erf(z)\ng = Add(f, one)\nk = Mul(half, g)\ny = Mul(k, x)",
        "Gelu", {},
    ),
    "gelu, distributed": (
        "z = Div(x, root2)\nf = Erf(z)\nh = Div(x, two)\nk = Mul(h, f)\ny = Add(h, k)", "Gelu", {}
    ),
    "gelu tanh, pow": (
        "p = Pow(x, three)\nq = Mul(a, p)\ns = Add(x, q)\nz = Mul(s, c)\nf = Tanh(z)\n"
        "g = Add(f, one)\nk = Mul(x, g)\ny = Mul(k, half)", "Gelu", {},
    ),
    "gelu tanh, factored": (
        "p = Mul(x, x)\nq = Mul(p, ca)\ns = Add(q, c)\nz = Mul(x, s)\nf = Tanh(z)\n"
        "g = Add(f, one)\nk = Mul(g, half)\ny = Mul(k, x)", "Gelu", {},
    ),
    "quick gelu": ("z = Mul(alpha, x)\ns = Sigmoid(z)\ny = Mul(s, x)", "Swish", {}),
    "hard swish": (
        "z = Add(x, three)\nk = Clip(z, zero, six)\ng = Div(k, six)\ny = Mul(x, g)", "HardSwish", {}
    ),
    "softmax": (
        "t = ReduceMax<keepdims=1>(x, channels)\nz = Sub(x, t)\ne = Exp(z)\n"
        "s = ReduceSum<keepdims=1>(e, channels)\ny = Div(e, s)", "Softmax", {},
    ),
    "softmax, no maximum": (
        "e = Exp(x)\ns = ReduceSum<keepdims=1>(e, last)\ny = Div(e, s)", "Softmax", {}
    ),
    "attention, written out": (
        KT + "s = MatMul(x, kt)\nz = Div(s, root2)\ne = Exp(z)\n"
        "t = ReduceSum<keepdims=1>(e, last)\np = Div(e, t)\ny = MatMul(p, keys)", "Attention", {},
    ),
    "attention, where": (
        KT + "s = MatMul(x, kt)\nz = Mul(half, s)\nw = Where(keep, z, low)\n"
        "p = Softmax<axis=-1>(w)\ny = MatMul(p, keys)", "Attention",
        {"keep": np.tri(3, 5, 2)[None, None].astype(bool), "low": np.float32(-1e9)},
    ),
    "attention, filled, scaled operands": (
        "q = Mul(x, half)\nk = Mul(keys, half)\nkt = Transpose<perm=[0,1,3,2]>(k)\n"
        "s = MatMul(q, kt)\nw = Where(drop, low, s)\np = Softmax<axis=3>(w)\ny = MatMul(p, keys)",
        "Attention", {"drop": np.tri(3, 5, 0)[None, None] == 0, "low": np.float32(-1e9)},
    ),
    "attention, keys [b, s, h, d]": (
        "kt = Transpose<perm=[0,2,3,1]>(rows)\ns = MatMul(x, kt)\np = Softmax<axis=-1>(s)\n"
        "y = MatMul(p, keys)", "Attention", {"rows": ARRAYS["keys"].transpose(0, 2, 1, 3).copy()},
    ),
    "rotary, halves": (PAIRED + "y = Concat<axis=-1>(re, im)", "RotaryEmbedding", HALF),
    "rotary, stacked": (
        PAIRED.replace(PARTS, STEPS) + "r5 = Unsqueeze(re, last)\ni5 = Unsqueeze(im, last)\n"
        "k = Concat<axis=-1>(r5, i5)\ny = Reshape(k, flat)", "RotaryEmbedding", HALF,
    ),
    "rotary, rotate every two": (
        STEPS + "n = Neg(b1)\nn5 = Unsqueeze(n, last)\na5 = Unsqueeze(a1, last)\n"
        "k = Concat<axis=-1>(n5, a5)\nr = Reshape(k, flat)\nrs = Mul(r, sin)\nxc = Mul(x, cos)\n"
        "y = Add(xc, rs)", "RotaryEmbedding", TWICE,
    ),
    "rotate half by split": (
        "a1, b1 = Split<axis=-1, num_outputs=2>(x)\nn = Neg(b1)\nr = Concat<axis=-1>(n, a1)\n"
        "rs = Mul(sin, r)\nxc = Mul(x, cos)\ny = Add(rs, xc)", "RotaryEmbedding", FULL,
    ),
    "dropout left over": ("y = Dropout(x, half)", "Identity", {}),
}  # fmt: skip


@pytest.mark.parametrize("case", HITS)
def test_variants_are_recognised_and_equal_the_one_op(case):
    text, kind, extra = HITS[case]
    graph = build(text, extra)
    found = idioms.find(graph)
    assert [i.kind for i in found] == [kind]
    assert found[0].outputs[0].name == "y"
    assert not found[0].extra
    inside = {id(node) for node in found[0].nodes}
    assert all(id(n) in inside or n.op_type == "Transpose" for n in graph.graph)
    assert_same(graph, found[0], FEEDS)


ERF = "h = Mul(x, half)\nz = Mul(x, r2)\nf = Erf(z)\ng = Add(one, f)\ny = Mul(h, g)"
MISSES = {
    "gelu, wrong constant": (ERF.replace("r2", "wrong"), ("y",), {}),
    "gelu, wrong half": (ERF.replace("half", "two"), ("y",), {}),
    "gelu, another x": (ERF.replace("h = Mul(x", "h = Mul(one"), ("y",), {}),
    "gelu, inner value is an output": (ERF, ("y", "f"), {}),
    "gelu, inner value read again": (ERF + "\nv = Neg(g)", ("y", "v"), {}),
    "tanh gelu, wrong cubic": (
        HITS["gelu tanh, pow"][0].replace("Mul(a,", "Mul(wrong,"), ("y",), {}
    ),
    "hard swish, wrong slope": (
        HITS["hard swish"][0].replace("Div(k, six)", "Div(k, two)"), ("y",), {}
    ),
    "rms, of something else": (NORM + "q = Sqrt(e)\nv = Neg(x)\ny = Div(v, q)", ("y",), {}),
    "rms, inverse read again": (
        NORM + "q = Sqrt(e)\nr = Div(one, q)\ny = Mul(x, r)\nv = Neg(r)", ("y", "v"), {}
    ),
    "rms, upside down": (NORM + "q = Sqrt(e)\ny = Div(q, x)", ("y",), {}),
    "rms, pow 3": (
        NORM.replace("Mul(x, x)", "Pow(x, three)") + "q = Sqrt(e)\ny = Div(x, q)", ("y",), {}
    ),
    "softmax over another axis": (
        "e = Exp(x)\ns = ReduceSum<keepdims=1>(e, last)\nt = ReduceSum<keepdims=1>(s, channels)\n"
        "y = Div(e, t)", ("y",), {},
    ),
    "attention, axis of queries": (
        KT + "s = MatMul(x, kt)\np = Softmax<axis=2>(s)\ny = MatMul(p, keys)", ("y",), {}
    ),
    "attention, probabilities read": (
        KT + "s = MatMul(x, kt)\np = Softmax<axis=-1>(s)\ny = MatMul(p, keys)", ("y", "p"), {}
    ),
    "rotary, halves swapped": (
        HITS["rotate half by split"][0].replace("Neg(b1)", "Neg(a1)").replace("(n, a1)", "(n, b1)"),
        ("y",), FULL,
    ),
    "rotary, angles not repeated": (
        HITS["rotate half by split"][0], ("y",), {k: v * np.linspace(1, 2, 8, dtype=np.float32)
                                                   for k, v in FULL.items()},
    ),
    "rotary, signs the other way": (
        PAIRED.replace("Sub(ac, bs)", "Sub(bs, ac)") + "y = Concat<axis=-1>(re, im)", ("y",), HALF
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", MISSES)
def test_what_only_looks_like_an_idiom_is_left(case):
    text, outputs, extra = MISSES[case]
    assert idioms.find(build(text, extra, outputs)) == []


def test_an_epsilon_lp_normalization_cannot_hold_is_told():
    graph = build("n = ReduceL2<keepdims=1>(x, last)\nk = Clip(n, eps)\ny = Div(x, k)")
    (found,) = idioms.find(graph)
    assert (found.kind, found.attributes) == ("LpNormalization", {"axis": -1, "p": 2})
    assert found.extra == {"epsilon_floor": pytest.approx(1e-3)}


def test_a_norm_over_channels_first_names_its_axes():
    text = (NORM + "q = Sqrt(e)\ny = Div(x, q)").replace("last", "channels")
    (found,) = idioms.find(build(text))
    assert found.extra == {"axes": (-3,)}
    assert "axis" not in found.attributes


def test_idioms_inside_a_body_are_found():
    inner = [onnx.parser.parse_node(line) for line in ERF.splitlines()]
    keep = h.make_node("Identity", ["x"], ["k"])
    outs = [h.make_tensor_value_info(o, T.FLOAT, None) for o in ("y", "k")]
    node = h.make_node(
        "If", ["yes"], ["z"],
        then_branch=h.make_graph(inner, "t", [], outs[:1]),
        else_branch=h.make_graph([keep], "e", [], outs[1:]),
    )  # fmt: skip
    numbers = {k: np.float32(NUMBERS[k]) for k in ("half", "r2", "one")} | {"yes": np.bool_(True)}
    graph = h.make_graph(
        [node], "g", [h.make_tensor_value_info("x", T.FLOAT, [2, 3])],
        [h.make_tensor_value_info("z", T.FLOAT, None)],
        [onnx.numpy_helper.from_array(np.asarray(a), k) for k, a in numbers.items()],
    )  # fmt: skip
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", 25)], ir_version=13)
    assert [i.kind for i in idioms.find(onnx_ir.from_proto(model))] == ["Gelu"]
