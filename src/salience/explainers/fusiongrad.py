"""FusionGrad."""

from salience.core.explainer import Base, Explainer
from salience.core.options import option
from salience.core.registry import register
from salience.explainers._weight_noise import AverageOverWeights, Sigma
from salience.explainers.gradient import Gradient
from salience.explainers.smoothgrad import SmoothGrad
from salience.perturb.noise import check_strength


@register("explainer", "fusiongrad", signed=True, stochastic=True, needs_gradient=True, cites="Bykov et al. 2022")
class FusionGrad(AverageOverWeights):
    """NoiseGrad around SmoothGrad: the mean of a base explanation over noise in the weights and in the input.

    Each draw of weights has `samples` draws of input noise of its own; errors go by draws of weights,
    the independent unit.

    Cost: `weight_samples` x `samples` times that of the base, and `weight_samples` forward passes for whether the class was kept.

    Source: Bykov et al. (2022), eq. 2, and the authors' code, which draws fresh input noise for every draw
    of weights where the formula shares it; both noise levels are half those of their own methods.

    Differs from the source: as NoiseGrad; "auto" is half the tuned level; `noise_level` is relative to the
    range, as in the paper (the code's is absolute).
    """

    base: Base = option(Gradient, "the explanation that is averaged")
    weight_samples: int = option(10, "draws of weights", at_least=1)
    samples: int = option(10, "draws of input noise for each draw of weights", at_least=1)
    weight_sigma: Sigma = option("auto", "sd of the multiplicative weight noise; auto: half the level at which accuracy drops by 5 %", at_least=0)
    noise_level: float | None = option(None, "sd of the input noise relative to the image's range; 0.1 if sigma is not given either", at_least=0)
    sigma: float | None = option(None, "absolute sd of the input noise, in [0, 1] units", at_least=0)
    absolute: bool = option(False, "take absolute values before averaging")

    auto_share = 0.5

    def __post_init__(self) -> None:
        """Check the options, and that only one strength is given."""
        super().__post_init__()
        check_strength(self.name, self.noise_level, self.sigma)

    @property
    def averaged(self) -> Explainer:
        """SmoothGrad around the base."""
        level = 0.1 if self.noise_level is None and self.sigma is None else self.noise_level
        return SmoothGrad(self.base, self.samples, level, self.sigma, self.absolute)
