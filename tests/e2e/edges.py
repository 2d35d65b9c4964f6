"""Structures that a rewriter meets sooner or later, each the smallest model that holds it."""

import numpy as np
from onnx import TensorProto, helper

from tests.e2e.build import Build

F = np.float32


def _feeds(b, count=6, /, **shapes):
    return [
        {name: b.rng.normal(size=shape).astype(F) for name, shape in shapes.items()}
        for _ in range(count)
    ]


def tied():
    """One weight as embedding, as MatMul's factor, and turned round as Gemm's."""
    b = Build(10)
    ids = b.input("ids", ["n"], np.int64)
    w = b.weight(48, 32, scale=0.3)
    h = b.op("Tanh", b.op("MatMul", b.op("Gather", w, ids), b.weight(32, 48)))
    low = b.op("MatMul", h, w)
    b.output(b.op("Gemm", low, w, transB=1, out="logits"), ["n", 48])
    return b.model(), [{"ids": b.rng.integers(0, 48, 16)} for _ in range(4)]


def fan_out():
    """A value read by two kernels and by float ops, an input returned as it is, a kernel's output
    returned, and one that is both read and returned."""
    b = Build(11)
    x = b.input("x", ["n", 8, 12, 12])
    h = b.op("Conv", x, b.weight(16, 8, 3, 3), pads=[1] * 4, out="both")
    one = b.op("Conv", h, b.weight(8, 16, 1, 1), out="end")
    two = b.op("Conv", h, b.weight(8, 16, 3, 3), b.weight(8, scale=0.1), pads=[1] * 4)
    b.output("x", ["n", 8, 12, 12])
    b.output(h, ["n", 16, 12, 12])
    b.output(one, ["n", 8, 12, 12])
    b.output(b.op("Tanh", b.op("Mul", two, b.op("Exp", one)), out="tail"), ["n", 8, 12, 12])
    b.output(b.op("ReduceMean", h, axes=[2, 3], out="mean"), ["n", 16, 1, 1])
    return b.model(), _feeds(b, x=(2, 8, 12, 12))


def defaults():
    """Weights that are listed as inputs, as IR version 3 had it."""
    b = Build(12)
    x = b.input("x", ["n", 16])
    for name, shape in (("w_a", (16, 24)), ("w_b", (24, 4))):
        b.const(b.rng.normal(size=shape).astype(F) * F(0.2), name)
        b.input(name, shape)
    b.output(b.op("MatMul", b.op("Relu", b.op("MatMul", x, "w_a")), "w_b", out="y"), ["n", 4])
    return b.model(11, 3), _feeds(b, x=(8, 16))


def typed(kind):
    """A whole model of another float type, inputs and outputs too."""
    b = Build(13)
    b.kind = kind
    np_kind = helper.tensor_dtype_to_np_dtype(kind)
    x = b.input("x", ["n", 16], kind)
    h = b.op("MatMul", x, b.weight(16, 32, kind=np_kind))
    h = b.op("Tanh", b.op("Add", h, b.weight(32, scale=0.1, kind=np_kind)))
    h = b.op("Mul", h, b.op("Cast", b.const(F(0.7)), to=kind))
    b.output(b.op("Gemm", h, b.weight(32, 8, kind=np_kind), out="y"), ["n", 8], kind)
    model = b.model(20)
    feeds = [{"x": b.rng.normal(size=(8, 16)).astype(np_kind)} for _ in range(6)]
    return model, feeds


def empties():
    """A tensor of no elements is joined to the data, and one layer's batch may be empty."""
    b = Build(14)
    x = b.input("x", ["n", 16])
    past = b.input("past", ["p", 16])
    both = b.op("Concat", past, x, axis=0)
    h = b.op("Relu", b.op("MatMul", both, b.weight(16, 16)))
    none = b.op("MatMul", past, b.weight(16, 8))
    b.output(b.op("MatMul", h, b.weight(16, 8), out="y"), ["m", 8])
    b.output(b.op("Identity", none, out="z"), ["p", 8])
    shapes = [(4, 0), (3, 2), (5, 0), (4, 0)]
    return b.model(), [
        {"x": b.rng.normal(size=(n, 16)).astype(F), "past": b.rng.normal(size=(p, 16)).astype(F)}
        for n, p in shapes
    ]


