"""Photographs from files, upright and in [0, 1], with the way back to the original picture."""

import io
import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from salience.core.classifier import Classifier
from salience.core.errors import InputError, unknown
from salience.core.geometry import Geometry

FITS = ("crop", "squash", "pad")
WHITE = (255, 255, 255)
SINGLE = (str, bytes, bytearray, memoryview, os.PathLike, np.ndarray, Image.Image, Tensor)
"""What can be iterated over and is one picture all the same."""


class Photographs(Tensor):
    """A tensor (n, c, h, w) that knows where its images came from; what is computed from it is a plain tensor.

    Attributes:
        names: A name for each image.
        geometry: The `Geometry` of each image.
        pictures: The original pictures.
    """

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]  # torch's own way to say so

    names: list[str] = None  # type: ignore[assignment]  # earlier versions of torch have a property of this name, which this hides
    geometry: list[Geometry]
    pictures: list[Image.Image]

    @classmethod
    def of(cls, tensor: Tensor, names: Sequence[str], geometry: Sequence[Geometry], pictures: Sequence[Image.Image]) -> "Photographs":
        """Attach names, geometry and pictures to a tensor."""
        photographs = tensor.as_subclass(cls)
        photographs.names, photographs.geometry, photographs.pictures = list(names), list(geometry), list(pictures)
        return photographs

    def __getitem__(self, index: Any) -> Tensor:
        """A slice keeps what belongs to it; anything else gives a plain tensor."""
        found = self.as_subclass(Tensor)[index]
        if isinstance(index, slice):
            return Photographs.of(found, self.names[index], self.geometry[index], self.pictures[index])
        return found

    def __deepcopy__(self, memo: dict) -> "Photographs":
        """A copy of the values; the original pictures are shared."""
        return Photographs.of(self.as_subclass(Tensor).clone(), self.names, self.geometry, self.pictures)

    def __reduce_ex__(self, protocol: Any) -> tuple:
        """For pickles: to other processes and caches of one's own; files are written by `Explanation.save`."""
        return Photographs.of, (self.as_subclass(Tensor), self.names, self.geometry, self.pictures)


def load_images(paths: Any, model: Classifier | None = None, fit: str | None = None) -> Photographs:
    """Photographs as the model takes them: float32 (n, c, h, w) in [0, 1], RGB, upright.

    EXIF rotation is applied; grey, palette, CMYK, 16-bit and float pictures become 8-bit RGB; transparency is
    laid on white; of an animation the first frame is taken.

    Args:
        paths: One or several of: path, open file, encoded bytes, PIL image, NumPy array (h, w), (h, w, 3) or (h, w, 4) of
            uint8 or of floats in [0, 1].
        model: Gives size, channels and its own `fit`; without it pictures keep their size.
        fit: ``crop`` (resize the shorter side, cut the centre), ``squash`` (ignore the aspect ratio) or
            ``pad`` (whole picture, padded with the model's mean colour).

    Returns:
        A tensor that also has ``names``, ``geometry`` and the original ``pictures``.

    Raises:
        InputError: If a picture cannot be read, or sizes differ and no model says what to bring them to.
    """
    if model is not None and not isinstance(model, Classifier):
        raise InputError(f"load_images takes the model itself, not {type(model).__name__}: give sal.load_model(name) or sal.Model(module).")
    several = list(paths) if isinstance(paths, Iterable) and not (isinstance(paths, SINGLE) or hasattr(paths, "read")) else [paths]
    if not several:
        raise InputError("There are no images: give at least one file.")
    fit = fit or (model.fit if model is not None else "crop")
    if fit not in FITS:
        raise unknown("fit", fit, FITS)
    pictures = [_picture(each) for each in several]
    names = [_name(each, number) for number, each in enumerate(several)]
    fitted = [_fitted(picture, model, fit) for picture in pictures]
    if len({tensor.shape for tensor, _ in fitted}) > 1:
        sizes = ", ".join(f"{picture.width}x{picture.height}" for picture in pictures)
        raise InputError(f"The images have different sizes ({sizes}) and the model takes any: load them one by one, or give a model with a size.")
    return Photographs.of(torch.stack([tensor for tensor, _ in fitted]), names, [geometry for _, geometry in fitted], pictures)


def _name(source: Any, number: int) -> str:
    return os.fspath(source) if isinstance(source, str | os.PathLike) else f"image {number + 1}"


def check_path(path: str | os.PathLike) -> None:
    """Refuse a path that is not a file, without opening it.

    Raises:
        InputError: If it is a directory, or is not there.
    """
    what, place = os.fspath(path), Path(path)
    try:
        if place.is_dir():
            raise InputError(f"{what} is a directory: give image files, for example {place / '*.jpg'}.")
        if not place.exists():
            raise InputError(f"{what} does not exist: check the path.")
    except OSError as error:  # a name that no file system takes
        raise InputError(f"{what} cannot be a file ({error.strerror}): check the path.") from error


