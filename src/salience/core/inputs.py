"""Checks of what callers give: images, targets, maps and masks. What cannot be used gets one sentence that says what to do."""

import hashlib
import numbers
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from salience.core.classifier import Classifier
from salience.core.errors import InputError, UndefinedError, nth
from salience.core.geometry import Geometry
from salience.core.types import Images, Maps

Target = Any
"""Class indices or names: one for all images, one each, or None for the predicted classes."""


def hash_of(image: Tensor) -> str:
    """SHA-256 of an image's pixels, float32."""
    return hashlib.sha256(image.cpu().contiguous().numpy().tobytes()).hexdigest()


def check_chunk(chunk: int | None) -> None:
    """Refuse a number of images in one pass that is not a whole number above 0.

    Raises:
        InputError: If it is not.
    """
    if chunk is not None and not (isinstance(chunk, numbers.Integral) and chunk >= 1):
        raise InputError(f"chunk must be a whole number of at least 1, not {chunk!r}.")


def checked_images(images: Any, model: Any) -> Images:
    """Images as every call takes them, on the model's device.

    Raises:
        InputError: If there is no model, or they are not float images in [0, 1] of its size and channels.
    """
    if not isinstance(model, Classifier):
        raise InputError(f"The model must be a sal.Model or sal.BlackBox, not {type(model).__name__}: wrap a network as sal.Model(module) and a function as sal.BlackBox(fn).")
    check_pictures(images)
    if images.shape[1] != model.channels_in:
        raise InputError(f"{model.name} takes images (n, {model.channels_in}, h, w), not {tuple(images.shape)}: {_to_channels(images, model.channels_in)}.")
    if model.size is not None and tuple(images.shape[-2:]) != tuple(model.size):
        raise InputError(
            f"{model.name} takes images of {model.size[0]} x {model.size[1]} pixels, not {images.shape[-2]} x {images.shape[-1]}: resize them, or let sal.load_images(paths, model) do it."
        )
    return images.detach().as_subclass(Tensor).to(model.device, torch.float32)


def check_pictures(images: Any) -> None:
    """Refuse images that no model could take.

    Raises:
        InputError: If they are not float images in [0, 1].
    """
    if not isinstance(images, Tensor) or not images.is_floating_point() or images.ndim != 4:
        got = f"{images.dtype} of shape {tuple(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
        raise InputError(f"images must be a float tensor (n, c, h, w) with values in [0, 1], not {got}: {_to_images(images)}.")
    if len(images) == 0:
        raise InputError("There are no images: give at least one.")
    if not torch.isfinite(images).all() or images.min() < -1e-3 or images.max() > 1 + 1e-3:
        raise InputError("images must lie in [0, 1]: divide those in 0 to 255 by 255, give others before normalisation (the model normalises), without NaN.")


def _to_images(given: Any) -> str:
    """How to make images of something that is none."""
    if isinstance(given, Tensor) and given.ndim == 3:
        return "give a single image as image[None]"
    if isinstance(given, Tensor) and given.ndim == 4:
        return "divide whole numbers by 255, images.float() / 255"
    if isinstance(given, list | tuple) and given and all(isinstance(each, Tensor) for each in given):
        return "put several into one tensor, torch.stack(images)"
    if not isinstance(given, np.ndarray):
        return "use sal.load_images(paths, model)"
    if given.ndim != 4:
        return "use sal.load_images(array, model)"
    return "use sal.load_images(list(arrays), model)" if given.shape[3] in (1, 3, 4) else "make one with torch.from_numpy"


def _to_channels(images: Tensor, wanted: int) -> str:
    """How to give images as many channels as the model takes."""
    if images.shape[3] == wanted:
        return "put the channels first, images.permute(0, 3, 1, 2)"
    return "repeat the grey one, images.expand(-1, 3, -1, -1)" if (images.shape[1], wanted) == (1, 3) else "let sal.load_images(paths, model) make them"


def target_indices(targets: Target, outputs: Tensor, model: Classifier) -> Tensor:
    """Targets in any form as class indices (n,); None takes the predicted classes.

    Raises:
        InputError: If there are too many or too few, or one is unknown.
    """
    if targets is None:
        return outputs.argmax(1)
    if isinstance(targets, Tensor | np.ndarray):
        if targets.ndim > 1:
            raise InputError(f"targets are one class an image, not an array of shape {tuple(targets.shape)}: maps and masks have places of their own (maps=, masks=).")
        targets = targets.tolist()
    listed = list(targets) if isinstance(targets, Iterable) and not isinstance(targets, str) else [targets] * len(outputs)
    if len(listed) != len(outputs):
        raise InputError(f"{len(listed)} targets were given for {len(outputs)} images: give one, or one per image.")
    return torch.tensor([model.class_index(each, outputs.shape[1]) for each in listed])