def constant_input():
    """An input that is always zero, and one that is always the same."""
    b = Build(15)
    x, bias, flag = b.input("x", ["n", 16]), b.input("zero", ["n", 16]), b.input("one", ["n", 16])
    parts = [b.op("MatMul", v, b.weight(16, 8)) for v in (x, bias, flag)]
    b.output(b.op("Sum", *parts, out="y"), ["n", 8])
    feeds = _feeds(b, x=(4, 16))
    for feed in feeds:
        feed |= {"zero": np.zeros((4, 16), F), "one": np.ones((4, 16), F)}
    return b.model(), feeds


def convolutions():
    """1-D, 3-D, grouped, depthwise and transposed, with and without bias."""
    b = Build(16)
    x = b.input("x", ["n", 8, 6, 6, 6])
    h = b.op("Relu", b.op("Conv", x, b.weight(8, 8, 3, 3, 3), pads=[1] * 6))
    h = b.op("Reshape", h, b.ints(0, 8, 6, -1))
    h = b.op("Relu", b.op("Conv", h, b.weight(16, 4, 3, 3), b.weight(16, scale=0.1), group=2))
    h = b.op("Conv", h, b.weight(16, 1, 3, 3), group=16)
    h = b.op("ConvTranspose", h, b.weight(16, 8, 2, 2), strides=[2, 2])
    h = b.op("Reshape", h, b.ints(0, 8, -1))
    b.output(b.op("Conv", h, b.weight(4, 8, 5), strides=[3], out="y"), ["n", 4, "t"])
    return b.model(), _feeds(b, x=(2, 8, 6, 6, 6))


def gemms():
    """Gemm with transA, alpha and beta, and with a bias that is computed."""
    b = Build(17)
    x = b.input("x", ["n", 16])
    turned = b.op("Transpose", x, perm=[1, 0])
    h = b.op("Gemm", turned, b.weight(16, 24), b.weight(24), transA=1, alpha=0.5, beta=2.0)
    h = b.op("Gemm", b.op("Tanh", h), b.weight(24, 24), alpha=1.5)
    base = b.op("ReduceMean", x, axes=[1])
    b.output(b.op("Gemm", h, b.weight(8, 24), base, transB=1, beta=0.5, out="y"), ["n", 8])
    return b.model(), _feeds(b, x=(8, 16))


def products():
    """A stack of weights, a constant on the left, Einsum, a vector."""
    b = Build(18)
    x = b.input("x", ["n", 4, 8, 16])
    h = b.op("MatMul", x, b.weight(4, 16, 24, scale=0.25))
    left = b.op("MatMul", b.weight(12, 8, scale=0.3), h)
    e = b.op("Einsum", left, b.weight(24, 16), equation="bhtk,kn->bhtn")
    v = b.op("MatMul", e, b.weight(16, scale=0.2))
    b.output(e, ["n", 4, 12, 16])
    b.output(b.op("Identity", v, out="v"), ["n", 4, 12])
    return b.model(), _feeds(b, x=(2, 4, 8, 16))


def attention():
    """Attention with a finfo.min mask, exported eagerly; the mask is computed from an input."""
    b = Build(19)
    x, mask = b.input("x", ["n", "t", 32]), b.input("mask", ["n", "t"], np.int64)
    low = np.finfo(F).min
    keep = b.op("Unsqueeze", b.op("Cast", mask, to=TensorProto.FLOAT), b.ints(1, 2))
    bias = b.op("Mul", b.op("Sub", b.const(F(1)), keep), b.const(low))
    for _ in range(2):
        q, k, v = (
            b.op("Transpose", b.op("Reshape", _dense(b, x, 32, 32), b.ints(0, 0, 4, 8)),
                 perm=[0, 2, 1, 3]) for _ in range(3)
        )  # fmt: skip
        scores = b.op("MatMul", q, b.op("Transpose", k, perm=[0, 1, 3, 2]))
        scores = b.op("Add", b.op("Div", scores, b.const(F(np.sqrt(8)))), bias)
        h = b.op("MatMul", b.op("Softmax", scores, axis=-1), v)
        h = b.op("Reshape", b.op("Transpose", h, perm=[0, 2, 1, 3]), b.ints(0, 0, 32))
        x = b.op("Add", x, _dense(b, h, 32, 32))
        x = b.op(
            "LayerNormalization", x, b.const(np.ones(32, F)), b.const(np.zeros(32, F)), axis=-1
        )
        x = b.op("Add", x, _dense(b, b.op("Gelu", _dense(b, x, 32, 64)), 64, 32))
    b.output(b.op("Identity", x, out="y"), ["n", "t", 32])
    feeds = []
    for n, t in ((2, 8), (1, 12), (3, 6), (2, 9), (2, 10)):
        keep = (np.arange(t) < b.rng.integers(2, t + 1, (n, 1))).astype(np.int64)
        feeds.append({"x": b.rng.normal(size=(n, t, 32)).astype(F), "mask": keep})
    return b.model(20), feeds


