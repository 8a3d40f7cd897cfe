"""Brightness."""

import torch

from salience.perturbations.brightness import Brightness


def test_factor():
    images = torch.tensor([0.0, 0.1, 0.5, 0.9]).view(1, 1, 1, 4)
    assert torch.allclose(Brightness(factor=1.5)(images).flatten(), torch.tensor([0.0, 0.15, 0.75, 1.0]))
    assert torch.allclose(Brightness(factor=0.5)(images), images / 2)
