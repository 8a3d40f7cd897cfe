"""Gaussian blur, against scipy."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from salience.core.errors import InputError
from salience.perturbations.gaussian_blur import GaussianBlur


@pytest.mark.parametrize(("size", "sd", "shape"), [(5, None, (17, 19)), (3, 0.7, (5, 7)), (9, 2.0, (3, 2)), (1, None, (5, 7))])
def test_same_as_scipy(size, sd, shape):
    image = np.random.default_rng(0).random(shape)
    sigma = {5: 1.1, 1: 0.5}.get(size, sd)
    expected = gaussian_filter(image, sigma, mode="mirror", radius=size // 2)
    found = GaussianBlur(size=size, sd=sd)(torch.from_numpy(image).float()[None, None])
    assert np.allclose(found[0, 0].numpy(), expected, atol=1e-6)


def test_kernel_is_exactly_as_wide():
    image = torch.zeros(1, 1, 13, 13)
    image[..., 6, 6] = 1
    rows, columns = GaussianBlur()(image)[0, 0].nonzero(as_tuple=True)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (4, 8, 4, 8)


def test_even_size():
    with pytest.raises(InputError, match=r"^gaussian_blur: size must be odd, not 4.$"):
        GaussianBlur(size=4)
