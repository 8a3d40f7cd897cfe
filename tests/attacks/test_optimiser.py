"""Projected Adam: its steps, its penalties, and what it says of gradients that cannot be followed."""

import pytest
import torch

import salience as sal
from salience.attacks._optimiser import Descent, descend, penalised
from salience.core.draws import streams

GREY = torch.full((2, 3, 5, 7), 0.5)


def test_steps_are_four_tenths_as_large_from_half_of_them_on():
    """A gradient that never changes makes Adam take whole steps."""
    seen = []

    def loss(images, step):
        seen.append(images.detach()[0, 0, 0, 0].item())
        return images.flatten(1).sum(1)

    found = descend([sal.Delta(budget=0.4, rate=0.01)], GREY, [torch.zeros_like(GREY)], loss, 6, lambda done: None)
    moves = -torch.tensor([*seen, found.images[0, 0, 0, 0].item()]).diff()
    assert torch.allclose(moves, torch.tensor([0.004] * 3 + [0.0016] * 3), rtol=1e-3)


@pytest.mark.parametrize(("name", "rate"), [("delta", 0.033), ("stadv", 0.01), ("recolor", 0.01)])
def test_a_step_is_a_share_of_the_budget(name, rate):
    for budget in (0.01, 0.1):
        (threat,) = sal.Attack(threat=f"{name}:budget={budget}").threats
        assert threat.step(GREY) == pytest.approx(rate * budget)


@pytest.mark.parametrize("name", ["stadv", "recolor"])
def test_penalties_are_in_the_loss_of_a_run(name):
    """With nothing else to be made small, a rough change becomes smoother."""
    (threat,) = sal.Attack(threat=f"{name}:weight=0.5").threats
    rough = threat.project(GREY, threat.budget * torch.randn(threat.start(GREY).shape, generator=torch.Generator().manual_seed(0)))

    def nothing(images, step):
        return 0 * images.flatten(1).sum(1)

    assert torch.allclose(penalised([threat], GREY, [rough], nothing, 0), 0.5 * threat.penalty(rough))
    found = descend([threat], GREY, [rough], nothing, 20, lambda done: None)
    assert torch.allclose(found.history[0], 0.5 * threat.penalty(rough))
    assert (threat.penalty(found.parameters[0]) < 0.95 * threat.penalty(rough)).all()


def test_the_penalties_of_all_threats_count_and_each_has_its_own_step():
    threats = sal.Attack(threat="stadv:weight=0.5+recolor:weight=2+delta").threats
    rough = [threat.random(GREY, streams([1, 2], 2)) for threat in threats]
    total = penalised(threats, GREY, rough, lambda images, step: 0 * images.flatten(1).sum(1), 0)
    assert torch.allclose(total, 2 * threats[0].penalty(rough[0]) + 0.5 * threats[1].penalty(rough[1]))
    weights, images = torch.rand(2, *GREY.shape, generator=torch.Generator().manual_seed(0))
    start = [threat.start(images) for threat in threats]
    found = descend(threats, images, start, lambda changed, step: (weights * changed).flatten(1).sum(1), 1, lambda done: None)
    for threat, values in zip(threats, found.parameters, strict=True):
        assert values.abs().max().item() == pytest.approx(threat.rate * threat.budget, rel=0.01)


def test_every_step_begins_within_the_budget():
    """What is made small, and where it is judged, is never outside: a run that walks out and is called back at its end is another."""
    seen = []

    def loss(images, step):
        seen.append((images.detach() - GREY).abs().max().item())
        return images.flatten(1).sum(1)

    descend([sal.Delta(budget=0.01, rate=0.5)], GREY, [torch.zeros_like(GREY)], loss, 6, lambda done: None)
    assert 0.0099 < max(seen) <= 0.01


def test_an_infinite_gradient_does_not_stop_a_parameter_for_ever():
    def loss(images, step):
        root = (images[:, 0, 0, 0] - 0.5).sqrt() if step == 0 else images[:, 0, 0, 0]  # its derivative at 0.5 is infinite
        return root + images[:, 1].flatten(1).sum(1)

    found = descend([sal.Delta()], GREY, [torch.full_like(GREY, 0.0)], loss, 6, lambda done: None)
    assert found.blind.tolist() == [1, 1]
    assert (found.parameters[0][:, 0, 0, 0] < -0.001).all()


def test_steps_without_a_finite_gradient_are_counted():
    def loss(images, step):
        first = images[0, 0, 0, 0]
        root = (0 * first).sqrt() if step in (1, 3) else first  # its derivative at 0 is not a number
        return images[:, 1].flatten(1).sum(1) + torch.stack([root, 0 * first])

    found = descend([sal.Delta()], GREY, [torch.zeros_like(GREY)], loss, 5, lambda done: None)
    assert found.blind.tolist() == [2, 0]
    assert found.images.isfinite().all()
    later = found.after(Descent(GREY, [torch.zeros_like(GREY)], found.history + 1, torch.tensor([0, 4])), torch.tensor([True, False]))
    assert later.blind.tolist() == [2, 4]
    assert torch.equal(later.images, torch.stack([found.images[0], GREY[1]]))
    assert torch.equal(later.history, found.history + 1)
