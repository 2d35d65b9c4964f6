"""One scale and zero point code a norm's channels as one of each a channel would."""

import numpy as np
import pytest

import ir
import passes
from backends import reference
from ir.errors import VerifyError
from passes.equivalent import reparam
from passes.equivalent.reparam import Codes, fitted, rounded
from tests.models.reference import cleaned, drawn, params

BLOCK = """graph g(%x: f32[n,16]) -> %y {
  %g : f32[16] = const seed:1
  %b : f32[16] = const seed:2
  %h : f32[n,16] = LayerNormalization(%x, %g, %b) {axis=-1, epsilon=1e-05}
  %w : f32[16,8] = const seed:3
  %y : f32[n,8] = MatMul(%h, %w)
}
"""


def rows(seed=0, count=200):
    """[count, 16] with ranges and centres of their own, and one channel that is constant."""
    rng = np.random.default_rng(seed)
    found = rng.normal(size=(count, 16)) * np.exp(rng.normal(size=16)) + 3 * rng.normal(size=16)
    found[:, 5] = 0.7
    found[:, 6] *= 40
    return found


def codes_of(x, scale, zero, top=255):
    return np.clip(np.rint(x / scale) + zero, 0, top)


def test_integer_codes_are_the_same_before_and_after():
    x = rows()
    found = fitted(x, 8)
    y = (x - found.shift) / found.factor
    before = codes_of(x, found.scale, found.zero)
    after = codes_of(y, found.one_scale, found.one_zero)
    assert (before == after).all()
    assert len(np.unique(before)) > 200
    assert found.one_zero == round(found.one_zero)
    assert 0 <= found.one_zero <= 255
    other = codes_of(y * 1.01, found.one_scale, found.one_zero)
    assert (other != before).mean() > 0.1, "the comparison sees a wrong factor"


def test_codes_of_a_graph_are_those_of_each_channel_by_itself():
    """As above, with what the folded graph computes in double precision."""
    data = [{"x": np.random.default_rng(3).normal(size=(64, 16)).astype(np.float32)}]
    graph = ir.parse(BLOCK)
    h = reference.run(_tapped(graph), data[0], dtype=np.float64)["h"]
    done = passes.run(graph, "reparam", data=data).graph
    name = next(n.outputs[0].name for n in done.graph if n.op_type == "LayerNormalization")
    y = reference.run(_tapped(done), data[0], dtype=np.float64)[name]
    found = fitted(h.astype(np.float32), 8)
    before = codes_of(h, found.scale, found.zero)
    after = codes_of(y, found.one_scale, found.one_zero)
    assert (before != after).mean() < 1e-3  # of constants in float32, where x is at a tie
    assert np.abs(before - after).max() <= 1


def _tapped(graph):
    copy = ir.clone(graph)
    norm = next(n for n in copy.graph if n.op_type == "LayerNormalization")
    copy.graph.outputs.append(norm.outputs[0])
    return copy


def test_ranges_are_the_best_of_the_quantiles():
    x = rows(count=5000)
    x[7, 3] = 1e4
    found = fitted(x, 4)
    for c in (0, 3, 6):
        errors = {}
        for share in reparam.KEPT:
            low, high = np.quantile(x[:, c], [1 - share, share])
            errors[high - low] = np.square(rounded(x[:, c], low, high, 15) - x[:, c]).sum()
        assert found.scale[c] * 15 == pytest.approx(min(errors, key=errors.__getitem__))


def test_equal_channels_are_left_alone():
    """r1 = 1 and r2 = 0 where every channel has the codes of all."""
    x = np.repeat(np.random.default_rng(0).normal(size=(100, 1)), 4, axis=1)
    found = fitted(x, 8)
    np.testing.assert_allclose(found.factor, 1)
    np.testing.assert_array_equal(found.shift, 0)


def test_a_norm_of_constants_has_no_range_and_keeps_its_function():
    found = fitted(np.full((10, 3), 2.0), 8)
    assert np.isfinite(found.factor).all()
    assert (found.factor > 0).all()


def test_outlying_channels_cost_one_scale_nothing_afterwards():
    data = [{"x": np.random.default_rng(3).normal(size=(64, 16)).astype(np.float32)}]
    code = "collect{minmax} | place{w=i8@0x1*f32,a=u8@0*f32+u8} | rtn"
    plain, harmed, healed = (
        passes.run(ir.parse(BLOCK), f"{before}{code}", data=data).report.sqnr["y"]
        for before in ("", "inject_outliers | ", "inject_outliers | reparam | ")
    )
    assert harmed < plain - 10
    assert healed > plain - 1


def test_a_zero_point_forgotten_in_the_readers_is_caught(monkeypatch):
    fold = reparam.fold_shift

    def without_readers(stream, z, edit):
        import dataclasses

        fold(dataclasses.replace(stream, readers=()), z, edit)

    monkeypatch.setattr(reparam, "fold_shift", without_readers)
    data = [{"x": np.random.default_rng(3).normal(size=(64, 16)).astype(np.float32)}]
    with pytest.raises(VerifyError, match="'reparam' claims EXACT but moved output %y"):
        passes.run(ir.parse(BLOCK), "reparam", data=data)


def test_bits_are_those_of_a_code():
    with pytest.raises(ValueError, match="bits must lie"):
        reparam.Reparam(bits=1)
    assert isinstance(fitted(rows(), 8), Codes)


@pytest.mark.parametrize("name", params("digits_cnn", "fashion_cnn"))
def test_on_real_models_every_norm_is_folded_or_refused(name):
    graph = cleaned(name)
    norms = sum(n.op_type == "LayerNormalization" for n in graph.graph.all_nodes())
    step = passes.run(graph, "reparam", data=drawn(name)[:1]).report.steps[-1]
    assert len(step.sites) + len({s.site for s in step.skips}) >= norms
    folded = {"digits_vit": 13, "fashion_vit": 9, "dit": 0}
    assert len(step.sites) == folded.get(name, len(step.sites))
    assert step.difference is not None
    assert step.difference <= 1e-5
