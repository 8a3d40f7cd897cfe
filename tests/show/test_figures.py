"""Figures for Jupyter, the contact sheet and the page."""

import dataclasses
import io
import re

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

import salience as sal
from salience.show.figures import MOST, figure, png
from salience.show.overlay import to_png
from salience.show.page import template

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


def test_without_blocks_it_says_which_interval_leaves_pixels_grey(conv, photos, tmp_path):
    """A loaded map of masks was greyed by another error than the same map before, under the same words."""
    e = sal.explain("rise:samples=40", conv, photos)
    e.save(tmp_path / "a.npz")
    for drawn, said in (
        (figure(e), "grey: the 95% interval includes"),
        (figure(sal.Explanation.load(tmp_path / "a.npz")), "grey: the 95% interval of the value alone (saved without blocks) includes"),
    ):
        assert any(said in " ".join(text.get_text().split()) for text in drawn.texts)


def test_long_captions_are_small_and_whole(conv):
    photographs = sal.load_images(np.zeros((20, 24, 3), np.uint8), conv)
    photographs.names = ["a" * 90 + ".png"]
    method = "smoothgrad:samples=4,noise_level=0.05,base=(integrated_gradients:steps=4,baseline=blur)"
    e = dataclasses.replace(sal.explain(method, conv, photographs), method="noisegrad:base=(" + method + "),weight_samples=25,weight_sigma=0.0075")
    for drawn in (figure(e), sal.contact_sheet([e])):
        texts = ["".join(text.get_text().split()) for text in drawn.texts]
        assert any("ofthepixels)" in text or text.endswith("probability" + f"{e.record['images']['probability'][0]:.3g}") for text in texts)
        assert all(text.get_window_extent(FigureCanvasAgg(drawn).get_renderer()).x1 <= drawn.get_figwidth() * drawn.dpi for text in drawn.texts)


class TestContactSheet:
    def test_a_line_for_each_picture_and_a_panel_for_each_method(self, conv, photos):
        together = [sal.explain(method, conv, photos) for method in ("gradient", "smoothgrad:samples=4", "vargrad:samples=4")]
        drawn = sal.contact_sheet(together)
        heads = ["as the model saw it", "gradient", "smoothgrad", "vargrad", "error of vargrad"]
        assert [text.get_text() for text in drawn.texts if text.get_weight() == "bold"] == heads * 2
        assert len(drawn.axes) == 10
        singly = sal.contact_sheet([e[image] for image in range(2) for e in together])
        assert to_png(singly) == to_png(drawn)

    def test_long_lines_are_wrapped_and_nothing_is_cut_off(self, conv, photos):
        many = [sal.explain(f"smoothgrad:samples=2,noise_level={level}", conv, photos[:1]) for level in (0.1, 0.2, 0.3)]
        wide, narrow = sal.contact_sheet(many), sal.contact_sheet(many, columns=2)
        assert len(wide.axes) == len(narrow.axes) == 5
        assert np.isclose(wide.get_figwidth() / narrow.get_figwidth(), 5 / 2, rtol=0.05)
        assert narrow.get_figheight() > 2.5 * wide.get_figheight()
        assert "smoothgrad:samples=2,noise_level=0.3" in [text.get_text() for text in narrow.texts]
        for drawn in (wide, narrow):
            drawn.canvas.draw()
            for text in drawn.texts:
                box = text.get_window_extent()
                assert box.x0 >= 0
                assert box.y0 >= 0
                assert box.x1 <= drawn.canvas.get_width_height()[0]

    def test_several_targets_are_named_under_their_maps(self, conv, photos):
        drawn = sal.contact_sheet([sal.explain("gradient", conv, photos[:1], targets=target) for target in (0, 2)])
        assert [text.get_text().partition("; ")[2] for text in drawn.texts].count("deterministic") == 2

    def test_files_of_maps_do_not_hold_the_picture(self, conv, photos, tmp_path):
        sal.explain("gradient", conv, photos[:1]).save(tmp_path / "a.npz")
        drawn = sal.contact_sheet([sal.Explanation.load(tmp_path / "a.npz")])
        assert drawn.texts[0].get_text() == "picture not in the file"

    def test_many_pictures_are_cut_with_a_word(self, conv, photos, monkeypatch):
        monkeypatch.setattr("salience.show.figures.MOST", 1)
        drawn = sal.contact_sheet([sal.explain("gradient", conv, photos)])
        assert len(drawn.axes) == 2
        assert drawn.texts[-1].get_text().endswith("1 more images are not drawn.")

    @pytest.mark.parametrize(("explanations", "columns"), [(0, 7), (1, 0)])
    def test_nothing_to_draw(self, conv, photos, explanations, columns):
        with pytest.raises(sal.InputError, match=r"^A contact sheet needs one explanation at least, and one column\.$"):
            sal.contact_sheet([sal.explain("gradient", conv, photos)] * explanations, columns)


def test_page_needs_nothing_else():
    file = png(explanation(torch.rand(1, 1, 4, 4)))
    sections = [{"title": "a&b.jpg: cat", "shots": [{"caption": "gradient", "png": file, "record": {"seed": 0, "error": float("nan")}}]}]
    rows = [("a&b.jpg", "cat"), ("c.jpg", "<dog>")]
    made = template("show/page.html").render(title="A <title>", lead="A lead.", columns=("image", "class"), rows=rows, sheet=file, sections=sections)
    assert made.count("data:image/png;base64,") == 2
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", made)
    assert "http" not in re.sub(r"base64,[^\"]*", "", made)
    assert "A &lt;title&gt;" in made
    assert "a&amp;b.jpg" in made
    assert "&lt;dog&gt;" in made
    assert "&#34;error&#34;: null" in made
    assert "prefers-color-scheme: dark" in made
