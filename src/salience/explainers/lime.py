"""LIME on superpixels."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from salience.core.classifier import Classifier
from salience.core.draws import Stream, stack
from salience.core.explainer import MonteCarlo
from salience.core.montecarlo import Attribution, Done, Draws, run
from salience.core.options import option
from salience.core.registry import register
from salience.core.types import Images, Targets
from salience.explainers._all_classes import scores, scores_all_classes
from salience.explainers._superpixels import Segmentation, superpixels
from salience.explainers._surrogate import Surrogate
from salience.perturb.fills import Fill, filled


@register("explainer", "lime", signed=True, stochastic=True, needs_gradient=False, unit="{score}", cites="Ribeiro et al. 2016")
class Lime(MonteCarlo):
    """The coefficients of a linear model of the score in the superpixels that are on: f(x with z) ~ b0 + b·z.

    Draw 0 is the whole image (z = 1); in the others each superpixel is on with probability 1/2, or else
    replaced by its own mean colour. Draws weigh exp(-d² / width²)^(1/2), d the cosine distance of z from 1;
    b minimises the weighted squared error + alpha |b|², with a free intercept. Each superpixel is
    painted with its coefficient. The record notes how many there are, and the surrogate's fit (R²): where
    that is low, a linear model says little of the network.

    The standard error is that of the fit to this many draws; the penalty shrinks small coefficients,
    the less the more draws there are.

    Cost: `samples` forward passes an image. All classes are scored at once, so ``e.for_target`` needs
    no further pass. Works on black boxes.

    Source: Ribeiro, Singh & Guestrin (2016), "Why should I trust you?", and the defaults of its authors'
    package for images.

    Differs from the source: seeded; with a standard error; superpixels on images too small for the
    package's quickshift are finer (kernel size 2, 1, then a grid); the signed coefficients of all superpixels
    are shown, not a mask of the largest.
    """

    samples: int = option(1000, "draws of superpixels", at_least=2)
    segmentation: Segmentation = option("quickshift", "how the image is cut: quickshift, or grid (6 x 6)")
    fill: Fill | Literal["superpixel"] = option("superpixel", "what replaces superpixels: superpixel (its mean colour), mean, black, white, grey or blur")
    width: float = option(0.25, "width of the kernel that weighs draws by distance", above=0)
    alpha: float = option(1.0, "ridge penalty", above=0)

    own_score = "probability"

    def attribute(self, model: Classifier, images: Images, targets: Targets, streams: Sequence[Stream]) -> Attribution:
        """The map of the target."""
        return Attribution(self._fitted(model, images, targets, streams, every=False)[1].maps)

    def explain_view(self, model: Classifier, images: Images, targets: Targets, streams: Sequence[Stream], tolerance: float | None) -> Done:
        """The map of the target with its error, and the way to that of any other class."""
        every = scores_all_classes(model)
        surrogate, done = self._fitted(model, images, targets, streams, every, tolerance)
        sizes = torch.tensor(surrogate.sizes)

        def noted(found: Done, wanted: Targets) -> Done:
            return replace(found, notes={"superpixels": sizes, "fit": surrogate.fit(wanted)}, retarget=other if every else None)

        def other(wanted: Targets) -> Done:
            return noted(done.estimated(surrogate.estimate(torch.arange(len(images)), wanted), tolerance), wanted)

        return noted(done, targets)

    def _fitted(self, model: Classifier, images: Images, targets: Targets, streams: Sequence[Stream], every: bool, tolerance: float | None = None) -> tuple[Surrogate, Done]:
        segments = superpixels(images, self.segmentation)
        surrogate = Surrogate(segments, targets, self.samples, self.width, self.alpha)
        draw = self._sampler(model, images, targets, streams, segments, every)
        return surrogate, run(draw, surrogate, n=len(images), samples=self.samples, at_once=self.at_once(model, images), model=model, tolerance=tolerance)

    def _sampler(self, model: Classifier, images: Images, targets: Targets, streams: Sequence[Stream], segments: Tensor, every: bool) -> Callable[[range, Tensor], Draws]:
        """One draw: superpixels switched off, and the scores of what is left."""
        off = mean_colours(images, segments) if self.fill == "superpixel" else filled(self.fill, model, images)
        pieces, flat = int(segments.max()) + 1, segments.flatten(1)

        def draw(draws: range, active: Tensor) -> Draws:
            chosen = [streams[image] for image in active.tolist()]
            on = torch.stack([stack(chosen, partial(_on, pieces=pieces, draw=i)).expand(len(active), pieces) for i in draws]).to(images.device)
            seen = on.gather(2, flat[active].expand(len(draws), -1, -1)).unflatten(2, (1, *images.shape[-2:]))
            shown = torch.where(seen, images[active], off[active]).flatten(0, 1)
            scored = scores(model, shown, targets[active].repeat(len(draws)), every)
            return Draws(torch.cat([on.to(scored), scored.unflatten(0, (len(draws), len(active)))], 2))

        return draw


def _on(stream: Stream, pieces: int, draw: int) -> Tensor:
    """Which superpixels a draw leaves on: all of them in draw 0, each with probability 1/2 in the others."""
    return torch.ones(pieces, dtype=torch.bool) if draw == 0 else stream.uniform((pieces,), "superpixels", draw) < 0.5


def mean_colours(images: Images, segments: Tensor) -> Images:
    """Every pixel in the mean colour of its superpixel."""
    n, c = images.shape[:2]
    index = segments.flatten(1)[:, None].expand(n, c, -1)
    means = images.new_zeros(n, c, int(segments.max()) + 1).scatter_reduce(2, index, images.flatten(2), "mean", include_self=False)
    return means.gather(2, index).view_as(images)
