"""Additive change."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from salience.core.draws import Stream, stack
from salience.core.options import option
from salience.core.registry import register
from salience.core.threat import INSIDE, ROUNDING, Threat
from salience.core.types import Images, PerImage
from salience.perturb.clamp import clamped


@register("threat", "delta", cites="Dombrowski et al. 2019")
class Delta(Threat):
    """A number added to every value: x + d with |d| at most `budget` in the largest value or in the Euclidean length.

    Cost: no pass.

    Source: Dombrowski et al. (2019); "Smoothed explanations" (2022), budget 0.03 in the largest value, Adam step 0.001.

    Differs from the source: nothing.
    """

    budget: float = option(0.03, "largest change, in [0, 1] units", above=0)
    norm: Literal["linf", "l2"] = option("linf", "what the budget bounds: linf (each value) or l2 (the Euclidean length over an image)")
    rate: float = option(0.033, "step of the optimiser, as a share of the budget (per value)", above=0)
    weight: float = option(0.0, "weight of the penalty, which is 0", at_least=0)
    place = 2

    def start(self, images: Images) -> Tensor:
        """Nothing added."""
        return torch.zeros_like(images)

    def apply(self, images: Images, parameters: Tensor) -> Images:
        """The sum, within [0, 1]."""
        return clamped(images + parameters)

    def project(self, images: Images, parameters: Tensor) -> Tensor:
        """First so that the sum lies in [0, 1], then within the budget: both hold afterwards, since 0 does."""
        valid, most = (images + parameters).clamp(0, 1) - images, self.budget * (1 - INSIDE)
        if self.norm == "linf":
            return valid.clamp(min(ROUNDING - most, 0), max(most - ROUNDING, 0))
        most = max(most - ROUNDING * images[0].numel() ** 0.5, 0)
        return valid * (most / self.used(valid).clamp_min(1e-12)).clamp_max(1).view(-1, 1, 1, 1)

    def random(self, images: Images, streams: Sequence[Stream]) -> Tensor:
        """The budget with a random sign in every value, or in a random direction; a value that this would take out of [0, 1] goes the other way."""
        drawn = stack(streams, lambda stream: stream.normal(images.shape[1:], "delta", 0)).to(images).expand_as(images)
        change = self.budget * (drawn.sign() if self.norm == "linf" else drawn / drawn.flatten(1).norm(dim=1).view(-1, 1, 1, 1))
        outside = (images + change - 0.5).abs() > 0.5
        return self.project(images, torch.where(outside, -change, change))

    def used(self, parameters: Tensor) -> PerImage:
        """Largest value or Euclidean length."""
        return parameters.flatten(1).norm(dim=1) if self.norm == "l2" else super().used(parameters)

    def step(self, images: Images) -> float:
        """The optimiser's step: for the Euclidean length, the budget is shared among the values."""
        return self.rate * self.budget / (1 if self.norm == "linf" else images[0].numel() ** 0.5)
