"""Integrated gradients."""

from collections.abc import Sequence

import numpy as np
import torch

from salience.core.classifier import Classifier
from salience.core.draws import Stream
from salience.core.explainer import Explainer
from salience.core.montecarlo import Attribution
from salience.core.options import option
from salience.core.registry import register
from salience.core.types import Images, Targets
from salience.perturb.fills import Fill, filled


@register("explainer", "integrated_gradients", signed=True, stochastic=False, needs_gradient=True, unit="{score}", cites="Sundararajan et al. 2017")
class IntegratedGradients(Explainer):
    """The mean gradient on the straight path from the baseline, times the distance from it.

    (x - b) * integral over a in [0, 1] of df(b + a (x - b))/dx, by Gauss-Legendre quadrature. Its sum over
    an image is f(x) - f(b), up to the error of the quadrature.

    Cost: `steps` forward and backward passes an image.

    Source: Sundararajan, Taly & Yan (2017), "Axiomatic attribution for deep networks".

    Differs from the source: Gauss-Legendre nodes instead of equal steps. The formula in the NoiseGrad
    paper's appendix evaluates the path at x + a (x - b); that is a slip, and not followed.
    """

    steps: int = option(50, "points on the path", at_least=1)
    baseline: Fill = option("mean", "reference image: mean, black, white, grey or blur")

    def attribute(self, model: Classifier, images: Images, targets: Targets, streams: Sequence[Stream]) -> Attribution:
        """The integral, streamed over the points of the path."""
        nodes, weights = np.polynomial.legendre.leggauss(self.steps)
        baseline = filled(self.baseline, model, images)
        distance = images - baseline
        total = torch.zeros_like(images)
        together = max(1, model.images_at_once(images.shape[-2:]) // len(images))
        for start in range(0, self.steps, together):
            places = torch.from_numpy((nodes[start : start + together] + 1) / 2).to(images)
            points = baseline + places[:, None, None, None, None] * distance
            gradients = model.gradient(points.flatten(0, 1), targets.repeat(len(places))).view_as(points)
            total += torch.tensordot(torch.from_numpy(weights[start : start + together] / 2).to(images), gradients, dims=1)
            if model.progress is not None:
                model.progress(start + len(places), self.steps)
        return Attribution(distance * total)
