"""Gaussian noise."""

import pytest
import torch

from salience.perturbations.gaussian_noise import GaussianNoise


def test_sd_and_clamping():
    grey = torch.full((1, 3, 101, 103), 0.5)
    noise = GaussianNoise()(grey) - 0.5
    assert noise.std().item() == pytest.approx(25 / 255, rel=0.02)
    assert abs(noise.mean().item()) < 0.002
    white = GaussianNoise(sigma=0.3)(torch.ones(1, 3, 31, 37))
    assert white.max() == 1
    assert (white == 1).float().mean().item() == pytest.approx(0.5, abs=0.03)
    assert torch.equal(GaussianNoise(sigma=0)(grey), grey)
