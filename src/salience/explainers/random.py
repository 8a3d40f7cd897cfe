"""The control that is pure noise."""

from collections.abc import Sequence

import torch

from salience.core.classifier import Classifier
from salience.core.draws import Stream, stack
from salience.core.explainer import Explainer
from salience.core.montecarlo import DREW, Attribution
from salience.core.registry import register
from salience.core.types import Images, Targets


@register(
    "explainer", "random", signed=True, stochastic=False, seeded=True, needs_gradient=False, control=True, unit="drawn from N(0, 1), whatever the image and the model", cites="Adebayo et al. 2018"
)
class Random(Explainer):
    """A control that ignores image and model: N(0, 1) at every pixel, by the seed.

    It estimates nothing, so it has no standard error; another seed gives another map.

    Cost: none.

    Source: the usual lower bound of comparisons, for example Adebayo et al. (2018), "Sanity checks for
    saliency maps".

    Differs from the source: nothing.
    """

    explains_score = False

    def attribute(self, model: Classifier, images: Images, targets: Targets, streams: Sequence[Stream]) -> Attribution:
        """One draw an image."""
        n, _, h, w = images.shape
        maps = stack(streams, lambda stream: stream.normal((1, h, w), "control", 0)).expand(n, 1, h, w).clone()
        return Attribution(maps.to(images.device), notes={DREW: torch.ones(n)})
