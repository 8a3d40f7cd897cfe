"""Recolouring."""

from collections.abc import Sequence

from torch import Tensor

from salience.attacks._smooth import smooth_noise
from salience.core.draws import Stream
from salience.core.errors import InputError
from salience.core.options import option
from salience.core.registry import register
from salience.core.threat import INSIDE, Threat
from salience.core.types import Images, PerImage
from salience.perturb.colour import points, recoloured
from salience.perturb.flow import roughness

SHAPE = (16, 32, 32)
"""Points of the lattice along lightness, u and v."""


@register("threat", "recolor", cites="Laidlaw & Feizi 2019")
class ReColor(Threat):
    """One function of colours for the whole picture: each colour moves by at most `budget` in lightness, u and v.

    The function is given on a lattice over CIE-LUV (16 x 32 x 32) and is trilinear between its points.

    Cost: no pass.

    Source: Laidlaw & Feizi (2019), "Functional adversarial attacks"; budget and penalty as in "Smoothed explanations" (2022).

    Differs from the source: the authors also draw the lattice's points towards colours that a screen has, which most points are far
    from; here the result is clamped to such colours instead, and no colour moves further than the lattice says for it.
    """

    budget: float = option(0.06, "largest change of each of L / 100, u / 200 and v / 200, up to the rounding of colours (1e-4)", above=0)
    rate: float = option(0.01, "step of the optimiser, as a share of the budget", above=0)
    weight: float = option(1.25e-3, "weight of the penalty, the roughness of the function", at_least=0)
    place = 0

    def start(self, images: Images) -> Tensor:
        """Every colour stays."""
        if images.shape[1] != 3:
            raise InputError("recolor changes colours, and these images are grey: use delta or stadv.")
        return images.new_zeros(len(images), 3, *SHAPE)

    def apply(self, images: Images, parameters: Tensor) -> Images:
        """The recoloured images."""
        return recoloured(images, parameters)

    def project(self, images: Images, parameters: Tensor) -> Tensor:
        """First so that no colour leaves the lattice, then within the budget."""
        here, most = points(parameters), self.budget * (1 - INSIDE)
        return ((here + parameters).clamp(0, 1) - here).clamp(-most, most)

    def random(self, images: Images, streams: Sequence[Stream]) -> Tensor:
        """Smooth noise over the colours whose largest value is the budget."""
        return self.budget * (1 - INSIDE) * smooth_noise(streams, "recolor", 3, (3, 4, 4), SHAPE).to(images)

    def penalty(self, parameters: Tensor) -> PerImage:
        """The roughness of the function."""
        return roughness(parameters)
