"""Uniform noise."""

import pytest
import torch

from salience.perturbations.uniform_noise import UniformNoise


def test_range_and_sd():
    noise = UniformNoise(radius=0.2)(torch.full((1, 3, 101, 103), 0.5)) - 0.5
    assert noise.abs().max().item() == pytest.approx(0.2, abs=1e-3)
    assert noise.std().item() == pytest.approx(0.2 / 3**0.5, rel=0.02)
    assert UniformNoise(radius=0.2)(torch.zeros(1, 3, 31, 37)).min() == 0
