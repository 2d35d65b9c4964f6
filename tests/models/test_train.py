"""Training repeats by seed, goes on where it was stopped, and lowers the loss."""

from __future__ import annotations

import pytest
import torch

from models import fashion_cnn, fashion_vit
from models.train import classifier, dit, judge
from models.train.classifier import right

SETTINGS = dit.Settings(steps=3, batch=4)
CLASSIFIERS = {"fashion_cnn": fashion_cnn.FashionCnn, "fashion_vit": fashion_vit.FashionVit}
CLASSIFYING = classifier.Settings(steps=4, batch=4, rise=2)


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
    assert right(net, images, labels) > right(untrained, images, labels) + 40


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_stopped_classifier_goes_on_as_if_it_had_not_been(tmp_path, name):
    whole, stopped, resumed = (classifier.start(CLASSIFIERS[name], CLASSIFYING) for _ in range(3))
    losses = [classifier.step(whole, *data(), CLASSIFYING) for _ in range(4)]
    assert [classifier.step(stopped, *data(), CLASSIFYING) for _ in range(2)] == losses[:2]
    stopped.save(tmp_path / "state.pt")
    resumed.restore(tmp_path / "state.pt")
    assert [classifier.step(resumed, *data(), CLASSIFYING) for _ in range(2)] == losses[2:]
    a, b = whole.net.state_dict(), resumed.net.state_dict()
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_the_rate_rises_and_falls_to_nothing():
    settings = classifier.Settings(steps=100, rise=10, rate=1.0)
    rates = [settings.rate_at(step) for step in range(101)]
    assert rates[0] < 0.2 < 0.9 < max(rates) <= 1
    assert rates[12:] == sorted(rates[12:], reverse=True)
    assert rates[100] == pytest.approx(0)


def test_pictures_are_moved_and_mirrored_whole():
    """Every variant is one of the 5 x 5 x 2 that loops make."""
    picture = torch.randint(0, 256, (28, 28), dtype=torch.uint8)
    found = classifier.varied(picture.expand(64, 28, 28), torch.Generator().manual_seed(1), 2)
    plain = picture.float() / 127.5 - 1
    variants = []
    for base in (plain, plain.flip(1)):
        framed = torch.full((32, 32), -1.0)
        framed[2:30, 2:30] = base
        for down in range(5):
            variants += [framed[down : down + 28, x : x + 28] for x in range(5)]
    numbers = [next(i for i, v in enumerate(variants) if torch.equal(v, x[0])) for x in found]
    assert len(set(numbers)) > 20
