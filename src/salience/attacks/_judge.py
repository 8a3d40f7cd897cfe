"""What an attack is judged by: maps of the network itself, those aimed at, and whether a method's maps can be attacked at all."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from salience.core.classifier import Classifier
from salience.core.draws import Stream
from salience.core.errors import InputError
from salience.core.explainer import Explainer, MonteCarlo, checked_images
from salience.core.explanation import Explanation
from salience.core.objective import shares
from salience.core.types import Images, Maps, PerImage, Saliency, Targets
from salience.similarities.cosine_distance import CosineDistance

HELD_OUT = 50
"""Draws of a random method, at least, for the figures that are reported."""


@dataclass(frozen=True)
class Judge:
    """The maps that are reported: those of the network itself, a random method's from draws held out.

    Attributes:
        view: The network, with the score bound.
        method: The explanation.
        targets: Class explained, (n,).
        streams: Where each image takes its randomness from.
        draws: Name of the draws: what chooses the best of several runs must not be what judges it.
    """

    view: Classifier
    method: Explainer
    targets: Targets
    streams: list[Stream]
    draws: str = "held out"

    def maps(self, images: Images) -> Maps:
        """The maps, on the images' device."""
        return with_draws(self.method).attribute(self.view, images.detach(), self.targets, [stream.at(self.draws) for stream in self.streams]).maps.detach().float()

    def chooser(self, part: slice) -> "Judge":
        """What chooses among runs of some of the images."""
        return dataclasses.replace(self, targets=self.targets[part], streams=self.streams[part], draws="choice")


def is_random(method: Explainer) -> bool:
    """Whether a method draws at random, itself or in its base."""
    return any(isinstance(each, MonteCarlo) for each in method.nested())


def with_draws(method: Explainer) -> Explainer:
    """The method with at least `HELD_OUT` independent draws, if it is random: its own, or those of what it wraps."""
    if isinstance(method, MonteCarlo):
        return dataclasses.replace(method, samples=max(method.samples, HELD_OUT)) if hasattr(method, "samples") else method  # type: ignore[call-arg]  # it has the field
    return method if method.wrapped is None else dataclasses.replace(method, base=with_draws(method.wrapped))  # type: ignore[call-arg]  # it has a base


def not_differentiable(method: Explainer) -> InputError:
    return InputError(
        f"The maps of {method} are not differentiable, so they cannot be attacked: take gradient, input_x_gradient, integrated_gradients, smoothgrad, uniformgrad, beta_smoothing or gradcam."
    )


def check_differentiable(method: Explainer) -> None:
    """Refuse what is known to use scores only; what else has no derivative shows when it is run."""
    for each in method.nested():
        if not each.facts.get("needs_gradient", True):
            raise not_differentiable(each)


def cosine_distance(first: Saliency, second: Saliency) -> PerImage:
    """The cosine distance of maps (n, h, w), as `CosineDistance` has it."""
    return CosineDistance().compare(first[:, None], second[:, None]).float()


def distances(maps: Maps, clean: Maps, aim: Saliency | None) -> dict[str, PerImage]:
    """Cosine distances of maps: to the ones before, and to the shares aimed at if there are any."""
    found = shares(maps)
    away = {"original": cosine_distance(found, shares(clean))}
    return away if aim is None else away | {"target": cosine_distance(found, aim)}


def map_aimed_at(toward: Any, method: Explainer, view: Classifier, images: Images, streams: list[Stream]) -> Saliency:
    """The shares of the map aimed at, one an image; of other images that of their predicted classes.

    Raises:
        InputError: If what is given is no map of the images' size, and no image.
    """
    if isinstance(toward, np.ndarray):
        toward = torch.from_numpy(toward.copy())
    if not isinstance(toward, Tensor | Explanation):
        raise InputError(f"toward is images, maps or an Explanation, not {type(toward).__name__}: a file is read by sal.load_images([path], model).")
    if isinstance(toward, Tensor) and toward.ndim == 3 and len(toward) == view.channels_in > 1:
        raise InputError(f"toward has shape {tuple(toward.shape)}, which may be one image or {len(toward)} maps: give an image as (1, c, h, w), maps as (n, 1, h, w).")
    if isinstance(toward, Explanation):
        maps = toward.maps
    elif isinstance(toward, Tensor) and toward.ndim == 4 and toward.shape[1] == view.channels_in and (toward.shape[1] > 1 or toward.min() >= 0):
        others = checked_images(toward, view).clone()  # what was made in inference mode has no gradient
        if len(others) == 1 and is_random(method) and len(set(streams)) > 1:
            others = others.expand(len(images), -1, -1, -1)  # each image's aim has its own draws, as it has alone
        maps = Judge(view, method, view.outputs(others).argmax(1), [*streams, *streams[:1] * len(others)][: len(others)], draws="aim").maps(others)
    else:
        maps = torch.as_tensor(toward).float()
    maps = maps[:, None] if maps.ndim == 3 else maps
    if maps.ndim != 4 or len(maps) not in (1, len(images)) or maps.shape[-2:] != images.shape[-2:] or not torch.isfinite(maps).all() or not maps.any():
        raise InputError(f"The map to aim at has shape {tuple(maps.shape)}: give one map, or one an image, of {images.shape[-2]} x {images.shape[-1]} pixels, finite and not all 0.")
    return shares(maps).to(images).expand(len(images), -1, -1)
