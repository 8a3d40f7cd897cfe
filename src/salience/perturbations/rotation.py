"""Rotation."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool
from torch import Tensor

from salience.core.draws import Stream
from salience.core.options import option
from salience.core.perturbation import Perturbation
from salience.core.registry import register
from salience.core.types import Images, Maps


@register("perturbation", "rotation", geometric=True, stochastic=False, cites="Engstrom et al. 2019")
class Rotation(Perturbation):
    """The image turned about its centre, bilinear; corners that come into view repeat the edge.

    Cost: no pass.

    Source: Engstrom et al. (2019), "Exploring the landscape of spatial robustness".

    Differs from the source: the new corners repeat the edge instead of being black.
    """

    degrees: float = option(10.0, "angle, counter-clockwise", at_least=-180, at_most=180)

    def apply(self, images: Images, streams: Sequence[Stream]) -> Images:
        """The turned images."""
        return self._turned(images, self.degrees, "border")

    def undo(self, maps: Maps) -> Maps:
        """The maps turned back; 0 where they have no pixel."""
        return self._turned(maps, -self.degrees, "zeros")

    def inside(self, size: tuple[int, int]) -> Bool[Tensor, "h w"]:
        """All but the corners that came into view."""
        return self._turned(torch.ones(1, 1, *size), self.degrees, "zeros")[0, 0] > 0.999

    def _turned(self, values: Tensor, degrees: float, beyond: str) -> Tensor:
        (h, w), angle = values.shape[-2:], math.radians(degrees)
        matrix = [[math.cos(angle), -math.sin(angle) * h / w, 0.0], [math.sin(angle) * w / h, math.cos(angle), 0.0]]
        grid = F.affine_grid(torch.tensor([matrix], dtype=torch.float64), [1, 1, h, w], align_corners=False).to(values)
        return F.grid_sample(values, grid.expand(len(values), h, w, 2), mode="bilinear", padding_mode=beyond, align_corners=False)
