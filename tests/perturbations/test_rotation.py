"""Rotation, against scipy and numpy."""

import numpy as np
import pytest
import torch
from scipy.ndimage import rotate

from salience.perturbations.rotation import Rotation


@pytest.mark.parametrize("degrees", [10, -25.5, 90, 180])
@pytest.mark.parametrize("shape", [(11, 13), (16, 9)])
def test_same_as_scipy(degrees, shape):
    image = np.random.default_rng(0).random(shape)
    expected = rotate(image, degrees, reshape=False, order=1, mode="nearest")
    found = Rotation(degrees=degrees)(torch.from_numpy(image).float()[None, None])[0, 0].numpy()
    assert np.allclose(found, expected, atol=1e-4)


def test_counter_clockwise_and_back():
    images = torch.rand(1, 3, 8, 8)
    turned = Rotation(degrees=90)(images)
    assert np.allclose(turned[0, 0].numpy(), np.rot90(images[0, 0].numpy()), atol=1e-5)
    assert torch.allclose(Rotation(degrees=90).undo(turned), images, atol=1e-5)
    assert Rotation(degrees=90).visible((8, 8)).all()


def test_corners_are_lost():
    visible = Rotation(degrees=45).visible((31, 31))
    assert visible[15].all()
    assert visible[:, 15].all()
    assert not visible[[0, 0, -1, -1], [0, -1, 0, -1]].any()
    assert torch.equal(Rotation(degrees=0).visible((5, 7)), torch.ones(5, 7, dtype=torch.bool))


def test_what_comes_from_inside():
    inside = Rotation(degrees=45).inside((31, 31))
    assert inside[15].sum() == inside[:, 15].sum() == 31
    assert not inside[[0, 0, -1, -1], [0, -1, 0, -1]].any()
