"""Training repeats by seed, goes on where it was stopped, and lowers the loss."""

from __future__ import annotations

import pytest
import torch

from models.train import dit, judge

SETTINGS = dit.Settings(steps=3, batch=4)


def data() -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (40, 28, 28), generator=draw, dtype=torch.uint8)
    return images, torch.arange(40) % 10


def run(state: dit.State, steps: int) -> list[float]:
    return [dit.step(state, *data(), SETTINGS) for _ in range(steps)]


def test_a_stopped_run_goes_on_as_if_it_had_not_been(tmp_path):
    whole, stopped, resumed = (dit.start(SETTINGS) for _ in range(3))
    losses = run(whole, 4)
    assert run(stopped, 2) == losses[:2]
    stopped.save(tmp_path / "state.pt")
    resumed.restore(tmp_path / "state.pt")
    assert resumed.step == 2
    assert run(resumed, 2) == losses[2:]
    for name in ("net", "average"):
        a, b = getattr(whole, name).state_dict(), getattr(resumed, name).state_dict()
        assert all(torch.equal(a[key], b[key]) for key in a)


def test_an_untrained_net_gives_zero_velocity_so_the_loss_is_its_power():
    state = dit.start(SETTINGS)
    flat = torch.zeros(64, 1, 28, 28)
    draw = torch.Generator().manual_seed(0)
    loss = dit.loss_of(state.net, flat, torch.zeros(64, dtype=torch.int64), draw, 0.1)
    assert loss.item() == pytest.approx(1, abs=0.05)  # noise - 0, of variance 1


def test_the_average_moves_slower_than_the_net():
    state, begin = dit.start(SETTINGS), dit.start(SETTINGS).net.patch.weight.detach()
    run(state, 20)
    net, average = (m.patch.weight.detach() for m in (state.net, state.average))
    assert 0 < (average - begin).norm() < (net - begin).norm()


def test_the_judge_learns_what_a_flat_picture_shows():
    labels = torch.arange(200) % 10
    images = (labels * 25).to(torch.uint8)[:, None, None].expand(-1, 28, 28).contiguous()
    untrained, net = (judge.train(steps, images, labels) for steps in (1, 60))
    assert judge.accuracy(net, images, labels) > judge.accuracy(untrained, images, labels) + 0.2
