"""The region replay and the reconstruction loop, against closed forms and against themselves."""

import numpy as np
import pytest
import torch

import ir
from backends.torch import Executor
from calib.replay import Region, Replay, Saved, Settings, reconstruct
from calib.replay.ste import fake_quantize, scale_and_zero
from ir.errors import DataError, PassError
from ir.formats import integer
from ir.qtype import QType

NET = """graph g(%x: f32[n,4]) -> %y {
  %w1 : f32[4,4] = const seed:1
  %h  : f32[n,4] = MatMul(%x, %w1)
  %w2 : f32[4,2] = const seed:2
  %y  : f32[n,2] = MatMul(%h, %w2)
}
"""
FIRST = Region(("x",), "h", frozenset({"h"}))
SECOND = Region(("h",), "y", frozenset({"y"}))


def replay(rows=None, sizes=(16, 7, 16, 9)):
    graph = ir.parse(NET)
    rng = np.random.default_rng(0)
    feeds = [{"x": rng.normal(size=(n, 4)).astype(np.float32)} for n in sizes]
    return Replay(Executor(graph), Executor(ir.parse(NET)), feeds, rows=rows)


def plain(parameters):
    return dict(parameters)


def learned(saved=None, seed=0, progress=lambda done, total: None, epochs=6):
    cache = replay().enter(FIRST)
    return reconstruct(
        cache, {"w1": torch.zeros(4, 4)}, plain, Settings(epochs, 0.1, seed=seed),
        saved=saved, progress=progress,
    )  # fmt: skip


def test_finds_the_least_squares_answer_on_a_quantized_input():
    moved = replay()
    moved.enter(FIRST)
    moved.settle({"w1": torch.from_numpy(np.diag([2.0, 0.5, 1.0, 3.0]).astype(np.float32))})
    cache = moved.enter(SECOND)
    x = torch.cat([c["h"] for c in cache.inputs]).double()
    assert not torch.allclose(x, torch.cat([c["h"] for c in cache.floats]).double())
    answer = torch.linalg.lstsq(x, torch.cat(cache.targets).double()).solution
    found = reconstruct(cache, {"w2": torch.zeros(4, 2)}, plain, Settings(300, 0.05, held=0.25))
    torch.testing.assert_close(found.parameters["w2"].double(), answer, atol=2e-3, rtol=0)
    assert found.loss < 1e-4 * found.start


def test_parameters_that_cannot_help_return_the_start():
    cache = replay().enter(FIRST)
    start = {"w1": torch.from_numpy(ir.parse(NET).graph.initializers["w1"].const_value.numpy())}
    found = reconstruct(cache, start, plain, Settings(5, 0.1))
    assert (found.epoch, found.loss) == (0, found.start)
    assert torch.equal(found.parameters["w1"], start["w1"])
    idle = reconstruct(cache, {"unused": torch.ones(3)}, lambda p: {}, Settings(2))
    assert torch.equal(idle.parameters["unused"], torch.ones(3))


def test_one_seed_one_result():
    first, again, other = learned(), learned(), learned(seed=1)
    assert torch.equal(first.parameters["w1"], again.parameters["w1"])
    assert not torch.equal(first.parameters["w1"], other.parameters["w1"])


def test_a_stopped_run_goes_on_bit_equal(tmp_path):
    def stop(done, total):
        if done == 7:
            raise KeyboardInterrupt

    file = tmp_path / "state"
    with pytest.raises(KeyboardInterrupt):
        learned(Saved(file, "key"), progress=stop)
    steps = []
    found = learned(Saved(file, "key"), progress=lambda done, total: steps.append(done))
    assert steps[0] == 8
    whole = learned()
    assert torch.equal(found.parameters["w1"], whole.parameters["w1"])
    assert (found.loss, found.start, found.epoch) == (whole.loss, whole.start, whole.epoch)
    with pytest.raises(DataError, match="other work"):
        Saved(file, "another key")


def test_a_loss_that_is_not_finite_names_the_region():
    cache = replay().enter(FIRST)
    with pytest.raises(PassError, match="loss is nan") as error:
        reconstruct(cache, {"w1": torch.full((4, 4), torch.nan)}, plain)
    assert "%h" in str(error.value)


def test_rows_of_padding_do_not_count():
    def rows(feed):
        return np.arange(len(feed["x"])) < 5

    cache = replay(rows).enter(FIRST)
    for inputs in cache.inputs:
        inputs["x"][5:] = 100.0  # only a row of padding sees it
    with torch.no_grad():
        assert reconstruct(cache, {"idle": torch.ones(1)}, lambda p: {}, Settings(0)).loss < 1e-10
    cache.inputs[-1]["x"][0] = 100.0
    assert reconstruct(cache, {"idle": torch.ones(1)}, lambda p: {}, Settings(0)).loss > 1


def test_holds_one_region_only():
    lines = ["graph g(%v0: f32[n,4]) -> %v6 {", "  %w : f32[4,4] = const seed:1"]
    lines += [f"  %v{i + 1} : f32[n,4] = MatMul(%v{i}, %w)" for i in range(6)]
    graph = ir.parse("\n".join([*lines, "}", ""]))
    walk = Replay(Executor(graph), Executor(graph), [{"v0": np.ones((2, 4), np.float32)}] * 3)
    parts = [Region((f"v{i}",), f"v{i + 1}", frozenset({f"v{i + 1}"})) for i in range(6)]
    assert [walk.enter(part).arrays() for part in parts] == [9] * 6


@pytest.mark.parametrize(
    "text", ["i4@4x1*f32", "u4@4x1*f16+u4", "i8@0*f32", "u8@0x1*f32+u8", "i2@3x1*bf16+i2"]
)
def test_fake_quantization_is_encode_and_decode(text):
    qtype = QType.parse(text)
    rng = np.random.default_rng(0)
    for _ in range(20):
        x = (rng.normal(size=(10, 6)) * rng.uniform(0.1, 9)).astype(np.float32)
        shape = qtype.scale_shape(x.shape)
        low, high = -rng.uniform(0.1, 3, shape), rng.uniform(0.1, 3, shape)
        scale, zero = integer.scale_and_zero(low, high, qtype)
        mine = scale_and_zero(torch.tensor(low), torch.tensor(high), qtype)
        np.testing.assert_array_equal(mine[0].numpy(), scale.astype(np.float32))
        if zero is not None:
            np.testing.assert_array_equal(mine[1].numpy(), zero.astype(np.float32))
        expected = integer.decode(integer.encode(x, scale, zero, qtype), scale, zero, qtype)
        np.testing.assert_array_equal(
            fake_quantize(torch.from_numpy(x), *mine, qtype).numpy(), expected
        )


def test_gradients_reach_numbers_inside_and_the_bounds():
    x = torch.tensor([0.3, 5.0], requires_grad=True)
    high = torch.tensor(1.0, requires_grad=True)
    scale, zero = scale_and_zero(-high, high, QType.parse("i4@0*f32"))
    fake_quantize(x, scale, zero, QType.parse("i4@0*f32")).sum().backward()
    assert x.grad.tolist() == [1.0, 0.0]
    assert high.grad.item() > 0.9  # the clipped number moves with the bound
