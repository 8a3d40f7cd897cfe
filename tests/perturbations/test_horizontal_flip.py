"""Horizontal flip."""

import numpy as np
import torch

from salience.perturbations.horizontal_flip import HorizontalFlip


def test_left_to_right():
    images = torch.rand(2, 3, 5, 7)
    flipped = HorizontalFlip()(images)
    assert np.array_equal(flipped.numpy(), images.numpy()[..., ::-1])
    assert torch.equal(HorizontalFlip().undo(flipped), images)
    assert HorizontalFlip().visible((5, 7)).all()
