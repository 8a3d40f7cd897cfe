"""GradientSHAP."""

from collections.abc import Callable, Sequence
from operator import methodcaller

import torch
from torch import Tensor

from salience.core.classifier import Classifier
from salience.core.draws import Stream, stack
from salience.core.explainer import MonteCarlo
from salience.core.montecarlo import Draws
from salience.core.options import option
from salience.core.registry import register
from salience.core.types import Images, Targets
from salience.perturb.fills import Fill, filled
from salience.perturb.noise import check_strength, strength


@register("explainer", "gradient_shap", signed=True, stochastic=True, needs_gradient=True, unit="{score}", cites="Lundberg & Lee 2017; Erion et al. 2021")
class GradientShap(MonteCarlo):
    """Expected gradients: E[(x' - b) * df(b + a (x' - b))/dx], a ~ U(0, 1), x' = x + s z, z ~ N(0, 1).

    s is `noise_level` times the image's range, or `sigma`; 0 takes the image as it is. Without noise the
    expectation is the integrated gradient.

    Cost: `samples` forward and backward passes an image.

    Source: Lundberg & Lee (2017), "A unified approach to interpreting model predictions", and Erion et al.
    (2021), "Improving performance of deep learning models with axiomatic attribution priors".

    Differs from the source: one named baseline instead of random training images; noise 0.1 of the range
    (the NoiseGrad paper describes noise but states no value).
    """

    samples: int = option(50, "draws of path point and noise", at_least=1)
    noise_level: float | None = option(None, "sd of the noise relative to the image's range; 0.1 if sigma is not given either", at_least=0)
    sigma: float | None = option(None, "absolute sd of the noise, in [0, 1] units", at_least=0)
    baseline: Fill = option("mean", "reference image: mean, black, white, grey or blur")

    def __post_init__(self) -> None:
        """Check the options, and that only one strength is given."""
        super().__post_init__()
        check_strength(self.name, self.noise_level, self.sigma)

    def sampler(self, model: Classifier, images: Images, targets: Targets, streams: Sequence[Stream]) -> Callable[[range, Tensor], Draws]:
        """One draw: a noisy image, a point on the path to it, the gradient there."""
        scale = strength(images, 0.1 if self.noise_level is None else self.noise_level, self.sigma)
        baseline = filled(self.baseline, model, images)
        shape = images.shape[1:]

        def draw(draws: range, active: Tensor) -> Draws:
            chosen = [streams[image] for image in active.tolist()]
            noise = torch.cat([stack(chosen, methodcaller("normal", shape, "input noise", i)).expand(len(active), *shape) for i in draws])
            place = torch.cat([stack(chosen, methodcaller("uniform", (1, 1, 1), "path", i)).expand(len(active), 1, 1, 1) for i in draws])
            which = active.repeat(len(draws))
            distance = images[which] + scale[which] * noise.to(images.device) - baseline[which]
            gradients = model.gradient(baseline[which] + place.to(images.device) * distance, targets[which])
            return Draws((distance * gradients).unflatten(0, (len(draws), len(active))))

        return draw
