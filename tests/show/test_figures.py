"""Figures for Jupyter, the contact sheet and the page."""

import io
import re

import numpy as np
import torch
from PIL import Image

import salience as sal
from salience.show.figures import MOST, contact_sheet, figure, png
from salience.show.page import Section, Shot, page

from .test_colour import explanation


def opened(file):
    return Image.open(io.BytesIO(file))


def test_a_row_an_image_with_the_error_of_random_methods(conv, photos):
    random, plain = sal.explain("smoothgrad:samples=4", conv, photos), sal.explain("gradient", conv, photos)
    assert opened(png(random)).width > 1.4 * opened(png(plain)).width
    assert abs(opened(png(random)).height - 2 * opened(png(random[:1])).height) < 30
    assert random.show()._repr_png_() == random._repr_png_()


def test_many_images_are_cut_with_a_word(monkeypatch):
    monkeypatch.setattr("salience.show.figures.MOST", 2)
    drawn = figure(explanation(torch.rand(5, 1, 4, 4)))
    assert "3 more images are not drawn." in [text.get_text() for text in drawn.texts]
    assert MOST > 2


def test_nothing_is_cut_off(conv, photos):
    """All text of a figure lies inside it."""
    drawn = figure(sal.explain("smoothgrad:samples=4,base=(integrated_gradients:steps=2)", conv, photos))
    drawn.canvas.draw()
    width, height = drawn.canvas.get_width_height()
    for text in [*drawn.texts, *(label for axes in drawn.axes if axes.axison for label in axes.get_xticklabels())]:
        box = text.get_window_extent()
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= width
        assert box.y1 <= height


def test_without_blocks_it_says_that_the_error_of_the_sum_is_not_known(conv, photos, tmp_path):
    sal.explain("smoothgrad:samples=4", conv, photos).save(tmp_path / "a.npz")
    drawn = figure(sal.Explanation.load(tmp_path / "a.npz"))
    assert any("saved without blocks" in " ".join(text.get_text().split()) for text in drawn.texts)


def test_contact_sheet(conv, photos):
    rows = [[sal.explain(method, conv, photos[i : i + 1]) for method in ("gradient", "smoothgrad:samples=4", "vargrad:samples=4")] for i in range(2)]
    sheet = opened(contact_sheet(rows, ["first", "second"]))
    without = opened(contact_sheet([row[:1] for row in rows], ["first", "second"]))
    assert np.isclose(sheet.width / without.width, 5 / 2, rtol=0.05)
    assert sheet.height == without.height


def test_page_needs_nothing_else():
    file = png(explanation(torch.rand(1, 1, 4, 4)))
    made = page("A <title>", "A lead.", ("image", "class"), [("a&b.jpg", "cat"), ("c.jpg", "<dog>")], file, [Section("a&b.jpg: cat", [Shot("gradient", file, {"seed": 0, "error": float("nan")})])])
    assert made.count("data:image/png;base64,") == 2
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", made)
    assert "http" not in re.sub(r"base64,[^\"]*", "", made)
    assert "A &lt;title&gt;" in made
    assert "a&amp;b.jpg" in made
    assert "&lt;dog&gt;" in made
    assert "&#34;error&#34;: null" in made
    assert "prefers-color-scheme: dark" in made
