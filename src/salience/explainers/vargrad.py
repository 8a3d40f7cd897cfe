"""VarGrad."""

import torch
from torch import Tensor

from salience.core.explainer import Base
from salience.core.montecarlo import Estimate, Moments, jackknife
from salience.core.options import option
from salience.core.registry import register
from salience.core.types import Images
from salience.explainers._input_noise import InputNoise
from salience.explainers.gradient import Gradient


@register("explainer", "vargrad", signed=False, stochastic=True, needs_gradient=True, unit="square of the base's unit", cites="Adebayo et al. 2018")
class VarGrad(InputNoise):
    """The variance of a base explanation over Gaussian noise in the input: Var[base(x + s z)].

    The unbiased variance over samples, with a jackknife error.

    Cost: `samples` times that of the base.

    Source: Adebayo, Gilmer, Goodfellow & Kim (2018), "Local explanation methods for deep neural networks
    lack sensitivity to parameter values".

    Differs from the source: divided by samples - 1, so that it is unbiased. Its error is a jackknife over blocks of draws, which knows
    nothing of two draws (NaN); as a variance is skewed, its intervals are too narrow with few.
    """

    base: Base = option(Gradient, "the explanation whose variance is taken")
    samples: int = option(50, "draws of input noise", at_least=2)
    noise_level: float | None = option(None, "sd of the noise relative to the image's range; 0.2 if sigma is not given either", at_least=0)
    sigma: float | None = option(None, "absolute sd of the noise, in [0, 1] units", at_least=0)

    def accumulator(self, images: Images, errors: bool) -> Moments:
        """Moments that report the variance, always with its error."""
        return _Variance(len(images), self.samples)


class _Variance(Moments):
    def estimate(self, images: Tensor) -> Estimate:
        whole = self._variance(images)
        without = torch.stack([self._variance(images, block) for block in range(self.used)])
        counts = self.counts[:, images]
        stderr, pseudo = jackknife(whole, without, counts)
        return Estimate(whole, stderr, torch.full((len(images),), float(self.used - 1)), pseudo, counts)

    def _variance(self, images: Tensor, without: int | None = None) -> Tensor:
        count, _, m2 = self.merged(images, without)
        return m2 / (count - 1).to(m2)[:, None, None, None]
