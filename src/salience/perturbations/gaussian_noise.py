"""Gaussian noise."""

from collections.abc import Sequence

from salience.core.draws import Stream, stack
from salience.core.options import option
from salience.core.perturbation import Perturbation
from salience.core.registry import register
from salience.core.types import Images


@register("perturbation", "gaussian_noise", geometric=False, stochastic=True, cites="Kvrgić 2025")
class GaussianNoise(Perturbation):
    """Independent Gaussian noise in every value: clamp(x + sigma z, 0, 1), z ~ N(0, 1).

    Cost: no pass.

    Source: Kvrgić (2025), the report on SmoothGrad and RISE, sd 25 of 255.

    Differs from the source: clamped.
    """

    sigma: float = option(25 / 255, "sd of the noise, in [0, 1] units", at_least=0)

    def apply(self, images: Images, streams: Sequence[Stream]) -> Images:
        """The noisy images."""
        noise = stack(streams, lambda stream: stream.normal(images.shape[1:], "gaussian_noise", 0))
        return (images + self.sigma * noise.to(images)).clamp(0, 1)
