"""What the studies of "Smoothed explanations" (2022) share: its methods and constants, networks and pictures, and which networks survive beta-smoothing."""

import argparse
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

import salience as sal
from _common import load, network, required
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

    def images(self, given: argparse.Namespace, together: int = 8) -> Iterator[Tensor]:
        """The pictures of the study in their order, some at a time."""
        data = load(self.data, limit=self.given(given).limit)
        for start in range(0, len(data), together):
            yield sal.load_images([data[place].picture for place in range(start, min(start + together, len(data)))], network(self.model))


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
        return [setting_of("VGG-16, ImageNet", "vgg16", "torchvision:vgg16", data, LEVEL, BETA)]
    photographs = {"dataset": "folder", "root": str(data_file("imagenet_photos", "labels.csv").parent), "labels": "labels.csv", "shuffle": 0}
    small = {"dataset": "cifar10", "root": str(data_file("cifar10_lossless4000_train.npz")), "split": "train", "shuffle": 0}
    ending = "" if rectified else "_unrectified"
    found = [
        setting_of("SqueezeNet, photographs", f"squeezenet{ending}", f"python:models:squeezenet{ending}", photographs, LEVEL, BETA),
        setting_of("ResNet-20, CIFAR-10", "resnet20", "python:models:resnet20", small, LEVEL / 2, 10.0, times=5),
    ]
    return found + ([setting_of("EfficientNet-Lite0, photographs", "efficientnet-lite0", "efficientnet-lite0", photographs, LEVEL, 10.0)] if default_model else [])


def setting_of(title: str, folder: str, model: str, data: dict[str, Any], level: float, beta: float, times: int = 1) -> Setting:
    """A setting with the paper's noise level in our units."""
    return Setting(title, folder, model, data, noise_level(network(model), level), beta, times)


def only_kept(setting: Setting, found: Iterable[dict[str, np.ndarray]], images: Iterable[Tensor]) -> str:
    """Take out the values of beta-smoothing on pictures whose class it lost: they are of another network.

    Args:
        setting: The network.
        found: Values (images, ...) by method; they become NaN where the class was lost.
        images: The pictures in their order, some at a time.

    Returns:
        A sentence for the results.
    """
    methods = setting.methods(absolute=False)
    kept: dict[str, list[float]] = {BETA_SMOOTHING: [], RELATIVE: []}
    for some in images:
        for title, each in kept.items():
            each.extend(sal.explain(methods[title], network(setting.model), some).record["images"]["class_kept"])
    for title, each in kept.items():
        for table in found:
            table[title][np.array(each) == 0] = np.nan
    shares = [f"{title} (`{methods[title]}`) {np.mean(each):.0%} of {len(each)} pictures" for title, each in kept.items()]
    return f"{setting.title}: the class is kept by {' and by '.join(shares)}; the others do not count."


def constants(found: list[Setting]) -> str:
    """How the paper's constants became ours, for the results."""
    parts = [f"{each.title}: noise level {each.noise_level}, beta {each.beta:g}" for each in found]
    return (
        f"The paper's noise is {LEVEL} (CIFAR-10: {LEVEL / 2}) of the range of the normalised image; here it is a share of the range of the image in [0, 1], converted for each network; "
        f"{SAMPLES} draws. The paper's beta is {BETA}; where it destroys the network, 10 is taken. A beta has no scale of its own: 0.8 smooths the less the larger a "
        f"network's activations are (SqueezeNet takes pictures from 0 to 255), so '{RELATIVE}' is shown too, beta in units of 1 / sd of each layer's inputs; how many pictures keep their class is said below. {'; '.join(parts)}."
    )
