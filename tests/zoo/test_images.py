"""Every kind of file comes in upright and in [0, 1], or is refused in one sentence; and masks find their way back."""

import io
import math
import re
from pathlib import Path

import numpy as np
import pytest
import skimage
import torch
from PIL import Image

import salience as sal
from salience.zoo.images import Geometry, Photographs

PHOTOGRAPHS = Path(skimage.__file__).parent / "data"
RED, BLUE = (200, 30, 40), (20, 40, 180)


@pytest.fixture
def two_coloured():
    """20 high, 30 wide: red above, blue below."""
    array = np.empty((20, 30, 3), np.uint8)
    array[:10], array[10:] = RED, BLUE
    return Image.fromarray(array)


def saved(picture, path, **options):
    picture.save(path, **options)
    return path


def is_upright(images, tolerance=0.03):
    """Whether the images are red above and blue below, as `two_coloured` is."""
    above, below = (torch.tensor(colour) / 255 for colour in (RED, BLUE))
    top, bottom = images[..., 2:8, 4:-4].mean((0, 2, 3)), images[..., -8:-2, 4:-4].mean((0, 2, 3))
    return torch.allclose(top, above, atol=tolerance) and torch.allclose(bottom, below, atol=tolerance)


def loaded(source):
    images = sal.load_images(source)
    assert images.dtype == torch.float32
    assert images.min() >= 0
    assert images.max() <= 1
    return images


class TestKindsOfFiles:
    @pytest.mark.parametrize("kind", ["png", "bmp", "tiff", "webp", "jpeg"])
    def test_formats(self, two_coloured, tmp_path, kind):
        options = {"jpeg": {"quality": 95}, "webp": {"lossless": True}}.get(kind, {})
        images = loaded(saved(two_coloured, tmp_path / f"a.{kind}", **options))
        assert images.shape == (1, 3, 20, 30)
        assert is_upright(images)

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_rotated_by_exif(self, two_coloured, tmp_path, orientation):
        # what a camera stores so that the tag makes it upright: the inverse of what the tag asks for
        undo = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_90", 7: "TRANSVERSE", 8: "ROTATE_270"}
        stored = two_coloured.transpose(Image.Transpose[undo[orientation]]) if orientation in undo else two_coloured
        exif = Image.Exif()
        exif[0x0112] = orientation
        images = loaded(saved(stored, tmp_path / "a.png", exif=exif))
        assert images.shape == (1, 3, 20, 30)
        assert torch.equal(images.as_subclass(torch.Tensor), sal.load_images(two_coloured).as_subclass(torch.Tensor))

    def test_animation_gives_its_first_frame(self, two_coloured, tmp_path):
        other = Image.new("RGB", two_coloured.size, (0, 255, 0))
        assert is_upright(loaded(saved(two_coloured, tmp_path / "a.gif", save_all=True, append_images=[other, other])))

    def test_cmyk(self, two_coloured, tmp_path):
        images = loaded(saved(two_coloured.convert("CMYK"), tmp_path / "a.jpg", quality=95))
        assert is_upright(images, 0.05)

    @pytest.mark.parametrize("brightest", [60000, 200])
    def test_16_bits_keep_their_brightness(self, tmp_path, brightest):
        ramp = np.linspace(0, brightest, 30, dtype=np.uint16)[None].repeat(20, 0)
        images = loaded(saved(Image.fromarray(ramp), tmp_path / "a.png"))
        assert images.shape == (1, 3, 20, 30)
        assert math.isclose(images.max().item(), brightest / 65535, abs_tol=1 / 255)

    def test_palette_with_a_transparent_colour(self, two_coloured, tmp_path):
        palette = two_coloured.quantize(4)
        images = loaded(saved(palette, tmp_path / "a.png", transparency=palette.getpixel((5, 15))))
        assert torch.allclose(images[0, :, 5, 5], torch.tensor(RED) / 255, atol=0.02)
        assert torch.equal(images[0, :, 15, 5], torch.ones(3))

    def test_alpha_is_laid_on_white(self, two_coloured, tmp_path):
        two_coloured.putalpha(Image.fromarray(np.repeat([[255], [0]], 10, 0).repeat(30, 1).astype(np.uint8)))
        images = loaded(saved(two_coloured, tmp_path / "a.png"))
        assert torch.allclose(images[0, :, 5, 5], torch.tensor(RED) / 255)
        assert torch.equal(images[0, :, 15, 5], torch.ones(3))

    @pytest.mark.parametrize("mode", ["L", "1", "LA"])
    def test_grey(self, two_coloured, tmp_path, mode):
        images = loaded(saved(two_coloured.convert("L").convert(mode), tmp_path / "a.png"))
        assert images.shape == (1, 3, 20, 30)
        assert torch.equal(images[:, 0], images[:, 1])

    def test_other_sources(self, two_coloured):
        file = io.BytesIO()
        two_coloured.save(file, "PNG")
        array = np.asarray(two_coloured)
        file.seek(0)
        same = [loaded(source) for source in (two_coloured, array, array / 255.0, file.getvalue(), bytearray(file.getvalue()), file)]
        assert all(torch.equal(same[0].as_subclass(torch.Tensor), each.as_subclass(torch.Tensor)) for each in same)
        assert loaded([array, two_coloured]).names == ["image 1", "image 2"]

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_floats_that_are_no_numbers_are_refused(self, tmp_path, value):
        """With one of them a float TIFF in [0, 1] was black, with a warning of NumPy's."""
        values = np.full((20, 30), 0.5, dtype=np.float32)
        values[3, 4] = value
        Image.fromarray(values).save(tmp_path / "a.tif")
        with pytest.raises(sal.InputError) as caught:
            sal.load_images(tmp_path / "a.tif")
        assert str(caught.value) == f"{tmp_path}/a.tif has pixels that are NaN or infinite: give them a number between 0 and 1 first."

    def test_floats_from_0_to_1_keep_their_brightness(self, tmp_path):
        """A float TIFF in [0, 1] was taken for one from 0 to 255, and was black."""
        values = np.linspace(0, 1, 600, dtype=np.float32).reshape(20, 30)
        images = loaded(saved(Image.fromarray(values), tmp_path / "a.tif"))
        assert np.allclose(images[0, 0].numpy(), values, atol=0.003)
        wide = loaded(saved(Image.fromarray(values * 255), tmp_path / "b.tif"))
        assert np.allclose(wide[0, 0].numpy(), values, atol=0.003)

    def test_a_grey_model_gets_one_channel(self, two_coloured, grey):
        assert sal.load_images(two_coloured, grey).shape == (1, 1, 20, 30)


