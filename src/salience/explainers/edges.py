"""The control that shows the image's own edges."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from salience.core.classifier import Classifier
from salience.core.draws import Stream
from salience.core.explainer import Explainer
from salience.core.montecarlo import Attribution
from salience.core.registry import register
from salience.core.types import Images, Targets

LUMINANCE = (0.2126, 0.7152, 0.0722)
"""Rec. 709 weights of red, green and blue."""

SOBEL = ((-1.0, 0.0, 1.0), (-2.0, 0.0, 2.0), (-1.0, 0.0, 1.0))
"""Eight times the horizontal slope."""


@register("explainer", "edges", signed=False, stochastic=False, needs_gradient=False, control=True, unit="slope of the luminance, whatever the model", cites="Adebayo et al. 2018")
class Edges(Explainer):
    """A control that ignores the model: the Sobel magnitude of the luminance, sqrt(gx² + gy²), per pixel.

    Luminance is that of Rec. 709 (the mean of the channels if they are not three); borders are replicated.

    Cost: none worth the name.

    Source: Adebayo et al. (2018), "Sanity checks for saliency maps", who compare saliency with an edge detector.

    Differs from the source: Sobel's operator, in units of luminance a pixel.
    """

    explains_score = False

    def attribute(self, model: Classifier, images: Images, targets: Targets, streams: Sequence[Stream]) -> Attribution:
        """The magnitude of the slope."""
        channels = images.shape[1]
        weights = images.new_tensor(LUMINANCE if channels == 3 else (1 / channels,) * channels)
        grey = torch.einsum("nchw,c->nhw", images, weights)[:, None]
        across = images.new_tensor(SOBEL) / 8
        slopes = F.conv2d(F.pad(grey, (1, 1, 1, 1), mode="replicate"), torch.stack([across, across.T])[:, None])
        return Attribution(slopes.square().sum(1, keepdim=True).sqrt())
