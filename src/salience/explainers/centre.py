"""The control that always points at the centre."""

from collections.abc import Sequence

import torch

from salience.core.classifier import Classifier
from salience.core.draws import Stream
from salience.core.explainer import Explainer
from salience.core.montecarlo import Attribution
from salience.core.registry import register
from salience.core.types import Images, Targets


@register("explainer", "centre", signed=False, stochastic=False, needs_gradient=False, control=True, unit="nearness to the centre, whatever the image and the model", cites="Zhang et al. 2016")
class Centre(Explainer):
    """A control that ignores image and model: an isotropic Gaussian around the centre, 1 at its peak.

    Its sd is a quarter of the shorter side. Photographers centre their subjects, so this is hard to beat
    in localisation.

    Cost: none.

    Source: the centre baseline of the pointing game, Zhang, Lin, Brandt, Shen & Sclaroff (2016), "Top-down
    neural attention by excitation backprop".

    Differs from the source: a Gaussian instead of a point, so that it can be ranked by every metric.
    """

    explains_score = False

    def attribute(self, model: Classifier, images: Images, targets: Targets, streams: Sequence[Stream]) -> Attribution:
        """The same map for every image of a size."""
        n, _, h, w = images.shape
        sd = min(h, w) / 4
        rows, columns = (torch.exp(-0.5 * ((torch.arange(length, dtype=images.dtype, device=images.device) - (length - 1) / 2) / sd) ** 2) for length in (h, w))
        return Attribution((rows[:, None] * columns).expand(n, 1, h, w).clone())
