"""Spatial flow."""

from collections.abc import Sequence

import torch
from torch import Tensor

from salience.attacks._smooth import smooth_noise
from salience.core.draws import Stream
from salience.core.options import option
from salience.core.registry import register
from salience.core.threat import INSIDE, Threat
from salience.core.types import Images, PerImage
from salience.perturb.flow import identity, moved, roughness


@register("threat", "stadv", cites="Xiao et al. 2018")
class StAdv(Threat):
    """Every pixel takes its colour from a place at most `budget` away in each direction, neighbours from like places.

    Cost: no pass.

    Source: Xiao et al. (2018), "Spatially transformed adversarial examples"; budget and penalty as in
    "Smoothed explanations" (2022): the lengths of the differences to the four neighbours along the axes.

    Differs from the source: projected Adam instead of L-BFGS.
    """

    budget: float = option(0.05, "largest move in each direction; the picture is 2 wide and 2 high (0.05 is 5.6 of 224 pixels)", above=0)
    rate: float = option(0.01, "step of the optimiser, as a share of the budget", above=0)
    weight: float = option(1.25e-3, "weight of the penalty, the roughness of the flow", at_least=0)
    place = 1

    def start(self, images: Images) -> Tensor:
        """No flow."""
        return images.new_zeros(len(images), *images.shape[-2:], 2)

    def apply(self, images: Images, parameters: Tensor) -> Images:
        """The moved pixels."""
        return moved(images, parameters)

    def project(self, images: Images, parameters: Tensor) -> Tensor:
        """First so that no pixel looks outside the picture, then within the budget."""
        here, most = identity(images), self.budget * (1 - INSIDE)
        return ((here + parameters).clamp(-1, 1) - here).clamp(-most, most)

    def random(self, images: Images, streams: Sequence[Stream]) -> Tensor:
        """Smooth noise (four waves or so across the picture) whose largest value is the budget."""
        drawn = smooth_noise(streams, "stadv", 2, (8, 8), tuple(images.shape[-2:])).permute(0, 2, 3, 1).to(images)
        return self.project(images, self.budget * drawn)

    def penalty(self, parameters: Tensor) -> PerImage:
        """The roughness of the flow."""
        return roughness(torch.movedim(parameters, -1, 1))
