"""Embedding tables: rows are looked up as codes, and decode to what the functions' bodies give."""

import numpy as np
import onnx.parser
import pytest

import ir
import passes
from backends.ort.check import optimised_model
from backends.ort.lower import lower
from backends.ort.session import Level, Session
from ir.graph import array

ROWS, WIDTH = 90, 64
MODEL = f"""
<ir_version: 10, opset_import: ["": 21]>
g (int64[B,T] ids) => (float[B,T,{WIDTH}] y) {{
    h = Gather<axis = 0>(table, ids)
    y = Relu(h)
}}
"""
TIED = f"""
<ir_version: 10, opset_import: ["": 21]>
g (int64[T] ids) => (float[T,{ROWS}] y) {{
    h = Gather<axis = 0>(table, ids)
    y = Gemm<transB = 1>(h, table)
}}
"""


def with_table(text, shape=(ROWS, WIDTH)):
    model = onnx.parser.parse_model(text)
    data = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    data *= np.geomspace(0.1, 10, shape[0], dtype=np.float32)[:, None]
    model.graph.initializer.append(onnx.numpy_helper.from_array(data, "table"))
    return ir.capture(model), data


@pytest.mark.parametrize("weight", ["i8@0x1*f32", "u8@0x1*f32+u8", "i8@32x1*f32", "u8@16x1*f32+u8",
                                    "i8@0*f32", "u4@32x1*f32+u4"])  # fmt: skip
def test_executed_rows_are_those_of_the_bodies_to_the_bit(weight):
    graph, data = with_table(MODEL)
    coded = passes.run(graph, f"place{{w={weight}}} | rtn").graph
    feeds = {"ids": np.array([[0, 5, 89], [7, 7, 41]])}
    plain = Session(coded, level=Level.UNFUSED, threads=1).run(feeds)["y"]
    made = lower(coded)
    np.testing.assert_array_equal(Session(made.graph, threads=1).run(feeds)["y"], plain)
    steps = 0.02 if weight[1] == "8" else 0.2
    exact = np.maximum(data[feeds["ids"]], 0)
    if weight != "i8@0*f32":  # one step for all rows loses the small ones
        assert (
            np.abs(plain - exact) <= steps * np.abs(data[feeds["ids"]]).max(-1)[..., None]
        ).all()


def test_one_scale_is_kept_for_every_row_and_no_float_table_at_all():
    graph, _ = with_table(MODEL)
    coded = passes.run(graph, "place{w=i8@0x1*f32} | rtn").graph
    made = lower(coded).graph
    tensors = [array(v) for v in made.graph.initializers.values()]
    big = [t for t in tensors if t is not None and t.size >= ROWS]
    assert sorted((t.dtype.name, t.shape) for t in big) == [
        ("float32", (ROWS, 1)), ("int8", (ROWS, WIDTH))
    ]  # fmt: skip
    assert not any(n.op_type == "DequantizeLinear" for n in optimised_model(made).graph.node)


def test_a_small_table_stays_float_and_says_so():
    graph, _ = with_table(MODEL.replace(f",{WIDTH}]", ",8]"), (ROWS, 8))
    with pytest.raises(Exception, match="its table has 720 numbers"):
        passes.run(graph, "place{w=i8@0x1*f32} | rtn")


def test_a_kept_table_stays_float():
    graph, _ = with_table(TIED)
    done = passes.run(graph, "place{w=i8@0x1*f32,keep=[Gather]} | rtn")
    gather = next(n for n in done.graph.graph if n.op_type == "Gather")
    assert gather.inputs[0].name == "table"
    assert any("kept float by 'Gather'" in skip.reason for skip in done.report.steps[0].skips)


def test_a_tied_table_is_coded_once():
    graph, data = with_table(TIED)
    coded = passes.run(graph, "place{w=i8@0x1*f32} | rtn").graph
    stored = [t for v in coded.graph.initializers.values() if (t := array(v)) is not None]
    assert sum(t.shape == data.shape for t in stored) == 1
