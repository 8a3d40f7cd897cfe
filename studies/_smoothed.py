"""What the studies of "Smoothed explanations" (2022) share: its methods and constants, networks and pictures, and which networks survive beta-smoothing."""

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

import salience as sal
from _common import required
from models import data_file, data_folder

LEVEL = 0.2
"""The paper's noise, in shares of the range of the normalised image (its scripts; 0.1 in those for CIFAR-10)."""

SAMPLES = 10
"""The paper's draws of noise (its scripts)."""

BETA = 0.8
"""The paper's beta. Where it destroys the network, beta 10 is taken instead."""

GRADIENT, SMOOTH, UNIFORM, BETA_SMOOTHING = "Gradient", "Smooth Gradient", "Uniform Gradient", "beta-smoothing"
EQUAL, RELATIVE = "Uniform Gradient, same sd as Smooth", "beta-smoothing, relative beta 10"


@dataclass(frozen=True)
class Setting:
    """A network, its pictures, and the paper's constants in our units.

    Attributes:
        title: Heading of its column.
        folder: Name of its folder of rows.
        model: Name for `load_model`.
        data: What `Study` takes as ``data``, without targets.
        noise_level: Of the paper's noise, in shares of the range of the image in [0, 1].
        beta: Of beta-smoothing.
        times: Pictures are `times` what --limit says.
    """

    title: str
    folder: str
    model: str
    data: dict[str, Any]
    noise_level: float
    beta: float
    times: int = 1

    def given(self, given: argparse.Namespace) -> argparse.Namespace:
        """The script's options with this setting's own limit."""
        return argparse.Namespace(**(vars(given) | {"limit": None if given.limit is None else given.limit * self.times}))

    def methods(self, *, absolute: bool, same_sd: bool = True) -> dict[str, str]:
        """Specifications by the paper's names, and two that the paper does not have.

        Args:
            absolute: Take absolute values before averaging, as the paper does for cascades and Gini.
            same_sd: Also uniform noise of the sd of the Gaussian noise.
        """
        options = f"samples={SAMPLES}" + (",absolute=true" if absolute else "")
        found = {
            GRADIENT: "gradient",
            SMOOTH: f"smoothgrad:{options},noise_level={self.noise_level}",
            UNIFORM: f"uniformgrad:{options},noise_level={self.noise_level}",
            EQUAL: f"uniformgrad:{options},noise_level={round(self.noise_level * math.sqrt(3), 4)}",
            BETA_SMOOTHING: f"beta_smoothing:beta={self.beta}",
            RELATIVE: "beta_smoothing:beta=10,relative=true",
        }
        return {title: str(sal.Explainer.from_value(text)) for title, text in found.items() if same_sd or title != EQUAL}

    def kept(self, method: str, given: argparse.Namespace) -> np.ndarray:
        """For each picture whether a method's changed network keeps the class, (images,) of 0 and 1."""
        model = sal.load_model(self.model)
        return np.array([kept for images in self.images(model, given) for kept in sal.explain(method, model, images).record["images"]["class_kept"]])

    def images(self, model: sal.Classifier, given: argparse.Namespace, together: int = 8) -> Iterator[Tensor]:
        """The pictures of the study in their order, some at a time."""
        options = {key: value for key, value in self.data.items() if key != "dataset"}
        data = sal.load_dataset(self.data["dataset"], **options)
        limit = self.given(given).limit
        count = len(data) if limit is None else min(len(data), limit)
        for start in range(0, count, together):
            yield sal.load_images([data[place].picture for place in range(start, min(start + together, count))], model)


def noise_level(model: sal.Model, level: float) -> float:
    """The paper's noise level in our units.

    It is a share of the range of the normalised image, ours of the image in [0, 1]. Normalising moves the channels
    apart: of a picture from black to white in every channel the range becomes max((1 - mean) / std) + max(mean / std), and a unit of
    it is std in [0, 1]; so the level is multiplied by that range and the mean std.
    """
    mean, std = (each.flatten() / model.value_range for each in (model.mean, model.std))
    return round(level * float(((1 - mean) / std).max() + (mean / std).max()) * float(std.mean()), 4)


