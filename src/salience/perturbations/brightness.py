"""Brightness."""

from collections.abc import Sequence

from salience.core.draws import Stream
from salience.core.options import option
from salience.core.perturbation import Perturbation
from salience.core.registry import register
from salience.core.types import Images


@register("perturbation", "brightness", geometric=False, stochastic=False, cites="Hendrycks & Dietterich 2019")
class Brightness(Perturbation):
    """A brighter or darker image: clamp(factor x, 0, 1).

    Cost: no pass.

    Source: a common corruption, as in Hendrycks & Dietterich (2019), "Benchmarking neural network robustness".

    Differs from the source: a factor on RGB values, as cameras expose; theirs shifts the value channel of HSV.
    """

    factor: float = option(1.2, "factor on every value: above 1 brighter, below 1 darker", at_least=0)

    def apply(self, images: Images, streams: Sequence[Stream]) -> Images:
        """The brighter or darker images."""
        return (images * self.factor).clamp(0, 1)