def real_tensor(value: Any, wanted: str) -> Tensor:
    """A tensor, an array or what NumPy makes an array of, as a plain tensor: float64 if it was, else float32.

    Args:
        value: What was given.
        wanted: The beginning of the message, for example ``"maps must be a tensor or an array"``.

    Raises:
        InputError: If it is not made of real numbers.
    """
    try:
        found = value.as_subclass(Tensor).detach() if isinstance(value, Tensor) else np.array(value)  # a copy: arrays may be read-only or flipped
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"{wanted} of real numbers, not {type(value).__name__}.") from None
    if isinstance(found, Tensor):
        if found.is_complex():
            raise InputError(f"{wanted} of real numbers, not of {str(found.dtype).removeprefix('torch.')}.")
        return found if found.dtype == torch.float64 else found.float()
    if found.dtype.kind not in "biuf":
        raise InputError(f"{wanted} of real numbers, not of {found.dtype.name}." if found.ndim else f"{wanted}, not {type(value).__name__}.")
    return torch.from_numpy(found.astype(np.float64 if found.dtype.kind == "f" and found.dtype.itemsize >= 8 else np.float32, copy=False))


def checked_maps(maps: Any, images: Images) -> Maps:
    """Maps as metrics take them, (n, c, h, w) or (n, 1, h, w), on the images' device.

    Raises:
        InputError: If they are not real numbers of the images' size.
        UndefinedError: If one holds NaN or infinity.
    """
    maps = real_tensor(maps, "maps must be an Explanation, a tensor or an array")
    maps = maps.to(images.device, torch.float32 if images.device.type == "mps" else maps.dtype)  # mps has no float64
    maps = maps[:, None] if maps.ndim == 3 else maps
    if maps.ndim != 4 or len(maps) != len(images) or maps.shape[-2:] != images.shape[-2:] or maps.shape[1] not in (1, images.shape[1]):
        raise InputError(f"maps of shape {tuple(maps.shape)} do not fit images of shape {tuple(images.shape)}: give one map per image, (n, c, h, w), (n, 1, h, w) or (n, h, w).")
    check_defined(maps, "metric")
    return maps


def check_defined(maps: Maps, what: str) -> None:
    """Refuse maps of which a metric, or a similarity, would be NaN.

    Raises:
        UndefinedError: If one holds NaN or infinity.
    """
    bad = (~torch.isfinite(maps)).flatten(1).any(1).nonzero()
    if len(bad):
        raise UndefinedError(f"The map of {nth(int(bad[0]), len(maps))} holds NaN or infinity, so no {what} is defined for it.")


def checked_masks(masks: Any, images: Images, geometry: Sequence[Geometry] | None) -> list[Bool[Tensor, "_ _"]]:
    """One boolean mask an image, in the size of the original picture or of the input, on the CPU.

    Raises:
        InputError: If there are not as many as images, or one is neither a mask of such a size nor boxes.
    """
    try:
        masks = list(masks)
    except TypeError:
        raise InputError(f"masks must be a list, a tensor or an array with one mask per image, not {type(masks).__name__}.") from None
    if len(masks) != len(images):
        raise InputError(f"{len(masks)} masks were given for {len(images)} images: give one per image.")
    found = []
    for number, each in enumerate(masks):
        mask = real_tensor(each, f"The mask of {nth(number, len(masks))} must be a tensor or an array").cpu()
        sizes = {tuple(images.shape[-2:])} | ({geometry[number].original} if geometry is not None else set())
        yes_or_no = getattr(each, "dtype", None) in (torch.bool, np.bool_)
        if tuple(mask.shape) not in sizes and mask.ndim in (1, 2) and mask.shape[-1] == 4 and not yes_or_no:
            mask = _boxed(mask.reshape(-1, 4), (images.shape[-2], images.shape[-1]) if geometry is None else geometry[number].original, nth(number, len(masks)))
        if tuple(mask.shape) not in sizes:
            wanted = " or ".join(f"{height} x {width}" for height, width in sorted(sizes))
            raise InputError(f"The mask of {nth(number, len(masks))} has shape {tuple(mask.shape)}: it must be {wanted} pixels, as the image.")
        if mask.isnan().any():
            raise InputError(f"The mask of {nth(number, len(masks))} holds NaN: give 0 off the object and another number on it.")
        found.append(mask != 0)
    return found


def _boxed(boxes: Tensor, size: tuple[int, int], of: str) -> Tensor:
    """The mask (h, w) of what lies in any of some boxes (left, top, right, bottom), in pixels from 0; the right and bottom edges are not in it."""
    height, width = size
    left, top, right, bottom = boxes[:, :, None, None].unbind(1)
    if not ((left < right) & (top < bottom)).all():
        raise InputError(f"A box of {of} is empty: boxes are left, top, right, bottom, in pixels from 0, with left < right and top < bottom.")
    rows, columns = torch.arange(height)[:, None] + 0.5, torch.arange(width) + 0.5
    return ((left <= columns) & (columns < right) & (top <= rows) & (rows < bottom)).any(0)
