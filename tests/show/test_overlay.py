"""Overlays at the level of arrays, and the PNG files with their legends."""

import io
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import salience as sal
from salience.core.registry import entries
from salience.show.overlay import LONGEST, notes_of, number, numbers, overlay, panels, title_of, unit_of

from .test_colour import explanation, warmth


def model_of(size):
    return sal.Model(torch.nn.Flatten(), size=size)


def photograph(height, width, size, fit="crop"):
    """A coloured picture through the model's geometry."""
    array = np.zeros((height, width, 3), np.uint8)
    array[..., 0], array[..., 2] = 200, 40
    return sal.load_images(array, model_of(size), fit=fit)


def chroma(rgb):
    return rgb.max(-1) - rgb.min(-1)


class TestPanels:
    def test_colours_follow_the_sign_and_nothing_stays_grey(self):
        maps = torch.zeros(1, 1, 8, 12)
        maps[..., :4], maps[..., -4:] = 1.0, -1.0
        drawn = panels(explanation(maps))[0].overlay()
        third = drawn.shape[1] // 3
        assert (warmth(drawn[:, : third - 40]) > 0.2).all()
        assert (warmth(drawn[:, 2 * third + 40 :]) < -0.2).all()
        assert chroma(drawn[:, third + 40 : 2 * third - 40]).max() < 1e-6

    def test_pixels_within_their_error_are_grey_and_all_others_are_not(self):
        maps = torch.linspace(-1, 1, 8 * 12).view(1, 1, 8, 12)
        stderr = torch.zeros(1, 1, 8, 12)
        stderr[..., 6:] = 10.0
        panel = panels(explanation(maps, stderr))[0]
        drawn, middle = panel.overlay(), panel.picture.shape[1] // 2
        assert panel.undecided[:, middle + 40 :].all()
        assert not panel.undecided[:, : middle - 40].any()
        assert (chroma(drawn)[panel.undecided] < 1e-6).all()
        assert (chroma(drawn)[~panel.undecided & (np.abs(panel.values) > 0.02)] > 0.003).all()

    def test_stronger_values_are_stronger_colours(self):
        drawn = panels(explanation(torch.linspace(0, 1, 64).view(1, 1, 1, 64)))[0].overlay()[0]
        assert chroma(drawn)[-1] > 0.3
        assert np.corrcoef(np.arange(len(drawn)), drawn.sum(-1))[0, 1] < -0.5

    @pytest.mark.parametrize(("height", "width"), [(300, 450), (450, 300), (3000, 1000), (20, 31), (1, 3000)])
    def test_size_of_the_picture(self, height, width):
        images = photograph(height, width, 32, "squash")
        panel = panels(explanation(torch.rand(1, 1, 32, 32), images=images))[0]
        drawn = panel.overlay()
        assert 640 <= max(drawn.shape[:2]) <= LONGEST
        assert drawn.shape[0] == max(1, round(height * max(drawn.shape[:2]) / max(height, width))) or drawn.shape[1] == max(drawn.shape[:2])
        assert panel.values.shape == panel.seen.shape == drawn.shape[:2]

    def test_what_the_model_did_not_see_fades(self):
        panel = panels(explanation(torch.ones(1, 1, 32, 32), images=photograph(100, 200, 32)))[0]
        height, width = panel.seen.shape
        assert not panel.seen[:, : width // 5].any()
        assert panel.seen[height // 2, width // 2]
        drawn = panel.overlay()
        assert chroma(drawn[~panel.seen]).max() < 1e-6
        assert drawn[~panel.seen].min() > 0.8

    def test_a_map_lies_where_the_model_saw_it(self):
        """A spot in the crop appears at its place in the picture."""
        images = photograph(300, 600, 64)
        maps = torch.zeros(1, 1, 64, 64)
        maps[0, 0, 8:12, 48:52] = 1.0
        panel = panels(explanation(maps, images=images))[0]
        row, column = (axis.mean() for axis in np.nonzero(panel.values > 0.5))
        top, left, bottom, right = images.geometry[0].box
        scale = panel.values.shape[0] / 300
        assert np.isclose(row, scale * (top + (bottom - top) * 10 / 64), atol=2)
        assert np.isclose(column, scale * (left + (right - left) * 50 / 64), atol=2)

    def test_without_pictures_and_in_grey(self, conv, grey, photos):
        plain = sal.explain("gradient", conv, photos)
        assert panels(plain)[1].picture.shape == (457, 640, 3)
        one = sal.explain("gradient", grey, photos[:, :1])
        assert np.allclose(chroma(panels(one)[0].picture), 0)

    def test_after_loading(self, conv, photos, tmp_path):
        sal.explain("smoothgrad:samples=4", conv, photos).save(tmp_path / "map.npz")
        e = sal.Explanation.load(tmp_path / "map.npz")
        assert panels(e)[0].undecided is None
        assert e._repr_png_().startswith(b"\x89PNG")


class TestFile:
    @pytest.mark.parametrize("value", [0.0, 1.0, -1.0])
    @pytest.mark.parametrize("stderr", [None, 0.0, 1.0, float("nan")])
    def test_constant_maps(self, value, stderr):
        file = overlay(explanation(torch.full((1, 3, 9, 7), value), stderr))
        assert Image.open(io.BytesIO(file)).size[0] >= 498

    def test_names_with_every_kind_of_letter(self):
        images = photograph(30, 40, 8)
        images.names = ["/a/b/$x^2$ \\frac 猫 [red] & <b>.jpg"]
        assert len(overlay(explanation(torch.rand(1, 1, 8, 8), images=images), label="$\\frac{ " + "very long name " * 40)) > 1000

    def test_no_text_is_cut_off(self):
        e = explanation(torch.rand(1, 3, 16, 8), 0.1, method="smoothgrad:base=(integrated_gradients:steps=16,baseline=black),noise_level=0.25")
        file = np.asarray(Image.open(io.BytesIO(overlay(e, label="WOMBAT MARMOT " * 9))).convert("L"))
        assert (file[:, -4:] == 255).all()
        assert (file[:4] == 255).all()
        assert (file[-3:] == 255).all()

    def test_the_picture_is_drawn_pixel_by_pixel(self):
        e = explanation(torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0)), images=photograph(300, 640, 32, "squash"))
        file = np.asarray(Image.open(io.BytesIO(overlay(e))).convert("RGB")) / 255
        drawn = panels(e)[0].overlay()
        assert file.shape[1] == 640
        top = next(row for row in range(100) if np.allclose(file[row], drawn[0], atol=0.01))
        assert np.allclose(file[top : top + 300], drawn, atol=0.01)
        assert (file[top - 1] == 1).all()
        assert (file[top + 300] == 1).all()

    def test_nothing_of_the_users_matplotlib_changes(self):
        import matplotlib as mpl

        before, style = mpl.rcParams._get("backend"), dict(mpl.rcParams.copy())
        overlay(explanation(torch.rand(1, 1, 8, 8)))
        assert mpl.rcParams._get("backend") == before
        assert dict(mpl.rcParams.copy()) == style
        assert "matplotlib.pyplot" not in sys.modules or sys.modules["matplotlib.pyplot"].get_fignums() == []


