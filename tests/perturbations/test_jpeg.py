"""JPEG compression, against the library's own file."""

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.data import chelsea
from skimage.metrics import peak_signal_noise_ratio

from salience.core.errors import InputError
from salience.perturbations.jpeg import Jpeg


def test_same_as_a_file(tmp_path):
    pixels = chelsea()[50:147, 100:231]
    Image.fromarray(pixels).save(tmp_path / "a.jpg", quality=20)
    with Image.open(tmp_path / "a.jpg") as file:
        expected = np.array(file)
    images = torch.from_numpy(pixels / 255).permute(2, 0, 1)[None].float()
    assert np.array_equal((Jpeg(quality=20)(images)[0] * 255).round().byte().permute(1, 2, 0).numpy(), expected)
    ratios = [peak_signal_noise_ratio(images.numpy(), Jpeg(quality=quality)(images).numpy(), data_range=1) for quality in (5, 50, 95)]
    assert ratios == sorted(ratios)
    assert ratios[0] < 30 < ratios[2]


def test_channels():
    grey = torch.rand(1, 1, 16, 16)
    assert (Jpeg(quality=95)(grey) - grey).abs().mean() < 0.05
    with pytest.raises(InputError, match=r"^jpeg stores images with 1 or 3 channels, not 4: choose another perturbation.$"):
        Jpeg()(torch.rand(1, 4, 8, 8))
