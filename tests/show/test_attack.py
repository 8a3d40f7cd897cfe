"""Attacks in pictures."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

import salience as sal
from salience.show.attack import WIDTH, _large
from salience.show.overlay import number


@pytest.fixture
def attacked(conv):
    images = torch.rand(2, 3, 16, 24)
    return sal.attack(conv, images, images.flip(0), threat="delta+stadv", steps=2)


def opened(png):
    return Image.open(io.BytesIO(png))


def test_every_image_has_its_rows(conv, attacked):
    alone = sal.attack(conv, attacked.images[:1], attacked.images[1:], threat="delta+stadv", steps=2)
    both, one = opened(attacked._repr_png_()), opened(alone._repr_png_())
    assert both.width == one.width
    assert abs(both.height - 2 * one.height) < 30
    texts = [each.get_text() for each in attacked.show().texts]
    assert texts.count("image before") == texts.count("map aimed at") == texts.count("flow") == 2
    assert [any(f"probability {number(each)}" in text for text in texts) for each in attacked.probability_before.tolist()] == [True, True]
    assert attacked.show()._repr_png_() == attacked._repr_png_()


def test_images_beyond_the_most_are_counted(attacked, monkeypatch):
    monkeypatch.setattr("salience.show.attack.MOST", 1)
    texts = [each.get_text() for each in attacked.show().texts]
    assert texts.count("image before") == 1
    assert "1 more images are not drawn." in texts


@pytest.mark.parametrize("width", [28, 64, 180, 224, 512])
def test_panels_are_of_one_width(width):
    """Pictures of 64 or 180 pixels became wider than their panels, and lay over the neighbour, the colour bar and the text."""
    picture = np.arange(width * 2 * width).reshape(2 * width, width)
    drawn = _large(picture)
    assert drawn.shape == (2 * WIDTH, WIDTH)
    assert drawn[0, 0] == 0
    assert drawn[-1, -1] >= picture[-2, -2]
