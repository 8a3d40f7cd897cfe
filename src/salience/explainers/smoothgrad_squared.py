"""SmoothGrad squared."""

from salience.core.explainer import Base
from salience.core.options import option
from salience.core.registry import register
from salience.core.types import Maps
from salience.explainers._input_noise import InputNoise
from salience.explainers.gradient import Gradient


@register("explainer", "smoothgrad_squared", signed=False, stochastic=True, needs_gradient=True, unit="square of the base's unit", cites="Hooker et al. 2019")
class SmoothGradSquared(InputNoise):
    """The mean square of a base explanation over Gaussian noise in the input: E[base(x + s z)²].

    Cost: `samples` times that of the base.

    Source: Hooker, Erhan, Kindermans & Kim (2019), "A benchmark for interpretability methods in deep neural
    networks".

    Differs from the source: nothing. A square is skewed, so its intervals are too narrow with few draws.
    """

    base: Base = option(Gradient, "the explanation whose square is averaged")
    samples: int = option(50, "draws of input noise", at_least=1)
    noise_level: float | None = option(None, "sd of the noise relative to the image's range; 0.2 if sigma is not given either", at_least=0)
    sigma: float | None = option(None, "absolute sd of the noise, in [0, 1] units", at_least=0)

    def value(self, maps: Maps) -> Maps:
        """The square of each draw's map."""
        return maps.square()
