"""Horizontal flip."""

from collections.abc import Sequence

from salience.core.draws import Stream
from salience.core.perturbation import Perturbation
from salience.core.registry import register
from salience.core.types import Images, Maps


@register("perturbation", "horizontal_flip", geometric=True, stochastic=False, cites="Kvrgić 2025")
class HorizontalFlip(Perturbation):
    """The image mirrored left to right.

    Cost: no pass.

    Source: Kvrgić (2025), the report on SmoothGrad and RISE.

    Differs from the source: the map can be flipped back before it is compared; the report seems to compare it as it is.
    """

    def apply(self, images: Images, streams: Sequence[Stream]) -> Images:
        """The mirrored images."""
        return images.flip(-1)

    def undo(self, maps: Maps) -> Maps:
        """The maps mirrored back."""
        return maps.flip(-1)
