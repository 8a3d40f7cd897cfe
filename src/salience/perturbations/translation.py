"""Translation."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

from salience.core.draws import Stream
from salience.core.options import option
from salience.core.perturbation import Perturbation
from salience.core.registry import register
from salience.core.types import Images, Maps


@register("perturbation", "translation", geometric=True, stochastic=False, cites="Engstrom et al. 2019")
class Translation(Perturbation):
    """The image shifted by whole pixels; the strips that come into view repeat the edge.

    Cost: no pass.

    Source: Engstrom et al. (2019), "Exploring the landscape of spatial robustness".

    Differs from the source: the new strips repeat the edge instead of being black.
    """

    right: float = option(0.1, "shift to the right, as a share of the width; rounded to whole pixels", at_least=-0.5, at_most=0.5)
    down: float = option(0.0, "shift downwards, as a share of the height; rounded to whole pixels", at_least=-0.5, at_most=0.5)

    def apply(self, images: Images, streams: Sequence[Stream]) -> Images:
        """The shifted images."""
        return self._shifted(images, 1)[0]

    def undo(self, maps: Maps) -> Maps:
        """The maps shifted back; 0 where they have no pixel."""
        moved, inside = self._shifted(maps, -1)
        return moved * inside

    def inside(self, size: tuple[int, int]) -> Bool[Tensor, "h w"]:
        """All but the strips that came into view."""
        return self._shifted(torch.empty(size), 1)[1]

    def _shifted(self, values: Tensor, sign: int) -> tuple[Tensor, Tensor]:
        """The shifted values, edges repeated, and where they come from inside, (h, w)."""
        (h, w), device = values.shape[-2:], values.device
        rows = torch.arange(h, device=device)[:, None] - sign * round(self.down * h)
        columns = torch.arange(w, device=device) - sign * round(self.right * w)
        inside = (rows >= 0) & (rows < h) & (columns >= 0) & (columns < w)
        return values[..., rows.clamp(0, h - 1), columns.clamp(0, w - 1)], inside
