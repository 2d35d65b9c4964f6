"""One walk of the data through a real graph: right numbers, flat memory, stop and go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import weakref
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import psutil
import pytest
import torch

from calib import observe
from calib.data import load
from calib.stats import BY_NAME, Gram, Histogram, MinMax, Moments, MovingAverage
from ir.errors import DataError, PassError

ROOT = Path(__file__).parents[2]
TEXT = """<ir_version: 13, opset_import: ["":25]>
net (float[N,8] x, float[N,8] mask) => (float[N,4] y)
<float[8,4] w = {SEED}> {
  h = Mul(x, x)
  m = Add(h, mask)
  p = Softmax(m)
  y = MatMul(p, w)
}"""
GRAPH = onnx_ir.from_proto(
    onnx.parser.parse_model(TEXT.replace("SEED", ",".join(str(k / 7) for k in range(32))))
)
MASK = float(np.finfo(np.float32).min)


def feeds(count, rows=5, seed=0):
    rng = np.random.default_rng(seed)
    for k in range(count):
        mask = np.zeros((rows, 8), np.float32)
        mask[:, 6:] = MASK
        yield {"x": rng.standard_normal((rows, 8)).astype(np.float32) * (k + 1), "mask": mask}


def wants():
    return {
        "x": [Gram(), MinMax()],
        "h": [MinMax(axis=-1), Histogram()],
        "y": [MovingAverage(rate=0.1), Moments(axis=1)],
    }


def states(found):
    for stats in found.values():
        for stat in stats:
            stat.result()  # joins what waits: how it was grouped is no part of the result
    return {
        (name, k, key): array
        for name, stats in found.items()
        for k, stat in enumerate(stats)
        for key, array in stat.state().items()
    }


def assert_same(one, other, rtol=0.0):
    one, other = states(one), states(other)
    assert one.keys() == other.keys()
    for key in one:
        np.testing.assert_allclose(one[key], other[key], rtol=rtol, err_msg=str(key))


def test_one_walk_serves_every_statistic():
    data = list(feeds(4))
    asked = wants()
    seen = []
    found = observe(GRAPH, data, asked, progress=lambda done, total: seen.append((done, total)))
    x = np.concatenate([feed["x"] for feed in data])
    np.testing.assert_allclose(found["x"][0].result().gram, x.T @ x, rtol=1e-5, atol=1e-3)
    np.testing.assert_array_equal(found["h"][0].result().high, (x * x).max(axis=0))
    (bins,) = found["h"][1].result()
    assert (bins.counts.sum(), bins.low) == (x.size, (x * x).min())
    weight = GRAPH.graph.initializers["w"].const_value.numpy()
    part = np.exp((x * x)[:, :6].astype(np.float64) - (x * x)[:, :6].max(axis=1, keepdims=True))
    y = part / part.sum(axis=1, keepdims=True) @ weight[:6]
    np.testing.assert_allclose(found["y"][1].result().mean, y.mean(axis=0), rtol=1e-5)
    assert found["y"][0] is asked["y"][0]
    assert (found.batches, seen) == (4, [(1, None), (2, None), (3, None), (4, None)])
    assert found.seconds > 0
    assert found.peak_bytes >= found.grown_bytes
    assert found.peak_bytes > 10_000_000


def test_mask_constants_do_not_enter_a_range():
    found = observe(GRAPH, feeds(3), {"m": [MinMax()]}, masks={"m": -1e9})["m"][0].result()
    assert 0 <= found.low < found.high < 1000
    unmasked = observe(GRAPH, feeds(3), {"m": [MinMax()]})["m"][0].result()
    assert unmasked.low < -1e38


def test_bad_numbers_are_reported_with_value_and_batch():
    data = list(feeds(3))
    data[2]["x"][0, 0] = 1e30
    with pytest.raises(DataError, match=r"1 \+Inf of 40 elements \(at %h, batch 2\)"):
        observe(GRAPH, data, {"h": [MinMax()]})


def test_what_cannot_be_observed():
    with pytest.raises(PassError, match=r"computes no such value.*%nothing"):
        observe(GRAPH, feeds(1), {"nothing": [MinMax()]})
    with pytest.raises(PassError, match=r"constant needs no observing.*%w"):
        observe(GRAPH, feeds(1), {"w": [MinMax()]})
    with pytest.raises(DataError, match="no calibration batches"):
        observe(GRAPH, [], {"h": [MinMax()]})
    used = observe(GRAPH, feeds(1), {"h": [MinMax()]})
    with pytest.raises(PassError, match="used before"):
        observe(GRAPH, feeds(1), used)


def test_threads_are_set_for_the_walk_only():
    during = []
    before = torch.get_num_threads()
    observe(
        GRAPH,
        feeds(1),
        {"h": [MinMax()]},
        threads=before + 1,
        progress=lambda *_: during.append(torch.get_num_threads()),
    )
    assert during == [before + 1]
    assert torch.get_num_threads() == before


def test_loaded_batches_and_their_total(tmp_path):
    (feed,) = feeds(1, rows=20)
    np.savez(tmp_path / "data.npz", **feed)
    seen = []
    batches = load(tmp_path / "data.npz", GRAPH)
    observe(GRAPH, batches, {"h": [MinMax()]}, progress=lambda *at: seen.append(at))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def resident_after(count):
    """Bytes by which the process grew over a walk of `count` batches of 256 KB a value."""
    before = psutil.Process().memory_info().rss
    observe(GRAPH, feeds(count, rows=8192), wants())
    return psutil.Process().memory_info().rss - before


def test_memory_does_not_grow_with_the_number_of_batches():
    resident_after(10)
    few, many = resident_after(10), resident_after(300)
    assert many - few < 8_000_000  # one kept value a batch would be 75 MB


@pytest.mark.slow
def test_memory_of_a_thousand_batches():
    resident_after(10)
    few, many = resident_after(10), resident_after(1000)
    assert many - few < 8_000_000


def interrupted(count, at):
    for index, feed in enumerate(feeds(count)):
        if index == at:
            raise KeyboardInterrupt
        yield feed


@pytest.mark.parametrize("at", [0, 1, 4])
def test_interrupted_walk_goes_on_with_the_same_result(tmp_path, at):
    path = tmp_path / "walk.npz"
    with pytest.raises(KeyboardInterrupt):
        observe(GRAPH, interrupted(5, at), wants(), checkpoint=path)
    assert path.exists() == (at > 0)
    found = observe(GRAPH, feeds(5), wants(), checkpoint=path)
    assert_same(found, observe(GRAPH, feeds(5), wants()), rtol=1e-6)
    assert found.batches == 5
    assert not path.exists()


def test_interruption_inside_a_batch_counts_no_batch_twice(tmp_path, monkeypatch):
    path = tmp_path / "walk.npz"
    add, calls = MovingAverage.add, []

    def stops(self, array, /, **options):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        add(self, array, **options)

    monkeypatch.setattr(MovingAverage, "add", stops)
    with pytest.raises(KeyboardInterrupt):
        observe(GRAPH, feeds(5), wants(), checkpoint=path, checkpoint_seconds=0.0)
    found = observe(GRAPH, feeds(5), wants(), checkpoint=path)
    assert_same(found, observe(GRAPH, feeds(5), wants()), rtol=1e-6)


def test_killed_walk_goes_on_with_the_same_result(tmp_path):
    path = tmp_path / "walk.npz"
    code = f"""
        import os, signal
        from pathlib import Path
        from tests.calib.test_observe import GRAPH, feeds, observe, wants
        def killed():
            for index, feed in enumerate(feeds(6)):
                if index == 4:
                    os.kill(os.getpid(), signal.SIGKILL)
                yield feed
        observe(GRAPH, killed(), wants(), checkpoint={str(path)!r}, checkpoint_seconds=0.0)
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, env=environment, check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert path.exists()
    walked = []
    found = observe(
        GRAPH, feeds(6), wants(), checkpoint=path, progress=lambda *at: walked.append(at)
    )
    assert_same(found, observe(GRAPH, feeds(6), wants()), rtol=1e-6)


