"""Structural similarity."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool
from torch import Tensor

from salience.core.errors import InputError
from salience.core.options import option
from salience.core.registry import register
from salience.core.similarity import Similarity
from salience.core.types import Maps, PerImage


@register("similarity", "ssim", higher_is_better=True, within=(-1.0, 1.0), of="maps", cites="Wang et al. 2004")
class SSIM(Similarity):
    """Structural similarity: 1 for equal maps; the mean over channels and over all places of a square window.

    (2 ma mb + C1) (2 cov + C2) / ((ma² + mb² + C1) (va + vb + C2)) with means, sample variances and covariance in
    the window, C1 = (0.01 range)², C2 = (0.03 range)². Two equal constant maps give 1.

    Cost: no passes.

    Source: Wang et al. (2004), with scikit-image's choices: a flat window of 7, sample covariance, whole windows only.

    Differs from the source: for smaller maps the window shrinks to the largest odd one that fits; where parts of the maps
    are out of view, only windows that are wholly in view count.
    """

    window: int = option(7, "side of the window, in pixels; odd", at_least=1)
    data_range: float = option(1.0, "difference of the largest and smallest value that a map can have", above=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window % 2 == 0:
            raise InputError(f"{self.name}: window must be odd, not {self.window}.")

    def compare(self, first: Maps, second: Maps) -> PerImage:
        """Structural similarities."""
        return self.compare_within(first, second, torch.ones(first.shape[-2:], dtype=torch.bool, device=first.device))

    def compare_within(self, first: Maps, second: Maps, visible: Bool[Tensor, "h w"]) -> PerImage:
        """Structural similarities, over the places where the whole window is visible."""
        a, b = first.double(), second.double()
        side = min(self.window, *a.shape[-2:])
        side -= 1 - side % 2
        while not (whole := _whole(visible, side)).any():
            side -= 2
        middle_a, middle_b = a.mean((2, 3), keepdim=True), b.mean((2, 3), keepdim=True)
        a, b = a - middle_a, b - middle_b  # variances about the map's own mean lose no digits to a common offset
        mean_a, mean_b, aa, bb, ab = (F.avg_pool2d(each, side, stride=1) for each in (a, b, a * a, b * b, a * b))
        sample = side**2 / max(side**2 - 1, 1)
        spread_a, spread_b, shared = sample * (aa - mean_a**2), sample * (bb - mean_b**2), sample * (ab - mean_a * mean_b)
        mean_a, mean_b = mean_a + middle_a, mean_b + middle_b
        c1, c2 = (0.01 * self.data_range) ** 2, (0.03 * self.data_range) ** 2
        local = (2 * mean_a * mean_b + c1) * (2 * shared + c2) / ((mean_a**2 + mean_b**2 + c1) * (spread_a + spread_b + c2))
        return local[..., whole].mean((1, 2))


def _whole(visible: Bool[Tensor, "h w"], side: int) -> Bool[Tensor, "rows columns"]:
    """Where a window has visible pixels only."""
    return F.max_pool2d((~visible).double()[None], side, stride=1)[0] == 0
