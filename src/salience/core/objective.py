"""What an attack on an explanation aims at: a number to be made small, from the map and what it was."""

from abc import abstractmethod

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


def list_objectives() -> list[str]:
    """The names of all objectives."""
    return list(registry.entries("objective"))