def test_checkpoint_of_other_work_is_refused(tmp_path):
    path = tmp_path / "walk.npz"
    with pytest.raises(KeyboardInterrupt):
        observe(GRAPH, interrupted(5, 3), wants(), checkpoint=path)
    saved = path.read_bytes()
    with pytest.raises(DataError, match="statistics or the masks differ"):
        observe(GRAPH, feeds(5), {"h": [MinMax()]}, checkpoint=path)
    with pytest.raises(DataError, match="the data differ"):
        observe(GRAPH, feeds(5, seed=1), wants(), checkpoint=path)
    with pytest.raises(DataError, match="only 2 batches of its 3"):
        observe(GRAPH, feeds(2), wants(), checkpoint=path)
    assert path.read_bytes() == saved
    path.write_bytes(saved[:100])
    with pytest.raises(DataError, match=r"cannot be read.*remove the file"):
        observe(GRAPH, feeds(5), wants(), checkpoint=path)


def test_split_over_processes_merges_to_one_walk():
    data = list(feeds(6))
    whole = observe(GRAPH, data, wants())
    parts = [observe(GRAPH, part, wants()) for part in (data[:4], data[4:])]
    for name, stats in parts[0].items():
        for stat, other in zip(stats, parts[1][name], strict=True):
            stat.merge(other)
    assert_same(parts[0], whole, rtol=1e-5)


def test_a_watched_value_lives_no_longer_than_its_readers():
    """Else calibrating every value of a big model would hold all of them at once."""
    chain = "".join(f" h{k + 1} = Relu(h{k})" for k in range(8))
    text = f'<ir_version: 13, opset_import: ["":25]> g (float[N] h0) => (float[N] h8) {{{chain} }}'
    graph = onnx_ir.from_proto(onnx.parser.parse_model(text))
    references, alive = [], []

    class Watcher(MinMax):
        name = "watcher"

        def add(self, array, /, **options):
            references.append(weakref.ref(array.tensor))
            alive.append(sum(reference() is not None for reference in references))
            super().add(array, **options)

    try:
        data = [{"h0": np.ones(3, np.float32)}]
        observe(graph, data, {f"h{k}": [Watcher()] for k in range(1, 9)})
    finally:
        del BY_NAME["watcher"]
    assert len(alive) == 8
    assert max(alive) <= 2
