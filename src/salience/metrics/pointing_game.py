"""Pointing game."""

import torch
from jaxtyping import Bool
from torch import Tensor

from salience.core.geometry import Geometry
from salience.core.metric import REDUCTION, Case, Judgement, Metric, Reduction
from salience.core.options import option
from salience.core.registry import register
from salience.core.types import Maps
from salience.metrics._localisation import refuse
from salience.perturb.blur import gaussian_blur

RANGE_SLACK, VALUE_SLACK = 1e-4, 1e-6
"""How far, as shares of a map's range and of its maximum, equal maxima may come apart: resampling and blur round places and values."""


@register("metric", "pointing_game", by_class=True, higher_is_better=True, within=(0.0, 1.0), category="localisation", needs_masks=True, cites="Zhang et al. 2018")
class PointingGame(Metric):
    """Whether the map's largest value lies on the object, or near it: 1 for a hit, 0 for a miss.

    A mask of the original picture's size is compared in that picture: the map is resampled onto it
    bilinearly, and only pixels that the model saw can be pointed at. A hit is less than `tolerance`
    pixels of the mask away from the object. Of m equal maxima, each counts 1/m.

    Cost: no passes.

    Source: Zhang et al. (2018); their tolerance is 15 pixels of the original picture. TorchRay's
    benchmark blurs gradient-like maps with ``smooth=0.02``.

    Differs from the source: equal maxima share the hit, where theirs takes the first; hits are one an image,
    not averaged over classes; with ``tolerance=0`` the point itself must lie on the object.
    """

    tolerance: float = option(15.0, "radius of the disc around the point that must touch the object, in pixels of the mask", at_least=0)
    smooth: float = option(0.0, "sd of a Gaussian blur before pointing, as a share of the longer side", at_least=0)
    reduction: Reduction | None = option(None, REDUCTION)

    def judge(self, case: Case) -> Judgement:
        """Hits, by the share of tied maxima."""
        masks = case.masks or ()
        refuse(self, torch.tensor([not mask.any() for mask in masks]), "its mask is empty")
        maps = case.saliency(self.reduction)[:, None].cpu()
        return Judgement(torch.stack([self._hits(maps[i : i + 1], mask, case.placed(i)) for i, mask in enumerate(masks)]))

    def _hits(self, maps: Maps, mask: Bool[Tensor, "rows columns"], geometry: Geometry) -> Tensor:
        from scipy.ndimage import distance_transform_edt

        distance = torch.from_numpy(distance_transform_edt(~mask.numpy()))
        resampled = tuple(mask.shape) == geometry.original and (geometry.original, geometry.box) != (geometry.size, (0, 0, *geometry.size))
        if resampled:
            seen = geometry.to_original(torch.ones_like(maps))[0, 0] > 0.5
            rows, columns = seen.any(1), seen.any(0)
            maps, distance = geometry.to_original(maps)[:, :, rows][..., columns], distance[rows][:, columns]
        if self.smooth > 0:
            maps = gaussian_blur(maps, self.smooth * max(mask.shape))
        top, low = maps.max(), maps.min()
        slack = RANGE_SLACK * (top - low) + VALUE_SLACK * top.abs() if resampled or self.smooth > 0 else 0.0
        points = distance[maps[0, 0] >= top - slack]
        return ((points < self.tolerance) | (points == 0)).float().mean()
