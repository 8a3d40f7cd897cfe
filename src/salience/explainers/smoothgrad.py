"""SmoothGrad."""

from salience.core.explainer import Base
from salience.core.options import option
from salience.core.registry import register
from salience.explainers._input_noise import InputNoise
from salience.explainers.gradient import Gradient


@register("explainer", "smoothgrad", signed=True, stochastic=True, needs_gradient=True, cites="Smilkov et al. 2017")
class SmoothGrad(InputNoise):
    """The mean of a base explanation over Gaussian noise in the input: E[base(x + s z)], z ~ N(0, 1).

    s is `noise_level` times the image's range (max - min over its values), or `sigma`.

    Cost: `samples` times that of the base (by default a forward and a backward pass).

    Source: Smilkov, Thorat, Kim, Viégas & Wattenberg (2017), "SmoothGrad".

    Differs from the source: the mean is signed unless `absolute`, which takes the absolute value of every
    sample before averaging, as the NoiseGrad paper and the attacks on explanations do. The range is
    that of the image in [0, 1] space, not of the normalised image.
    """

    base: Base = option(Gradient, "the explanation that is averaged")
    samples: int = option(50, "draws of input noise", at_least=1)
    noise_level: float | None = option(None, "sd of the noise relative to the image's range; 0.2 if sigma is not given either", at_least=0)
    sigma: float | None = option(None, "absolute sd of the noise, in [0, 1] units", at_least=0)
    absolute: bool = option(False, "take absolute values before averaging")