def settings(given: argparse.Namespace, *, default_model: bool = False, rectified: bool = True) -> list[Setting]:
    """Where the paper's experiments are repeated.

    Args:
        given: The script's options.
        default_model: Also the default model, on which only a large beta works.
        rectified: SqueezeNet as it is; else without the ReLU after its scores.
    """
    if given.full:
        root = required(data_folder() / "imagenet" / "val", "SALIENCE_DATA (the folder that holds imagenet/val)", "ImageNet, one folder a class,")
        data = {"dataset": "imagenet", "root": str(root), "labels": "imagenet", "shuffle": 0}
        return [_setting("VGG-16, ImageNet", "vgg16", "torchvision:vgg16", data, LEVEL, BETA)]
    photographs = {"dataset": "folder", "root": str(data_file("imagenet_photos", "labels.csv").parent), "labels": "labels.csv", "shuffle": 0}
    small = {"dataset": "cifar10", "root": str(data_file("cifar10_lossless4000_train.npz")), "split": "train", "shuffle": 0}
    ending = "" if rectified else "_unrectified"
    found = [
        _setting("SqueezeNet, photographs", f"squeezenet{ending}", f"python:models:squeezenet{ending}", photographs, LEVEL, BETA),
        _setting("ResNet-20, CIFAR-10", "resnet20", "python:models:resnet20", small, LEVEL / 2, 10.0, times=5),
    ]
    return found + ([_setting("EfficientNet-Lite0, photographs", "efficientnet-lite0", "efficientnet-lite0", photographs, LEVEL, 10.0)] if default_model else [])


def _setting(title: str, folder: str, model: str, data: dict[str, Any], level: float, beta: float, times: int = 1) -> Setting:
    network = sal.load_model(model)
    assert isinstance(network, sal.Model)
    return Setting(title, folder, model, data, noise_level(network, level), beta, times)


def only_kept(setting: Setting, found: dict[str, np.ndarray], given: argparse.Namespace, *, absolute: bool) -> tuple[dict[str, np.ndarray], str]:
    """Values without those of beta-smoothing on pictures whose class it lost: they are of another network.

    Args:
        setting: The network and its pictures.
        found: Values (images, seeds) by method.
        given: The script's options.
        absolute: As in `Setting.methods`.

    Returns:
        The values, NaN where the class was lost; and a sentence for the results.
    """
    methods, found, shares = setting.methods(absolute=absolute), dict(found), []
    for title in (BETA_SMOOTHING, RELATIVE):
        kept = setting.kept(methods[title], given)
        found[title] = np.where(kept[:, None] > 0, found[title], np.nan)
        shares.append(f"{title} (`{methods[title]}`) {kept.mean():.0%} of {len(kept)} pictures")
    return found, f"{setting.title}: the class is kept by {' and by '.join(shares)}; the others do not count."


def constants(found: list[Setting]) -> str:
    """How the paper's constants became ours, for the results."""
    parts = [f"{each.title}: noise level {each.noise_level}, beta {each.beta:g}" for each in found]
    return (
        f"The paper's noise is {LEVEL} (CIFAR-10: {LEVEL / 2}) of the range of the normalised image; here it is a share of the range of the image in [0, 1], converted for each network; "
        f"{SAMPLES} draws. The paper's beta is {BETA}; where it destroys the network, 10 is taken. A beta has no scale of its own: 0.8 smooths the less the larger a "
        f"network's activations are (SqueezeNet takes pictures from 0 to 255), so '{RELATIVE}' is shown too, beta in units of 1 / sd of each layer's inputs; how many pictures keep their class is said below. {'; '.join(parts)}."
    )
