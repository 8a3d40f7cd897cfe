"""Away from where the map was."""

import torch

from salience.core.objective import Objective
from salience.core.registry import register
from salience.core.types import PerImage, Saliency


@register("objective", "centre_of_mass", targeted=False, cites="Ghorbani et al. 2019")
class CentreOfMass(Objective):
    """Move the map's centre of mass as far as possible: minus the distance to where it was, in picture diagonals.

    Source: Ghorbani, Abid & Zou (2019), "Interpretation of neural networks is fragile", the mass-centre attack.

    Differs from the source: the unit.
    """

    def loss(self, maps: Saliency, clean: Saliency, aim: Saliency | None) -> PerImage:
        """Minus the distance."""
        height, width = maps.shape[1:]
        places = torch.stack(torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")).to(maps)
        now, before = (torch.einsum("nhw,chw->nc", each, places) for each in (maps, clean))
        return -((now - before).square().sum(1) + 1e-12).sqrt() / (height**2 + width**2) ** 0.5
