"""What every similarity does with the maps that it is given."""

import numpy as np
import pytest
import torch

import salience as sal


def test_maps_of_any_layout():
    maps = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    wanted = sal.similarity("cosine", maps, maps.flip(2))
    assert (sal.similarity("cosine", maps.numpy(), maps.numpy()[:, :, ::-1]) == wanted).all()
    assert sal.similarity("cosine", maps.double(), maps).dtype == torch.float64


@pytest.mark.parametrize("wrong", [torch.ones(1, 4, 5) * 1j, np.ones((1, 4, 5), np.complex64)])
def test_complex_maps_are_refused(wrong):
    with pytest.raises(sal.InputError, match=r"^Maps to compare are an Explanation, a tensor or an array of real numbers, not of complex64\.$"):
        sal.similarity("mse", wrong, torch.ones(1, 4, 5))