def _picture(source: Any) -> Image.Image:
    """Any source as an upright 8-bit RGB picture."""
    if isinstance(source, np.ndarray):
        return _flat(_from_array(source), "The array")
    if isinstance(source, Tensor):
        raise InputError(
            "An image is a path, an open file, bytes, a PIL image or a NumPy array: a tensor (n, c, h, w) in [0, 1] of the model's size needs no loading, or give each image as .permute(1, 2, 0).numpy()."
        )
    if hasattr(source, "read"):
        source = source.read()
    if isinstance(source, bytearray | memoryview):
        source = bytes(source)
    if not isinstance(source, str | bytes | os.PathLike | Image.Image):
        raise InputError(f"An image is a path, an open file, bytes, a PIL image or a NumPy array, not {type(source).__name__}.")
    what = "The bytes given" if isinstance(source, bytes) else "The picture given" if isinstance(source, Image.Image) else os.fspath(source)
    if isinstance(source, str | os.PathLike):
        check_path(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
            if isinstance(source, Image.Image):
                return _flat(source, what)  # which reads it, if nobody has
            with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as opened:
                opened.load()
                return _flat(opened, what)
    except InputError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(f"{what} has more than {Image.MAX_IMAGE_PIXELS} pixels, more than is safe to decode: shrink it first.") from error
    except UnidentifiedImageError as error:
        empty = len(source) == 0 if isinstance(source, bytes) else isinstance(source, str | os.PathLike) and Path(source).stat().st_size == 0
        raise InputError(f"{what} {'is empty' if empty else 'is not an image that can be read'}: give a JPEG, PNG or similar file.") from error
    except PermissionError as error:
        raise InputError(f"{what} may not be read: check its permissions.") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise InputError(f"{what} is damaged or cut off ({error}): get a whole copy of the file.") from error


def _flat(picture: Image.Image, what: str) -> Image.Image:
    """Upright, 8 bits, RGB, no transparency; `what` it is for the message."""
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I") or picture.mode == "F":
        values = np.asarray(picture, dtype=np.float64)
        if not np.isfinite(values).all():
            raise InputError(f"{what} has pixels that are NaN or infinite: give them a number between 0 and 1 first.")
        high = 65535.0 if picture.mode.startswith("I;16") or values.max() > 255 else 1.0 if picture.mode == "F" and values.max() <= 1 else 255.0
        picture = Image.fromarray(np.clip(values / high * 255, 0, 255).round().astype(np.uint8))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, (*WHITE, 255)), picture).convert("RGB")
    return picture.convert("RGB") if picture.mode != "RGB" else picture.copy()


def _from_array(array: np.ndarray) -> Image.Image:
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)) or array.size == 0:
        hint = ": put the channels last, array.transpose(1, 2, 0)" if array.ndim == 3 and array.shape[0] in (1, 3) else ": give several as a list, list(arrays)" if array.ndim == 4 else ""
        raise InputError(f"An image array is (h, w), (h, w, 3) or (h, w, 4), not {array.shape}{hint}.")
    if array.dtype != np.uint8:
        if not np.issubdtype(array.dtype, np.floating) or not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
            raise InputError(f"An image array holds uint8, or floats in [0, 1]; this one is {array.dtype} from {array.min()} to {array.max()}.")
        array = (array * 255).round().astype(np.uint8)
    return Image.fromarray(array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array)


def _fitted(picture: Image.Image, model: Classifier | None, fit: str) -> tuple[Tensor, Geometry]:
    """The picture at the model's size, and where its pixels came from."""
    whole = (0.0, 0.0, float(picture.height), float(picture.width))
    height, width = size = model.size if model is not None and model.size is not None else (picture.height, picture.width)
    if model is None or model.size is None or fit == "squash":
        box = whole
    else:
        share = model.crop_fraction if fit == "crop" else 1.0
        ratios = (picture.height / height, picture.width / width)
        scale = share * (min(ratios) if fit == "crop" else max(ratios))
        top, left = (picture.height - scale * height) / 2, (picture.width - scale * width) / 2
        box = (top, left, top + scale * height, left + scale * width)
    geometry = Geometry((picture.height, picture.width), size, box)
    canvas = picture
    top, left, bottom, right = box
    if model is not None and fit == "pad" and (top < 0 or left < 0):
        colour = tuple(round(255 * each) for each in model.mean_colour.tolist()) * (1 if model.channels_in == 3 else 3)
        above, beside = max(0, int(np.ceil(-top))), max(0, int(np.ceil(-left)))
        canvas = ImageOps.expand(picture, (beside, above, beside, above), fill=colour)
        top, left, bottom, right = top + above, left + beside, bottom + above, right + beside
    resized = canvas.resize((width, height), Image.Resampling.BICUBIC, box=(left, top, min(right, canvas.width), min(bottom, canvas.height)))
    if model is not None and model.channels_in == 1:
        resized = resized.convert("L")
    values = torch.from_numpy(np.array(resized, dtype=np.float32) / 255)
    return (values[None] if values.ndim == 2 else values.permute(2, 0, 1).contiguous()), geometry
