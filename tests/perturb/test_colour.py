"""CIE-LUV and changes of colours."""

import numpy as np
import torch
from skimage.color import rgb2luv

from salience.perturb.colour import points, recoloured, to_luv, to_rgb


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


def test_the_lattice_is_read_at_the_colour_itself():
    """A change equal to the colour itself doubles it: lightness, u and v each from their own axis."""
    dark = to_rgb(torch.tensor([0.2, 0.5, 0.5]).view(1, 3, 1, 1) + torch.rand(1, 3, 4, 4) * torch.tensor([0.1, 0.02, 0.02]).view(1, 3, 1, 1))
    own = points(torch.zeros(1, 3, 8, 9, 10))
    change = 0.1 * own * torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1, 1)
    assert torch.allclose(to_luv(recoloured(dark, change))[:, 0], 1.1 * to_luv(dark)[:, 0], atol=1e-4)
