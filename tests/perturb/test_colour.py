"""CIE-LUV and changes of colours."""

import numpy as np
import pytest
import torch
from skimage.color import rgb2luv

from salience.perturb.colour import ROUNDING, points, recoloured, to_luv, to_rgb


def test_same_as_scikit_image():
    images = torch.rand(1, 3, 17, 19, generator=torch.Generator().manual_seed(0))
    expected = rgb2luv(images[0].permute(1, 2, 0).double().numpy())
    found = to_luv(images)[0].permute(1, 2, 0).double().numpy()
    assert np.abs(found * [100, 200, 200] - [0, 100, 100] - expected).max() < 0.05


def test_there_and_back():
    images = torch.cat([torch.rand(2, 3, 13, 11), torch.zeros(1, 3, 13, 11), torch.ones(1, 3, 13, 11), torch.full((1, 3, 13, 11), 1e-4)])
    assert (to_rgb(to_luv(images)) - images).abs().max() < 2e-5


def test_gradients_are_finite_in_black_and_white():
    images = torch.tensor([0.0, 1.0, 0.5, 1e-7]).view(4, 1, 1, 1).repeat(1, 3, 2, 2).requires_grad_(True)
    change = torch.zeros(4, 3, 4, 4, 4, requires_grad=True)
    for gradient in torch.autograd.grad(recoloured(images, change).square().sum(), (images, change)):
        assert torch.isfinite(gradient).all()


def test_a_constant_change_moves_every_colour_alike():
    images = 0.3 + 0.4 * torch.rand(2, 3, 5, 7)
    shift = torch.tensor([0.02, -0.01, 0.015]).view(1, 3, 1, 1, 1)
    found = to_luv(recoloured(images, shift.expand(2, 3, 4, 5, 6)))
    assert torch.allclose(found, to_luv(images) + shift[..., 0], atol=1e-4)


def test_colours_at_the_border_of_the_lattice_change_as_its_outermost_points():
    """White is at its very end, where rounding puts a colour just outside."""
    images = torch.ones(1, 3, 2, 2)
    shift = torch.tensor([-0.1, 0.0, 0.0]).view(1, 3, 1, 1, 1).expand(1, 3, 4, 5, 6)
    assert torch.allclose(to_luv(recoloured(images, shift))[:, 0], torch.full((1, 2, 2), 0.9), atol=1e-4)
    assert torch.allclose(to_luv(recoloured(1.0005 * images, shift))[:, 0], torch.full((1, 2, 2), 0.9), atol=2e-3)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_lattice_is_read_at_the_colour_itself(axis):
    """A change of a tenth of the colour's own lightness, u or v makes that a tenth larger and leaves the others."""
    dark = to_rgb(torch.tensor([0.2, 0.52, 0.49]).view(1, 3, 1, 1) + torch.rand(1, 3, 4, 4) * torch.tensor([0.1, 0.02, 0.02]).view(1, 3, 1, 1))
    share = 0.1 if axis == 0 else 0.02  # a larger one leaves the colours of a screen
    change = share * points(torch.zeros(1, 3, 8, 9, 10)) * torch.eye(3)[axis].view(1, 3, 1, 1, 1)
    expected = to_luv(dark) * (1 + share * torch.eye(3)[axis].view(1, 3, 1, 1))
    assert torch.allclose(to_luv(recoloured(dark, change)), expected, atol=1e-4)


def test_no_colour_moves_further_than_it_was_asked_to():
    """Near black a small step in u and v is another hue: pixels of 0, 0, 4 became magenta."""
    dark = torch.stack(torch.meshgrid(*3 * [torch.tensor([0.0, 1, 4, 9, 60, 254, 255]) / 255], indexing="ij")).reshape(1, 3, 7, 49)
    change = torch.randn(1, 3, 3, 4, 4, generator=torch.Generator().manual_seed(0)).clamp(-1, 1) * 0.06
    for strength in (0.01, 0.1, 1):
        found = recoloured(dark, strength * change)
        moved = (to_luv(found) - to_luv(dark)).abs().amax(1)
        assert moved.max() <= 0.06 * strength + 2 * ROUNDING
        assert moved.mean() > 0.01 * strength
    shift = torch.tensor([0.0005, 0, -0.002]).view(1, 3, 1, 1, 1).expand(1, 3, 16, 32, 32)
    assert recoloured(torch.zeros(1, 3, 4, 4), shift).max() < 0.03


def test_halved_changes_have_a_gradient():
    change = (torch.randn(1, 3, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 0.03).requires_grad_(True)
    dark = torch.rand(1, 3, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 0.02
    (gradient,) = torch.autograd.grad(recoloured(dark, change).sum(), change)
    assert gradient.isfinite().all()
    assert gradient.any()
