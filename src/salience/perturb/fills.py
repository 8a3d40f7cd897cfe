"""What replaces removed pixels, and the reference image of path methods: one set of names for both."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from salience.core.classifier import Classifier
from salience.core.types import Images
from salience.perturb.blur import gaussian_blur

Fill = Literal["mean", "black", "white", "grey", "blur"]


def _constant(value: float) -> Callable[[Classifier, Tensor], Tensor]:
    return lambda model, images: torch.full_like(images, value)


FILLS: dict[str, Callable[[Classifier, Tensor], Tensor]] = {
    "mean": lambda model, images: model.mean_colour.to(images)[None, :, None, None].expand_as(images),
    "black": _constant(0.0),
    "white": _constant(1.0),
    "grey": _constant(0.5),
    "blur": lambda model, images: gaussian_blur(images, 0.05 * min(images.shape[-2:])),
}


def filled(fill: Fill, model: Classifier, images: Images) -> Images:
    """The image that stands for "nothing there".

    Args:
        fill: ``mean`` (the model's mean colour, zero in its normalised space), ``black``, ``white``,
            ``grey``, or ``blur`` (the image itself, Gaussian blur with sd 5 % of the shorter side).
        model: Whose mean colour is used.
        images: (n, c, h, w).

    Returns:
        (n, c, h, w), perhaps an expanded view.
    """
    return FILLS[fill](model, images)
