"""The whole clean-up on graphs drawn at random: same outputs in ONNX Runtime at several shapes."""

import numpy as np
import onnx_ir
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ir
from ir.edit import Edit
from passes.cleanup.fold_constants import FoldConstants
from passes.cleanup.fold_norm import FoldNorm
from passes.core import Ctx
from passes.pipeline import Pipeline

CLEAN = Pipeline.parse("clean").steps
SIZES = ((1, 1), (2, 3), (3, 2), (1, 7))
HEADS, WIDTH = 2, 4
CHANNELS = HEADS * WIDTH


def apply(graph, *steps):
    """The graph after the steps, on a clone, without the manager's own checks."""
    work = ir.graph.clone(graph)
    for step in steps:
        ctx = Ctx(Edit(work, str(step)), target=None, rng=np.random.default_rng(0))  # type: ignore
        step.run(work, ctx)
        ctx.edit.finish()
    return work


def execute(graph, feeds):
    """Outputs in ONNX Runtime, nothing optimised."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(onnx_ir.to_proto(graph).SerializeToString(), options)
    return session.run(None, feeds)


def assert_equal(before, after, sizes=SIZES):
    rng = np.random.default_rng(0)
    for batch, length in sizes:
        x = rng.normal(size=(batch, length, CHANNELS)).astype(np.float32)
        for a, b in zip(execute(before, {"x": x}), execute(after, {"x": x}), strict=True):
            assert a.shape == b.shape
            np.testing.assert_allclose(b, a, rtol=2e-4, atol=2e-5)


class Writer:
    """Writes a random graph in the text form, tracking what may follow: values of [b, s, C]."""

    def __init__(self, draw):
        self.draw, self.lines, self.count = draw, [], 0
        self.values = ["x"]

    def line(self, kind, text):
        self.count += 1
        self.lines.append(f"  %v{self.count} : {kind} = {text}")
        return f"v{self.count}"

    def pick(self):
        return self.draw(st.sampled_from(self.values))

    def dim(self, value, axis):
        shape = self.line("i64[3]", f"Shape(%{value})")
        index = self.line("i64[]", f"const {axis}")
        one = self.line("i64[]", f"Gather(%{shape}, %{index}) {{axis=0}}")
        zero = self.line("i64[1]", "const [0]")
        return self.line("i64[1]", f"Unsqueeze(%{one}, %{zero})")

    def heads(self):
        """[b, s, C] -> [b, s, H, W] -> [b, H, s, W] and back, sizes computed as exporters do."""
        x = self.pick()
        b, s = self.dim(x, 0), self.dim(self.draw(st.sampled_from([x, "x"])), 1)
        hw = self.line("i64[2]", f"const [{HEADS}, {self.draw(st.sampled_from([WIDTH, -1]))}]")
        to = self.line("i64[4]", f"Concat(%{b}, %{s}, %{hw}) {{axis=0}}")
        r = self.line("f32", f"Reshape(%{x}, %{to})")
        t = self.line("f32", f"Transpose(%{r}) {{perm=[0, 2, 1, 3]}}")
        t = self.line("f32", f"{self.draw(st.sampled_from(['Relu', 'Identity']))}(%{t})")
        t = self.line("f32", f"Transpose(%{t}) {{perm=[0, 2, 1, 3]}}")
        c = self.line("i64[1]", f"const [{self.draw(st.sampled_from([CHANNELS, -1]))}]")
        back = self.line("i64[3]", f"Concat(%{b}, %{s}, %{c}) {{axis=0}}")
        return self.line(f"f32[?,?,{CHANNELS}]", f"Reshape(%{t}, %{back})")

    def rows(self):
        """Swap batch and length by a Reshape: not the identity unless the sizes agree."""
        x = self.pick()
        s, b = self.dim(x, 1), self.dim(x, 0)
        c = self.line("i64[1]", f"const [{CHANNELS}]")
        to = self.line("i64[3]", f"Concat(%{s}, %{b}, %{c}) {{axis=0}}")
        r = self.line("f32", f"Reshape(%{x}, %{to})")
        n = self.line("f32", f"Neg(%{r})")
        back = self.line("i64[3]", f"Shape(%{x})")
        return self.line(f"f32[?,?,{CHANNELS}]", f"Reshape(%{n}, %{back})")

    def linear(self):
        seed = self.draw(st.integers(0, 5))
        w = self.line(f"f32[{CHANNELS},{CHANNELS}]", f"const seed:{seed}")
        if self.draw(st.booleans()):
            w = self.line(f"f32[{CHANNELS},{CHANNELS}]", f"Transpose(%{w}) {{perm=[1, 0]}}")
        small = self.line("f32[]", "const 0.3")
        y = self.line(f"f32[b,s,{CHANNELS}]", f"MatMul(%{self.pick()}, %{w})")
        y = self.line(f"f32[b,s,{CHANNELS}]", f"Mul(%{y}, %{small})")
        row = self.line(f"f32[{CHANNELS}]", f"const seed:{seed}")
        op = self.draw(st.sampled_from(["Add", "Sub", "Mul"]))
        return self.line(f"f32[b,s,{CHANNELS}]", f"{op}(%{y}, %{row})")

    def norm(self):
        row = self.line(f"f32[{CHANNELS}]", "const seed:9")
        kind, x = f"f32[b,s,{CHANNELS}]", self.pick()
        return self.line(kind, f"LayerNormalization(%{x}, %{row}, %{row}) {{axis=-1}}")

    def copies(self):
        kind, x = f"f32[b,s,{CHANNELS}]", self.pick()
        one = self.line("f32[]", f"const {self.draw(st.sampled_from(['1.0', '2.0']))}")
        y = self.line(kind, f"Mul(%{one}, %{x})")
        op = self.draw(st.sampled_from(["Identity", "Neg", "Relu"]))
        return self.line(kind, f"{op}(%{y})")

    def cut(self):
        """A Slice of everything, its end computed; and one that leaves the first row out."""
        x = self.pick()
        end = self.dim(self.draw(st.sampled_from([x, "x"])), 1)
        zero, one = self.line("i64[1]", "const [0]"), self.line("i64[1]", "const [1]")
        y = self.line(f"f32[?,?,{CHANNELS}]", f"Slice(%{x}, %{zero}, %{end}, %{one}, %{one})")
        first = self.line(f"f32[?,1,{CHANNELS}]", f"Slice(%{x}, %{zero}, %{one}, %{one})")
        return self.line(f"f32[?,?,{CHANNELS}]", f"Sub(%{y}, %{first})")

    def join(self):
        return self.line(f"f32[?,?,{CHANNELS}]", f"Add(%{self.pick()}, %{self.pick()})")


@st.composite
def graphs(draw):
    writer = Writer(draw)
    kinds = ("heads", "rows", "linear", "norm", "copies", "cut", "join")
    for kind in draw(st.lists(st.sampled_from(kinds), min_size=2, max_size=8)):
        writer.values.append(getattr(writer, kind)())
    outputs = dict.fromkeys([writer.values[-1], draw(st.sampled_from(writer.values[1:]))])
    heads = ", ".join(f"%{name}" for name in outputs)
    body = "\n".join(writer.lines)
    return ir.parse(f"graph g(%x: f32[b,s,{CHANNELS}]) -> {heads} {{\n{body}\n}}\n")


@settings(max_examples=60, deadline=None)
@given(graphs())
def test_cleaned_equals_original_at_every_shape(graph):
    cleaned = apply(graph, *CLEAN)
    assert len(cleaned.graph) <= len(graph.graph)
    assert_equal(graph, cleaned)


@settings(max_examples=40, deadline=None)
@given(graphs())
def test_folded_norms_equal_original(graph):
    assert_equal(graph, apply(graph, FoldConstants(), FoldNorm()), SIZES[1:2])


@settings(max_examples=40, deadline=None)
@given(graphs())
def test_cleaning_twice_changes_nothing_more(graph):
    once = apply(graph, *CLEAN)
    assert ir.show(apply(once, *CLEAN)) == ir.show(once)


def test_the_comparison_notices_a_wrong_clean_up():
    before = ir.parse(f"graph g(%x: f32[b,s,{CHANNELS}]) -> %y {{ %y : f32 = Relu(%x) }}")
    after = ir.parse(f"graph g(%x: f32[b,s,{CHANNELS}]) -> %y {{ %y : f32 = Identity(%x) }}")
    with pytest.raises(AssertionError):
        assert_equal(before, after)
