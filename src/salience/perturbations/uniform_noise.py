"""Uniform noise."""

from collections.abc import Sequence

from salience.core.draws import Stream, stack
from salience.core.options import option
from salience.core.perturbation import Perturbation
from salience.core.registry import register
from salience.core.types import Images


@register("perturbation", "uniform_noise", geometric=False, stochastic=True, cites="Yeh et al. 2019")
class UniformNoise(Perturbation):
    """Independent uniform noise in every value: clamp(x + d, 0, 1), d ~ U(-radius, radius). Its sd is radius / sqrt 3.

    Cost: no pass.

    Source: Yeh et al. (2019), "On the (in)fidelity and sensitivity of explanations", section 4: the ball of
    max-sensitivity.

    Differs from the source: clamped.
    """

    radius: float = option(25 / 255, "half-width of the noise, in [0, 1] units", at_least=0)

    def apply(self, images: Images, streams: Sequence[Stream]) -> Images:
        """The noisy images."""
        noise = stack(streams, lambda stream: stream.uniform(images.shape[1:], "uniform_noise", 0))
        return (images + self.radius * (2 * noise.to(images) - 1)).clamp(0, 1)
