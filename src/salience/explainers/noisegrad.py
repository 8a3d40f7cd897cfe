"""NoiseGrad."""

from salience.core.explainer import Base
from salience.core.options import option
from salience.core.registry import register
from salience.explainers._weight_noise import AverageOverWeights, Sigma
from salience.explainers.gradient import Gradient


@register("explainer", "noisegrad", signed=True, stochastic=True, needs_gradient=True, cites="Bykov et al. 2022")
class NoiseGrad(AverageOverWeights):
    """The mean of a base explanation over noise in the weights: E[base(x; w * (1 + s z))], z ~ N(0, 1).

    Cost: `weight_samples` times that of the base, and as many draws of weights.

    Source: Bykov, Hedström, Nakajima & Höhne (2022), "NoiseGrad", eq. 1 and its authors' code: every
    parameter is multiplied, biases and normalisation layers too; buffers are not.

    Differs from the source: the weights are restored, whatever happens; ``weight_sigma`` "auto" is the
    level at which accuracy drops by 5 % (the paper's own heuristic) instead of 0.2, which destroys
    modern batch-norm networks; signed unless `absolute`. Records the mean score under noise and the
    share of draws that keep the predicted class.
    """

    base: Base = option(Gradient, "the explanation that is averaged")
    weight_samples: int = option(25, "draws of weights", at_least=1)
    weight_sigma: Sigma = option("auto", "sd of the multiplicative weight noise; auto: the level at which accuracy drops by 5 %", at_least=0)
    absolute: bool = option(False, "take absolute values before averaging")