class TestRefused:
    def refusal(self, source, model=None, **options):
        with pytest.raises(sal.InputError) as caught:
            sal.load_images(source, model, **options)
        return str(caught.value)

    def test_missing(self, tmp_path):
        path = tmp_path / "a.png"
        assert self.refusal(path) == f"{path} does not exist: check the path."

    def test_directory(self, tmp_path):
        assert self.refusal(tmp_path) == f"{tmp_path} is a directory: give image files, for example {tmp_path / '*.jpg'}."

    @pytest.mark.parametrize(("content", "fault"), [(b"", "is empty"), (b"not a picture", "is not an image that can be read")])
    def test_no_image(self, tmp_path, content, fault):
        path = tmp_path / "a.png"
        path.write_bytes(content)
        assert self.refusal(path) == f"{path} {fault}: give a JPEG, PNG or similar file."

    @pytest.mark.parametrize("name", ["rocket.jpg", "chelsea.png"])
    def test_truncated(self, tmp_path, name):
        path, whole = tmp_path / name, (PHOTOGRAPHS / name).read_bytes()
        path.write_bytes(whole[: len(whole) // 3])
        with Image.open(path) as picture:
            assert re.fullmatch(r"The picture given is damaged or cut off \(.+\): get a whole copy of the file\.", self.refusal(picture))
        assert re.fullmatch(rf"{re.escape(str(path))} is damaged or cut off \(.+\): get a whole copy of the file\.", self.refusal(path))

    @pytest.mark.parametrize("factor", [1.5, 3])
    def test_decompression_bomb(self, two_coloured, tmp_path, monkeypatch, factor):
        path = saved(two_coloured, tmp_path / "a.png")
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", int(600 / factor))
        assert self.refusal(path) == f"{path} has more than {int(600 / factor)} pixels, more than is safe to decode: shrink it first."

    def test_nothing_and_nonsense(self):
        assert self.refusal([]) == "There are no images: give at least one file."
        assert self.refusal(3) == "An image is a path, an open file, bytes, a PIL image or a NumPy array, not int."
        assert self.refusal(torch.zeros(1, 3, 4, 4)).endswith("needs no loading, or give each image as .permute(1, 2, 0).numpy().")
        assert re.fullmatch(r"x{300}\.png cannot be a file \(.+\): check the path\.", self.refusal("x" * 300 + ".png"))
        assert self.refusal(np.zeros((4, 4, 2), np.uint8)) == "An image array is (h, w), (h, w, 3) or (h, w, 4), not (4, 4, 2)."
        assert self.refusal(np.zeros((3, 4, 5), np.uint8)).endswith("not (3, 4, 5): put the channels last, array.transpose(1, 2, 0).")
        assert self.refusal(np.zeros((2, 4, 5, 3), np.uint8)).endswith("not (2, 4, 5, 3): give several as a list, list(arrays).")
        assert self.refusal(np.full((4, 4), 7.0)) == "An image array holds uint8, or floats in [0, 1]; this one is float64 from 7.0 to 7.0."

    def test_unknown_fit(self, two_coloured):
        assert self.refusal(two_coloured, fit="corp") == "Unknown fit 'corp': did you mean crop?"

    def test_different_sizes_without_a_size_to_bring_them_to(self, two_coloured):
        said = "The images have different sizes (30x20, 20x20) and the model takes any: load them one by one, or give a model with a size."
        assert self.refusal([two_coloured, two_coloured.resize((20, 20))]) == said


class TestGeometry:
    @pytest.mark.parametrize("fit", ["crop", "squash", "pad"])
    @pytest.mark.parametrize("picture", [(300, 451), (451, 300), (40, 37)])
    def test_a_mask_comes_back_to_its_place(self, fit, picture):
        """A blurred disc drawn in the picture, seen by the model, carried back: where it was."""
        model = sal.Model(torch.nn.Flatten(), size=(96, 128))
        rows, columns = np.mgrid[: picture[0], : picture[1]]
        centre = (picture[0] * 0.45, picture[1] * 0.53)
        disc = np.exp(-((rows + 0.5 - centre[0]) ** 2 + (columns + 0.5 - centre[1]) ** 2) / (2 * (min(picture) / 12) ** 2))
        images = sal.load_images(disc, model, fit=fit)
        assert images.shape == (1, 3, 96, 128)
        back = images.geometry[0].to_original(images.as_subclass(torch.Tensor)[:, :1])[0, 0].numpy()
        assert back.shape == picture
        assert abs(back - disc).max() < 0.06
        found = [(back * axis).sum() / back.sum() + 0.5 for axis in (rows, columns)]
        assert np.allclose(found, centre, atol=0.02 * max(picture))

    @pytest.mark.parametrize(("fit", "whole"), [("crop", False), ("squash", True), ("pad", True)])
    def test_what_the_model_saw(self, fit, whole):
        model = sal.Model(torch.nn.Flatten(), size=32)
        geometry = sal.load_images(np.zeros((60, 100, 3), np.uint8), model, fit=fit).geometry[0]
        seen = geometry.to_original(torch.ones(1, 1, 32, 32))[0, 0] > 0.5
        assert bool(seen.all()) == whole
        if fit == "crop":
            assert seen.sum() == round(60 * 0.875) ** 2
            assert seen[30, 50]

    def test_at_another_size(self):
        geometry = Geometry((60, 100), (30, 50), (0.0, 0.0, 60.0, 100.0))
        ramp = torch.arange(50.0).expand(1, 1, 30, 50)
        assert torch.allclose(geometry.to_original(ramp, (30, 50)), ramp, atol=1e-4)

    def test_slices_keep_what_belongs_to_them(self):
        images = sal.load_images([PHOTOGRAPHS / "chelsea.png", PHOTOGRAPHS / "coffee.png"], sal.Model(torch.nn.Flatten(), size=32))
        second = images[1:]
        assert isinstance(second, Photographs)
        assert second.names == [str(PHOTOGRAPHS / "coffee.png")]
        assert second.geometry[0].original == (400, 600)
        assert type(images[0]) is torch.Tensor
        assert type(images * 2) is torch.Tensor
