"""The map of something else."""

from salience.core.objective import Objective
from salience.core.registry import register
from salience.core.types import PerImage, Saliency


@register("objective", "target_map", targeted=True, cites="Dombrowski et al. 2019")
class TargetMap(Objective):
    """Make the map a given one: the mean squared difference of the shares, in units of a uniform share.

    h w sum (m - t)²: with this scale equation 1 of "Smoothed explanations" (2022) has gamma_1 h w = 2.5 and gamma_2 h w = 1.25e-3
    for the authors' ImageNet constants, 1.0 and 5.2e-3 for those of CIFAR-10.

    Source: Dombrowski et al. (2019), equation 1.

    Differs from the source: the scale, which changes nothing for the optimiser (Adam).
    """

    def loss(self, maps: Saliency, clean: Saliency, aim: Saliency | None) -> PerImage:
        """The distance to the map aimed at."""
        assert aim is not None
        return maps[0].numel() * (maps - aim).square().sum((1, 2))