def _dense(b, x, inputs, outputs):
    return b.op("Add", b.op("MatMul", x, b.weight(inputs, outputs)), b.weight(outputs, scale=0.1))


def functions():
    """The layers stand in local functions, one of which calls another."""
    b = Build(20)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("custom", 1)]
    dense = helper.make_function(
        "custom", "Dense", ["x", "w", "c"], ["y"],
        [helper.make_node("MatMul", ["x", "w"], ["p"]), helper.make_node("Add", ["p", "c"], ["y"])],
        opsets,
    )  # fmt: skip
    w = helper.make_tensor("w", TensorProto.FLOAT, (16, 16), b.rng.normal(size=256) * 0.25)
    block = helper.make_function(
        "custom", "Block", ["x", "w", "c"], ["y"],
        [
            helper.make_node("Dense", ["x", "w", "c"], ["h"], domain="custom"),
            helper.make_node("Relu", ["h"], ["r"]),
            helper.make_node("Constant", [], ["inner"], value=w),
            helper.make_node("MatMul", ["r", "inner"], ["y"]),
        ],
        opsets,
    )  # fmt: skip
    b.functions = [dense, block]
    x = b.input("x", ["n", 16])
    for _ in range(2):
        x = b.op("Block", x, b.weight(16, 16), b.weight(16, scale=0.1), domain="custom")
    b.output(b.op("Identity", x, out="y"), ["n", 16])
    return b.model(domains=["custom"]), _feeds(b, x=(8, 16))


def merged():
    """Two branches that share all weights of the outer graph, as merged decoders do."""
    b = Build(21)
    x, flag = b.input("x", ["n", 32]), b.input("use_cache", [], np.bool_)
    shared, last = b.weight(32, 32), b.weight(32, 8)
    bodies = []
    for prefix, op in (("a_", "Relu"), ("b_", "Tanh")):
        s = b.sub(prefix)
        h = s.op(op, s.op("MatMul", x, shared))
        s.output(s.op("MatMul", h, last), ["n", 8])
        bodies.append(s.graph(prefix))
    y = b.op("If", flag, then_branch=bodies[0], else_branch=bodies[1])
    again = b.op("MatMul", x, shared)
    b.output(b.op("Identity", y, out="y"), ["n", 8])
    b.output(b.op("Sigmoid", again, out="z"), ["n", 32])
    feeds = _feeds(b, 8, x=(4, 32))
    for i, feed in enumerate(feeds):
        feed["use_cache"] = np.array(i % 2 == 0)
    return b.model(), feeds


def scanned():
    """A Scan whose body is a recurrent cell."""
    b = Build(22)
    x, state = b.input("x", ["t", 2, 16]), b.input("state", [2, 24])
    s = b.sub("cell_")
    h, row = s.input("cell_h", [2, 24]), s.input("cell_x", [2, 16])
    both = s.op("Add", s.op("MatMul", row, s.weight(16, 24)), s.op("MatMul", h, s.weight(24, 24)))
    new = s.op("Tanh", both)
    s.output(new, [2, 24])
    s.output(s.op("Identity", new), [2, 24])
    last, rows = b.op(
        "Scan", state, x, outputs=2, body=s.graph("cell"), num_scan_inputs=1, out=["last", "rows"]
    )
    b.output(last, [2, 24])
    b.output(rows, ["t", 2, 24])
    return b.model(), [
        {"x": b.rng.normal(size=(4 + i, 2, 16)).astype(F), "state": np.zeros((2, 24), F)}
        for i in range(8)
    ]


EDGES = {
    "tied": tied, "fan_out": fan_out, "defaults": defaults,
    "float16": lambda: typed(TensorProto.FLOAT16),
    "double": lambda: typed(TensorProto.DOUBLE), "empties": empties,
    "constant_input": constant_input, "convolutions": convolutions, "gemms": gemms,
    "products": products, "attention": attention, "functions": functions, "merged": merged,
    "scanned": scanned,
}  # fmt: skip
