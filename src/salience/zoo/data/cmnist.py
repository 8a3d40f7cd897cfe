"""CMNIST: digits on photographs."""

from functools import cached_property
from typing import Literal

import numpy as np
from PIL import Image, ImageFilter

from salience.core.draws import Stream, streams
from salience.core.options import option
from salience.core.registry import register
from salience.zoo.data.cifar10 import CIFAR10
from salience.zoo.data.mnist import MNIST
from salience.zoo.datasets import Dataset, Item

SIDE, DIGIT, ANGLE, NEAR = 32, 16, 15.0, 3
INK = 64
"""A pixel of the resized digit (0 to 255) with at least this much ink belongs to it."""


@register("dataset", "cmnist", cites="Bykov et al. 2022")
class CMNIST(Dataset):
    """MNIST digits on CIFAR-10 photographs: a task where the object, and nothing else, tells the class.

    A digit is resized to 16 x 16, rotated by U(-15, 15) degrees, and laid in white on a uniformly drawn photograph of the same
    split; then each image gets Gaussian noise of its own sd, U(0, noise). Label and mask are the digit's. Every draw is
    keyed by seed, split, item and what is drawn, so no option changes another's draws.

    Source: "NoiseGrad and FusionGrad" (2022), data sets, and its appendix.

    Differs from the source: place, way of laying on, amount of noise and interpolation (bilinear) are not given
    there (with ``paste=max`` and noise of 0.1 a digit can be lost in a bright photograph, and the accuracies published for its networks
    are out of reach); a digit's pixels are those with a quarter of full ink; nothing is normalised here, models do that.
    """

    root: str = option("", "the folder that holds MNIST, and CIFAR-10 too unless cifar says where")
    cifar: str | None = option(None, "the folder that holds CIFAR-10; none: root")
    split: Literal["test", "train"] = option("test", "test or train")
    seed: int = option(0, "seed of all that is drawn")
    position: Literal["centre", "random"] = option("centre", "where the digit lies: centre or random")
    paste: Literal["max", "alpha"] = option("alpha", "how it is laid on: alpha (ink covers) or max (the brighter of both)")
    noise: float = option(0.02, "largest sd of an image's noise, in [0, 1] units", at_least=0)
    mask: Literal["box", "digit", "near"] = option("box", "what counts as the object: box (16 x 16), digit (its pixels) or near (those and 3 more each way)")

    @cached_property
    def _sources(self) -> tuple[MNIST, CIFAR10, Stream]:
        parts = MNIST(self.root, self.split), CIFAR10(self.root if self.cifar is None else self.cifar, self.split)
        return *parts, streams(self.seed, 1)[0].at("cmnist", self.split)

    @property
    def classes(self) -> list[str]:
        """The ten digits."""
        return self._sources[0].classes

    def size(self) -> int:
        """One for each digit of the split."""
        return self._sources[0].size()

    def item(self, place: int) -> Item:
        """A picture as a uint8 array (32, 32, 3), made from digit number `place`."""
        digits, photographs, stream = self._sources
        digit = digits.item(place)
        background = photographs.item(int(stream.generator(place, "background").integers(photographs.size()))).picture / 255
        resized = Image.fromarray(digit.picture).resize((DIGIT, DIGIT), Image.Resampling.BILINEAR)
        turned = np.asarray(resized.rotate(stream.generator(place, "angle").uniform(-ANGLE, ANGLE), Image.Resampling.BILINEAR))
        corner = ((SIDE - DIGIT) // 2,) * 2 if self.position == "centre" else stream.generator(place, "position").integers(0, SIDE - DIGIT, 2, endpoint=True)
        area = tuple(slice(int(start), int(start) + DIGIT) for start in corner)
        ink, box = np.zeros((SIDE, SIDE), np.uint8), np.zeros((SIDE, SIDE), bool)
        ink[area], box[area] = turned, True
        alpha = ink[..., None] / 255
        laid = np.maximum(background, alpha) if self.paste == "max" else alpha + (1 - alpha) * background
        sd = self.noise * stream.generator(place, "sd").random()
        noisy = laid + sd * stream.generator(place, "noise").standard_normal(laid.shape)
        mask = box if self.mask == "box" else _digit(ink >= INK, NEAR if self.mask == "near" else 0)
        return Item(digit.name, (np.clip(noisy, 0, 1) * 255).round().astype(np.uint8), digit.labels, {digit.labels[0]: mask})


def _digit(pixels: np.ndarray, more: int) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels.astype(np.uint8)).filter(ImageFilter.MaxFilter(2 * more + 1))) != 0
