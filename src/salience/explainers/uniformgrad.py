"""UniformGrad."""

from collections.abc import Sequence

from torch import Tensor

from salience.core.draws import Stream
from salience.core.explainer import Base
from salience.core.options import option
from salience.core.registry import register
from salience.explainers._input_noise import InputNoise
from salience.explainers.gradient import Gradient


@register("explainer", "uniformgrad", signed=True, stochastic=True, needs_gradient=True, cites="Wang et al. 2020")
class UniformGrad(InputNoise):
    """The mean of a base explanation over uniform noise in the input: E[base(x + r u)], u ~ U(-1, 1).

    r, the half-width, is `noise_level` times the image's range, or `sigma`; its sd is r / sqrt(3).

    Cost: `samples` times that of the base.

    Source: Wang, Wang, Ramkumar, Mardziel, Fredrikson & Datta (2020), "Smoothed geometry for robust
    attribution"; used by "Smoothed explanations" (2022).

    Differs from the source: signed unless `absolute`; range in [0, 1] space.
    """

    base: Base = option(Gradient, "the explanation that is averaged")
    samples: int = option(50, "draws of input noise", at_least=1)
    noise_level: float | None = option(None, "half-width of the noise relative to the image's range; 0.2 if sigma is not given either", at_least=0)
    sigma: float | None = option(None, "absolute half-width of the noise, in [0, 1] units", at_least=0)
    absolute: bool = option(False, "take absolute values before averaging")

    def noise(self, stream: Stream, shape: Sequence[int], draw: int) -> Tensor:
        """Uniform in [-1, 1)."""
        return stream.uniform(shape, "input noise", draw).mul_(2).sub_(1)
