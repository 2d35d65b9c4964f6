"""Five ordinary models of the kinds that quantizers break on, tiny and seeded.

Each gives (model, batches): batches for calibration; the last is kept for testing.
"""

import numpy as np

from tests.e2e.build import Build

F = np.float32


def byte_classifier():
    """Bytes -> embedding -> 1-D convolutions with norms written out -> classes. Dynamic length."""
    b = Build(1)
    x = b.input("bytes", ["batch", "length"], np.int64)
    h = b.op("Gather", b.weight(256, 24, scale=1.0), x)
    h = b.op("Transpose", h, perm=[0, 2, 1])
    for width, dilation in ((24, 1), (24, 2)):
        k = b.op(
            "Conv", h, b.weight(width, 24, 3), b.weight(width, scale=0.1), kernel_shape=[3],
            pads=[dilation, dilation], dilations=[dilation],
        )  # fmt: skip
        k = b.op("Add", _norm(b, k, width), h)
        h = b.op("Mul", k, b.op("Sigmoid", k))
    h = b.op("ReduceMean", h, axes=[2], keepdims=0)
    y = b.op("Add", b.op("MatMul", h, b.weight(24, 10)), b.weight(10, scale=0.1), out="logits")
    b.output(y, ["batch", 10])
    sizes = [(4, 32), (2, 57), (1, 16), (3, 40), (3, 48)]
    return b.model(), [{"bytes": b.rng.integers(0, 256, size)} for size in sizes]


def _norm(b, x, width):
    """Layer norm over channels of [N, C, T], in single ops."""
    centred = b.op("Sub", x, b.op("ReduceMean", x, axes=[1]))
    power = b.op("Pow", centred, b.const(F(2)))
    spread = b.op("Sqrt", b.op("Add", b.op("ReduceMean", power, axes=[1]), b.const(F(1e-5))))
    gain = b.const(1 + 0.3 * b.rng.normal(size=(width, 1)).astype(F))
    return b.op("Mul", b.op("Div", centred, spread), gain)


def old_cnn(dim=-1):
    """Opset 11, unknown dimensions, BatchNorm, Upsample-like Resize, lopsided Pad, depthwise."""
    b = Build(2)
    dims = ["?", 3, "?", "?"] if dim == "?" else [-1, 3, -1, -1]
    x = b.input("image", dims)
    h = b.op("Pad", x, b.ints(0, 0, 0, 1, 0, 0, 1, 0), b.const(F(0)))
    h = _conv_bn(b, h, 3, 16, stride=2)
    skip = h
    h = _conv_bn(b, h, 16, 16, group=16)
    h = _conv_bn(b, h, 16, 32, stride=2)
    h = _conv_bn(b, h, 32, 16, size=1)
    h = b.op(
        "Resize", h, b.const(np.zeros(0, F)), b.const(F([1, 1, 2, 2])), mode="nearest",
        coordinate_transformation_mode="asymmetric", nearest_mode="floor",
    )  # fmt: skip
    h = b.op("Add", h, skip)
    h = b.op("Conv", h, b.weight(1, 16, 3, 3), b.weight(1, scale=0.1), pads=[1, 1, 1, 1])
    b.output(b.op("Sigmoid", h, out="map"), [-1, 1, -1, -1] if dim != "?" else ["?", 1, "?", "?"])
    sides = [(2, 31, 31), (1, 47, 31), (3, 31, 63), (1, 31, 31)]
    return b.model(11, 6), [
        {"image": b.rng.normal(size=(n, 3, h, w)).astype(F)} for n, h, w in sides
    ]