class TestWords:
    def test_title(self):
        images = photograph(30, 40, 8)
        images.names = ["photos/cat.jpg"]
        e = explanation(torch.rand(1, 1, 8, 8), images=images)
        assert title_of(e, 0) == "cat.jpg: class 0"
        e.record["images"]["probability"] = [0.12345]
        assert title_of(e, 0, "tiger cat") == "cat.jpg: tiger cat, probability 0.123"

    def test_notes_of_a_signed_random_map(self):
        e = explanation([[[[-1.0, -0.1, 0.0, 3.0]]]], stderr=0.1, method="smoothgrad:samples=50")
        view = panels(e)[0].shown
        assert notes_of(e, 0, view) == [
            f"smoothgrad:samples=50: {unit_of(e)}",
            "Signed: red speaks for the class, blue against it; full colour from the 99.5th percentile of |value|.",
            f"50 samples, relative error {number(float(e.relative_error[0]))}; grey: the 95% interval includes 0 (50% of the pixels).",
        ]

    def test_notes_of_an_unsigned_deterministic_map(self):
        maps = torch.rand(1, 2, 5, 5)
        maps[..., 0, 0] = 0
        e = explanation(maps, method="gradcam")
        assert notes_of(e, 0, panels(e)[0].shown) == [
            f"gradcam: {unit_of(e)}, channels summed",
            "Unsigned: darker is more; the scale ends at the 99.5th percentile.",
            "Deterministic; no sampling error.",
        ]

    @pytest.mark.parametrize("value", [0.0, 0.25])
    def test_a_map_without_differences_says_so(self, value):
        """Grad-CAM of a class that nothing speaks for is zero everywhere: its overlay was a pale picture without a word."""
        e = explanation(torch.full((1, 1, 5, 5), value), method="gradcam")
        assert notes_of(e, 0, panels(e)[0].shown)[1] == f"The value is {value:g} everywhere: this map tells no pixel from another."

    def test_units_of_a_users_function(self):
        assert unit_of(explanation(torch.rand(1, 1, 5, 5), method="my_function")) == "explains the logit"

    @pytest.mark.parametrize("method", [name for name, entry in entries("explainer").items() if not entry.cls.explains_score])
    @pytest.mark.parametrize("written", ["{}", "smoothgrad:base={}"])
    def test_a_method_that_does_not_depend_on_a_score_is_not_said_to_explain_it(self, method, written):
        assert "explains the" not in unit_of(explanation(torch.rand(1, 1, 5, 5), method=written.format(method)))

    @pytest.mark.parametrize("method", ["random", "smoothgrad:base=random"])
    def test_what_ignores_the_model_does_not_speak_for_a_class(self, method):
        e = explanation(torch.linspace(-1, 1, 25).view(1, 1, 5, 5), method=method)
        assert notes_of(e, 0, panels(e)[0].shown)[1] == "Signed: red is above 0, blue below it; full colour from the 99.5th percentile of |value|."

    @pytest.mark.parametrize(("value", "text"), [(0, "0"), (0.012345, "0.0123"), (-2.5, "\u22122.5"), (1e-9, "1e\u22129"), (123456, "1.23e5"), (float("inf"), "inf")])
    def test_numbers(self, value, text):
        assert number(value) == text

    def test_numbers_that_stand_side_by_side_differ(self):
        """The scale of a map with a high level read 0.259, 0.259, 0.259."""
        assert numbers([0, 0.5, 1]) == ["0", "0.5", "1"]
        assert numbers([0.2641, 0.26415, 0.2642]) == ["0.2641", "0.26415", "0.2642"]
        assert numbers([1.0, 1.0]) == ["1", "1"]
