"""PGD: on a linear network the best point in the budget is a corner, known in closed form."""

import itertools

import pytest
import torch
from made_pictures import striped
from torch import nn

import salience as sal
from salience.training.pgd import ascend, pgd, start_within

EPSILON = 8 / 255


@pytest.fixture
def linear():
    """Two classes that differ by w'x."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 2, bias=False))
    with torch.no_grad():
        w = torch.randn(48, generator=torch.Generator().manual_seed(0))
        net[1].weight.copy_(torch.stack([w, -w]))
    return sal.Model(net, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3)), w.view(1, 3, 4, 4)


def images(n=16):
    return torch.rand(n, 3, 4, 4, generator=torch.Generator().manual_seed(2))


def test_the_corner_is_reached_and_the_budget_kept(linear):
    model, w = linear
    x, labels = images(), torch.zeros(16, dtype=torch.int64)
    corner = (x - EPSILON * w.sign()).clamp((x - EPSILON).clamp(0, 1), (x + EPSILON).clamp(0, 1))
    for start in (x, start_within(x, EPSILON, torch.rand(16, 3, 4, 4))):
        assert torch.equal(ascend(model, x, labels, start, epsilon=EPSILON, stride=2.5 * EPSILON / 20, steps=20), corner)
    assert torch.equal(ascend(model, x, labels, x, epsilon=EPSILON, stride=EPSILON, steps=1), corner)


@pytest.mark.parametrize("steps", [1, 7])
def test_every_pixel_stays_in_its_budget_and_in_range(conv, steps):
    x = torch.cat([torch.zeros(1, 3, 5, 7), torch.ones(1, 3, 5, 7), torch.rand(2, 3, 5, 7)])
    labels = torch.arange(4)
    start = start_within(x, EPSILON, torch.rand(4, 3, 5, 7))
    for changed in (start, ascend(conv, x, labels, start, epsilon=EPSILON, stride=EPSILON, steps=steps)):
        assert (changed >= 0).all()
        assert (changed <= 1).all()
        assert ((changed - x).abs() <= EPSILON + 1e-7).all()
    assert ((changed - x).abs().max() - EPSILON).abs() < 1e-6


def test_survival_in_closed_form(linear):
    """An image survives exactly if w'x after normalisation exceeds what the corner takes away."""
    model, w = linear
    x = images(200)
    corner = (x - EPSILON * w.sign()).clamp(0, 1)
    margin = (w * model.normalise(corner)).sum((1, 2, 3))
    clean = (w * model.normalise(x)).sum((1, 2, 3)) > 0
    survived = pgd(model, x, torch.zeros(200, dtype=torch.int64))
    assert torch.equal(survived, margin > 0)
    assert 0 < survived.sum() < clean.sum()


@pytest.fixture
def conv(conv):
    return conv.eval()


def close(model, n, seed):
    """Images near the border between two classes, and the classes that the network sees."""
    x = torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        model.module.head.bias -= model.outputs(x).mean(0)
    return x, model.outputs(x).argmax(1)


def test_more_restarts_and_larger_budgets_never_help(conv):
    x, labels = close(conv, 64, 3)
    assert pgd(conv, x, labels, epsilon=0.0).all()
    few = pgd(conv, x, labels, steps=3, restarts=1, epsilon=0.02)
    more = pgd(conv, x, labels, steps=3, restarts=4, epsilon=0.02)
    assert (more <= few).all()
    wide = pgd(conv, x, labels, steps=3, restarts=4, epsilon=0.2)
    assert wide.sum() < more.sum() < 64


def test_an_image_that_once_lost_its_class_stays_lost(conv, monkeypatch):
    """Later starts are made for the others only."""
    x, labels = close(conv, 6, 0)
    starts = []

    def first_fails(model, images, labels, start, **how):
        starts.append(len(images))
        wrong = x[model.outputs(x).argmax(1) != labels[0]][:1]
        return torch.cat([wrong, images[1:]]) if len(starts) == 1 else images

    monkeypatch.setattr("salience.training.pgd.ascend", first_fails)
    assert pgd(conv, x, labels, restarts=3).tolist() == [False] + [True] * 5
    assert starts == [6, 5, 5]


def test_every_start_is_another_point_within_the_budget(conv, monkeypatch):
    x, labels = close(conv, 6, 0)
    starts = []
    monkeypatch.setattr("salience.training.pgd.ascend", lambda model, images, labels, start, **how: starts.append(start) or images)
    pgd(conv, x, labels, restarts=3, epsilon=0.05)
    for start in starts:
        assert 0.02 < (start - x).abs().mean() < 0.03
    assert all(not torch.equal(first, second) for first, second in itertools.combinations(starts, 2))


def test_a_step_follows_the_cross_entropy_not_the_logit():
    """Of a linear network with three classes, where the two point elsewhere."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 3, bias=False))
    with torch.no_grad():
        net[1].weight.copy_(torch.randn(3, 48, generator=torch.Generator().manual_seed(1)))
    model, x, labels = sal.Model(net), images(5), torch.tensor([0, 1, 2, 0, 1])
    w = net[1].weight.detach()
    slope = (model.outputs(x).softmax(1) @ w - w[labels]).view(5, 3, 4, 4)
    expected = (x + 0.01 * slope.sign()).clamp(0, 1)
    assert torch.allclose(ascend(model, x, labels, x, epsilon=0.01, stride=0.01, steps=1), expected, atol=1e-6)
    assert (slope.sign() != -w[labels].view(5, 3, 4, 4).sign()).float().mean() > 0.1


def test_an_image_does_not_depend_on_the_batch(conv):
    x, labels = close(conv, 12, 4)
    whole = pgd(conv, x, labels, steps=2, restarts=2, epsilon=0.03)
    assert torch.equal(whole, pgd(conv.using(chunk=5), x, labels, steps=2, restarts=2, epsilon=0.03))
    assert torch.equal(whole[:7], pgd(conv, x[:7], labels[:7], steps=2, restarts=2, epsilon=0.03))


def test_it_is_stronger_than_noise_and_changes_nothing(conv):
    x, labels = close(conv, 64, 5)
    state = {key: value.clone() for key, value in conv.state_dict().items()}
    conv.train()
    with conv.frozen():
        noisy = (conv.outputs(start_within(x, 0.05, torch.rand(64, 3, 8, 8).round())).argmax(1) == labels).sum()
    told = []
    assert pgd(conv, x, labels, epsilon=0.05, steps=5, restarts=1, progress=lambda *each: told.append(each)).sum() < noisy
    assert told[-1] == (64, 64)
    assert conv.training
    assert all(torch.equal(value, state[key]) for key, value in conv.state_dict().items())


def test_wrong_images_do_not_survive(conv):
    data = striped(4)
    labels = (conv.outputs(data.pixels()).argmax(1) + 1) % 5
    assert not pgd(conv, data.pixels(), labels, steps=1, restarts=1).any()
