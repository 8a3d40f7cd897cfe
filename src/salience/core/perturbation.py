"""What a perturbation of images is: a frozen set of options with `apply` and, if it moves pixels, `undo`."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from salience.core import registry
from salience.core.classifier import Classifier
from salience.core.draws import Seed, Stream, streams
from salience.core.explainer import Explainer
from salience.core.inputs import check_pictures
from salience.core.options import Options
from salience.core.types import Images, Maps, Targets


class Perturbation(Options):
    """Base of all perturbations. A perturbation is a frozen dataclass with a docstring and `apply`.

    One registered with ``geometric=True`` moves pixels: it is linear, draws nothing and defines `undo`. It is
    also applied to images outside [0, 1] (with noise added), so it does not clamp. All others clamp to [0, 1].
    """

    kind = "perturbation"
    expected = "A perturbation is a name such as 'gaussian_blur', or a perturbation such as sal.GaussianNoise(sigma=0.1)"

    def apply(self, images: Images, streams: Sequence[Stream]) -> Images:
        """The perturbed images.

        Args:
            images: (n, c, h, w) in [0, 1].
            streams: Where each image takes its randomness from: one draw an image.

        Returns:
            (n, c, h, w) in [0, 1].
        """
        raise NotImplementedError

    def against(self, explainer: Explainer, model: Classifier, images: Images, targets: Targets, streams: Sequence[Stream]) -> Images:
        """The perturbed images where the perturbation may look at the model and the method: only attacks do.

        Args:
            explainer: The method whose maps will be compared.
            model: With the score to explain bound to it.
            images: (n, c, h, w) in [0, 1].
            targets: Class explained, (n,).
            streams: Where each image takes its randomness from.
        """
        return self.apply(images, streams)

    def undo(self, maps: Maps) -> Maps:
        """Maps of the perturbed images in the geometry of the clean ones; 0 where there is none."""
        return maps

    def visible(self, size: tuple[int, int]) -> Bool[Tensor, "h w"]:
        """Which pixels of an image of that size exist in the perturbed one too."""
        return self.undo(torch.ones(1, 1, *size))[0, 0] > 0.999

    def inside(self, size: tuple[int, int]) -> Bool[Tensor, "h w"]:
        """Which pixels of the perturbed image come from within the clean one, of that size, rather than from its repeated edge."""
        return torch.ones(size, dtype=torch.bool)

    @property
    def geometric(self) -> bool:
        """Whether it moves pixels."""
        return bool(self.facts.get("geometric"))

    def __call__(self, images: Any, seed: Seed = 0) -> Images:
        """The perturbed images.

        Args:
            images: (n, c, h, w) in [0, 1].
            seed: One int for all images (they share their draw), or one an image.

        Raises:
            InputError: If they are not images in [0, 1].
        """
        check_pictures(images)
        return self.apply(images, streams(seed, len(images)))


def list_perturbations() -> list[str]:
    """The names of all perturbations."""
    return list(registry.entries("perturbation"))