def _conv_bn(b, x, inputs, outputs, size=3, stride=1, group=1):
    pad = size // 2
    x = b.op(
        "Conv", x, b.weight(outputs, inputs // group, size, size), strides=[stride] * 2,
        pads=[pad] * 4, group=group,
    )  # fmt: skip
    stats = [1 + 0.2 * b.rng.random(outputs), *b.rng.normal(size=(2, outputs)) * 0.2]
    spread = 0.5 + b.rng.random(outputs)
    x = b.op("BatchNormalization", x, *(b.const(s.astype(F)) for s in (*stats, spread)))
    return b.op("Relu", x)


def audio_branches(rates=(16000,)):
    """Voice activity with its weights inside If branches, one per sample rate, and LSTM state."""
    b = Build(3)
    x = b.input("input", ["batch", "samples"])
    state = b.input("state", [2, "batch", 16])
    rate = b.input("sr", [], np.int64)
    frames = b.op("Unsqueeze", x, b.ints(1))
    shared = b.weight(1, 16, scale=0.1)
    test = b.op("Equal", rate, b.const(np.int64(16000)))
    bodies = [_branch(b, frames, state, shared, p, n) for p, n in (("k16_", 32), ("k8_", 16))]
    names = b.op(
        "If", test, outputs=3, out=["output", "h_out", "c_out"], then_branch=bodies[0],
        else_branch=bodies[1],
    )  # fmt: skip
    b.output(names[0], ["batch", 1])
    b.output(names[1], [1, "batch", 16])
    b.output(names[2], [1, "batch", 16])
    feeds = []
    for i in range(4):
        n = 1 + i % 2
        feeds.append({
            "input": b.rng.normal(size=(n, 512)).astype(F),
            "sr": np.array(rates[i % len(rates)], np.int64),
            "state": b.rng.normal(size=(2, n, 16)).astype(F) * F(0.3),
        })  # fmt: skip
    return b.model(16, 8), feeds


def _branch(b, frames, state, shared, prefix, width):
    s = b.sub(prefix)
    h = s.op("Conv", frames, s.weight(32, 1, width), strides=[width])
    h = s.op("Relu", s.op("Conv", h, s.weight(32, 32, 3), s.weight(32, scale=0.1), pads=[1, 1]))
    h = s.op("Transpose", h, perm=[2, 0, 1])
    old = s.op("Split", state, outputs=2, axis=0)
    y, hn, cn = s.op(
        "LSTM", h, s.weight(1, 64, 32), s.weight(1, 64, 16), s.weight(1, 128, scale=0.1), "",
        *old, outputs=3, hidden_size=16,
    )  # fmt: skip
    last = s.op("Squeeze", hn, s.ints(0))
    last = s.op("Relu", s.op("MatMul", last, s.weight(16, 16)))
    last = s.op("Add", last, shared)
    y = s.op("Sigmoid", s.op("Gemm", last, s.weight(16, 1), s.weight(1)))
    for name in (y, s.op("Identity", hn), s.op("Identity", cn)):
        s.output(name)
    return s.graph(f"{prefix}body")


def looped():
    """A GRU encoder and a Loop whose body holds a MatMul on its own state and an outer weight."""
    b = Build(4)
    x = b.input("x", ["time", "batch", 24])
    steps = b.input("steps", [], np.int64)
    _, h = b.op(
        "GRU", x, b.weight(1, 48, 24), b.weight(1, 48, 16), outputs=2, hidden_size=16
    )  # fmt: skip
    h = b.op("Squeeze", h, b.ints(0))
    outer = b.weight(16, 16)
    s = b.sub("loop_")
    turn, going = s.input("loop_turn", [], np.int64), s.input("loop_cond", [], np.bool_)
    hidden = s.input("loop_state", ["batch", 16])
    a = s.op("MatMul", hidden, outer)
    c = s.op("MatMul", h, s.weight(16, 16))
    new = s.op("Tanh", s.op("Add", a, c))
    logits = s.op("Gemm", new, s.weight(12, 16), s.weight(12, scale=0.1), transB=1)
    s.output(s.op("Identity", going), [], np.bool_)
    s.output(new, ["batch", 16])
    s.output(logits, ["batch", 12])
    final, rows = b.op(
        "Loop", steps, b.const(np.bool_(True)), h, outputs=2, out=["final", "rows"],
        body=s.graph("body"),
    )  # fmt: skip
    b.output(final, ["batch", 16])
    b.output(rows, ["n", "batch", 12])
    assert turn
    feeds = [
        {"x": b.rng.normal(size=(5 + i % 4, 2, 24)).astype(F), "steps": np.array(1 + i % 4)}
        for i in range(12)
    ]
    return b.model(17), feeds


def detector():
    """Two heads, Concat, Resize, Split, TopK and NonMaxSuppression behind them."""
    b = Build(5)
    x = b.input("images", [1, 3, "h", "w"])
    c3 = b.op("Relu", b.op("Conv", x, b.weight(16, 3, 3, 3), strides=[2, 2], pads=[1] * 4))
    c4 = b.op("Relu", b.op("Conv", c3, b.weight(32, 16, 3, 3), strides=[2, 2], pads=[1] * 4))
    up = b.op("Resize", c4, "", b.const(F([1, 1, 2, 2])), mode="nearest")
    one, two = b.op("Split", up, outputs=2, axis=1, num_outputs=2)
    p3 = b.op("Concat", one, two, c3, axis=1)
    p3 = b.op("Relu", b.op("Conv", p3, b.weight(24, 48, 1, 1), b.weight(24, scale=0.1)))
    p4 = b.op("MaxPool", c4, kernel_shape=[3, 3], strides=[1, 1], pads=[1] * 4)
    heads = [_head(b, p, n) for p, n in ((p3, 24), (p4, 32))]
    boxes = b.op("Concat", *(h[0] for h in heads), axis=1, out="boxes")
    raw = b.op("Concat", *(h[1] for h in heads), axis=1)
    scores = b.op("Transpose", b.op("Sigmoid", raw), perm=[0, 2, 1], out="scores")
    best, _ = b.op("TopK", b.op("ReduceMax", scores, b.ints(1), keepdims=0), b.ints(5), outputs=2)
    b.output(boxes, [1, "n", 4])
    b.output(scores, [1, 3, "n"])
    b.output(b.op("Identity", best, out="top"), [1, 5])
    keep = b.op(
        "NonMaxSuppression", boxes, scores, b.ints(4), b.const(F([0.6])), b.const(F([0.4])),
        out="selected",
    )  # fmt: skip
    b.output(keep, ["m", 3], np.int64)
    feeds = [{"images": b.rng.normal(size=(1, 3, s, 32)).astype(F)} for s in (32, 64, 32, 48)]
    return b.model(18), feeds


def _head(b, x, width):
    out = b.op("Conv", x, b.weight(7, width, 1, 1), b.weight(7, scale=0.1))
    flat = b.op("Reshape", b.op("Transpose", out, perm=[0, 2, 3, 1]), b.ints(1, -1, 7))
    return b.op("Split", flat, b.ints(4, 3), outputs=2, axis=2)


ODD = {
    "byte_classifier": byte_classifier,
    "old_cnn": old_cnn,
    "old_cnn_marks": lambda: old_cnn("?"),
    "audio_one_rate": audio_branches,
    "audio_two_rates": lambda: audio_branches((16000, 8000)),
    "looped": looped,
    "detector": detector,
}
