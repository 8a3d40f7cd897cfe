"""What an attack on an explanation aims at: a number to be made small, from the map and what it was."""

from abc import abstractmethod

import torch
from torch import Tensor

from salience.core import registry
from salience.core.options import Options
from salience.core.types import Maps, PerImage, Saliency


class Objective(Options):
    """Base of all objectives: a frozen dataclass with a docstring and `loss`. One that needs a map to aim at is registered with ``targeted=True``."""

    kind = "objective"
    expected = "An objective is a name such as 'top_k', or an objective such as sal.TopK(share=0.05)"

    @abstractmethod
    def loss(self, maps: Saliency, clean: Saliency, aim: Saliency | None) -> PerImage:
        """What is made small.

        Args:
            maps: Shares (n, h, w) of the map of the changed image: non-negative, of sum 1.
            clean: Those of the image as it was.
            aim: Those of the map to aim at, if there is one.
        """


def shares(maps: Maps) -> Saliency:
    """Absolute values summed over channels, as shares of their total over the image; 0 for a map of zeros."""
    saliency = maps.abs().sum(1)
    total = saliency.sum((1, 2), keepdim=True)
    return saliency / total.clamp_min(1e-30)


def cosine_distance(first: Tensor, second: Tensor) -> PerImage:
    """1 less the cosine of maps (n, h, w): between 0 and 1 for shares; 1 if one is zero, 0 if both are.

    It is half the squared distance of the maps brought to length 1, so equal maps have 0 exactly.
    """
    a, b = first.flatten(1).double(), second.flatten(1).double()
    lengths = [each.norm(dim=1, keepdim=True) for each in (a, b)]
    squared = (a / lengths[0].clamp_min(1e-300) - b / lengths[1].clamp_min(1e-300)).square().sum(1)
    return torch.where(torch.minimum(*lengths)[:, 0] > 0, squared / 2, squared).float()


def list_objectives() -> list[str]:
    """The names of all objectives."""
    return list(registry.entries("objective"))
