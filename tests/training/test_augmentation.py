"""What is drawn for a training picture, beside its formula."""

import pytest
import torch

from salience.training.augmentation import DRAWS
from salience.training.standard import Standard

MIDDLE = torch.full((1, DRAWS), 0.5)


def drawn(**values):
    """Draws that change nothing, but for those given by their place."""
    made = MIDDLE.clone()
    for place, value in values.items():
        made[0, int(place[1:])] = value
    return made


def test_rows_are_slanted_by_the_angle():
    """With 45 degrees a pixel k rows above the middle moves k columns to the right."""
    picture = torch.zeros(1, 1, 9, 9, dtype=torch.uint8)
    picture[:, :, :, 4] = 255
    slanted = Standard(shear=45).augmented(picture, drawn(_5=1.0))
    assert torch.allclose(slanted[0, 0], torch.eye(9).flip(1), atol=1e-4)
    other = Standard(shear=45).augmented(picture, drawn(_5=0.0))
    assert torch.allclose(other, slanted.flip(3), atol=1e-4)
    assert torch.allclose(Standard(shear=45).augmented(picture, MIDDLE), picture / 255, atol=1e-5)


@pytest.mark.parametrize("draw", [0.25, 0.75])
@pytest.mark.parametrize("which", ["brightness", "contrast", "saturation"])
def test_each_colour_factor_changes_what_it_is_called_after(which, draw):
    """Factor 0.8 or 1.2: times the values, times the distance from the mean of all, times the distance from the pixel's own grey."""
    pixels = 100 + torch.randint(0, 60, (1, 3, 4, 5), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    x, factor = pixels / 255, 1 + 0.4 * (2 * draw - 1)
    grey = {"brightness": torch.zeros(1), "contrast": x.mean(), "saturation": x.mean(1, keepdim=True)}[which]
    place = 6 + ["brightness", "contrast", "saturation"].index(which)
    found = Standard(jitter=0.4).augmented(pixels, drawn(**{f"_{place}": draw}))
    assert torch.allclose(found, grey + factor * (x - grey), atol=1e-6)
