"""The controls: they ignore the model, and are what they say."""

import numpy as np
import pytest
import torch

import salience as sal
from salience.core import registry
from salience.explainers.centre import Centre
from salience.explainers.edges import Edges
from salience.explainers.random import Random

BOXES = [sal.BlackBox(lambda x, scale=scale: (scale * x.mean((2, 3))).softmax(1)) for scale in (1, -3)]


def batch(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("method", [Random(), Edges(), Centre()])
def test_controls_ignore_the_model(method):
    x = batch(2, 3, 5, 7)
    first, second = (method(box, x, targets=0).maps for box in BOXES)
    assert torch.equal(first, second)
    assert registry.facts_of(type(method))["control"]
    assert first.shape == (2, 1, 5, 7)


def test_random_is_standard_normal_by_seed():
    x = batch(2, 3, 60, 70)
    e = Random()(BOXES[0], x, seed=[1, 2])
    assert abs(e.maps.mean()) < 0.05
    assert abs(e.maps.std() - 1) < 0.05
    assert not torch.equal(e.maps[0], e.maps[1])
    assert torch.equal(Random()(BOXES[0], x[1:], seed=2).maps[0], e.maps[1])
    shared = Random()(BOXES[0], x, seed=1).maps
    assert torch.equal(shared[0], shared[1])
    assert torch.equal(shared[0], e.maps[0])
    shared[0] += 1  # maps have memory of their own
    assert torch.equal(shared[1], e.maps[0])


def test_edges_are_scikit_images_sobel():
    from skimage.filters import sobel

    x = batch(1, 3, 9, 14)
    luminance = np.tensordot(np.array([0.2126, 0.7152, 0.0722]), x[0].double().numpy(), 1)
    expected = torch.from_numpy(sobel(luminance, mode="nearest")).float()
    found = Edges()(BOXES[0], x).maps[0, 0]
    torch.testing.assert_close(found / found.max(), expected / expected.max(), rtol=1e-4, atol=1e-5)


def test_edges_measure_the_slope():
    ramp = torch.linspace(0, 1, 11)[None, None, None].expand(1, 3, 6, 11).contiguous()
    torch.testing.assert_close(Edges()(BOXES[0], ramp).maps[0, 0, :, 1:-1], torch.full((6, 9), 0.1))
    grey = sal.BlackBox(lambda x: x.mean((2, 3)).expand(-1, 2).softmax(1), mean_colour=(0.5,))
    torch.testing.assert_close(Edges()(grey, ramp[:, :1]).maps[0, 0, :, 1:-1], torch.full((6, 9), 0.1))


def test_centre_is_a_gaussian():
    maps = Centre()(BOXES[0], batch(2, 3, 9, 17)).maps
    assert maps[0, 0, 4, 8] == maps.max() == 1
    assert torch.equal(maps, maps.flip(-1).flip(-2))
    assert maps[0, 0, 4, 8 + 4].item() == pytest.approx(np.exp(-0.5 * (4 / 2.25) ** 2), rel=1e-5)
    assert maps[0, 0, 0, 8].item() == pytest.approx(maps[0, 0, 4, 4].item(), rel=1e-5)
