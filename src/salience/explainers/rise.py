"""RISE."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from salience.core.classifier import Classifier
from salience.core.draws import Stream, stack
from salience.core.explainer import MonteCarlo
from salience.core.montecarlo import Attribution, Done, Draws, Estimate, run
from salience.core.options import option
from salience.core.registry import register
from salience.core.types import Images, Targets
from salience.explainers._all_classes import scores, scores_all_classes
from salience.explainers._rise_estimators import Estimator, Sample, estimate
from salience.perturb.fills import Fill, filled
from salience.perturb.masks import RandomMasks


@register("explainer", "rise", signed=True, stochastic=True, needs_gradient=False, unit="{score}", neutral="mean", cites="Petsiuk et al. 2018")
class Rise(MonteCarlo):
    """The mean score of the image under random masks that show a pixel: S(x) = E[f(I M + fill (1 - M)) M(x)] / keep.

    A mask is a grid of `grid` x `grid` cells, each on with probability `keep`, enlarged smoothly and shifted
    by less than a cell. S is the score that is left when the rest of the image is hidden at random, so a
    pixel counts by how far it stands out of the map, and the map's level is about the mean score.

    `estimator` says how S is computed from the same masks and scores:

    - ``crossfit`` (the default): the published mean with a control variate. A model of the score as a
      function of the mask, which costs no forward pass, is fitted to the other draws; only what it cannot
      predict is left as noise. The same expectation as the published estimator, several times fewer masks.
      Its error is a little small where masks are very coarse and few (a grid of 2 x 2, 50 masks).
    - ``surrogate``: that model's own map. Less noise, some bias.
    - ``centred``: the published mean of the score less its mean.
    - ``original``: the published mean of f M / keep.
    - ``self_normalised``: sum of f M / sum of M, slightly biased.

    Cost: `samples` forward passes an image; all classes are scored at once, so ``e.for_target`` needs no
    further pass. Works on black boxes.

    Source: Petsiuk, Das & Saenko (2018), "RISE: Randomized input sampling for explanation of black-box models".

    Differs from the source: the estimator (``original`` is theirs). As in its authors' code, cells are
    rounded up, masks are mirrored at the border, and the fill is the model's mean colour.
    """

    samples: int = option(500, "draws of masks", at_least=1)
    grid: int = option(7, "cells a side of the random grid", at_least=1)
    keep: float = option(0.5, "probability that a cell is kept", above=0, at_most=1)
    fill: Fill = option("mean", "what replaces the image where the mask is 0: mean, black, white, grey or blur")
    estimator: Estimator = option("crossfit", "crossfit, surrogate, centred, original or self_normalised")

    own_score = "probability"

    def attribute(self, model: Classifier, images: Images, targets: Targets, streams: Sequence[Stream]) -> Attribution:
        """The map of the target."""
        return Attribution(self.collected(model, images, targets, streams)[1].maps)

    def explain_view(self, model: Classifier, images: Images, targets: Targets, streams: Sequence[Stream], tolerance: float | None) -> Done:
        """The map of the target with its error, and the way to that of any other class."""
        collected, done = self.collected(model, images, targets, streams, tolerance)

        def other(wanted: Targets) -> Done:
            return done.estimated(collected.estimate(torch.arange(len(images)), wanted), tolerance)

        done.retarget = other if scores_all_classes(model) else None
        return done

    def collected(self, model: Classifier, images: Images, targets: Targets, streams: Sequence[Stream], tolerance: float | None = None) -> tuple["Collected", Done]:
        """The scores of all masked images, from which maps are estimated, and the run that made them."""
        masks = RandomMasks((images.shape[-2], images.shape[-1]), self.grid, self.keep, images.device)
        collected = Collected(self.estimator, masks, model.bound_score.name, images, targets, streams, self.samples)
        draw = self._sampler(model, images, targets, streams, masks)
        return collected, run(draw, collected, n=len(images), samples=self.samples, at_once=self.at_once(model, images), model=model, tolerance=tolerance)

    def _sampler(self, model: Classifier, images: Images, targets: Targets, streams: Sequence[Stream], masks: RandomMasks) -> Callable[[range, Tensor], Draws]:
        """One draw: a mask, and the scores of what it shows."""
        off, every = filled(self.fill, model, images), scores_all_classes(model)

        def draw(draws: range, active: Tensor) -> Draws:
            chosen = [streams[image] for image in active.tolist()]
            drawn = torch.stack([stack(chosen, partial(drawn_row, masks=masks, number=i)) for i in draws])
            shown = masks.make(*unpacked(drawn.flatten(0, 1), self.grid)).unflatten(0, drawn.shape[:2])[:, :, None]
            mixed = torch.lerp(off[active], images[active], shown).flatten(0, 1)
            scored = scores(model, mixed, targets[active].repeat(len(draws)), every).float().unflatten(0, (len(draws), len(active)))
            return Draws(torch.cat([drawn.expand(-1, len(active), -1), scored], 2))

        return draw


def drawn_row(stream: Stream, masks: RandomMasks, number: int) -> Float[Tensor, " values"]:
    """The grid and the place of a mask as one row of numbers."""
    grid, place = masks.draw(stream, number)
    return torch.cat([grid.flatten(), place.to(grid)])


def unpacked(rows: Float[Tensor, "m values"], grid: int) -> tuple[Tensor, Tensor]:
    """The grids (m, s, s) and places (m, 2) at the front of some rows."""
    return rows[:, : grid * grid].unflatten(1, (grid, grid)), rows[:, grid * grid : grid * grid + 2].long()


class Collected:
    """Collects masks and scores, and estimates maps from them at any time.

    Kept: grid cells + classes numbers a draw and image.

    Args:
        estimator: Name of the estimator.
        masks: The masks' distribution.
        score: Name of the score: probabilities are treated as such.
        images: (n, c, h, w).
        targets: Class explained, (n,).
        streams: One an image.
        samples: Draws at most.
    """

    def __init__(self, estimator: str, masks: RandomMasks, score: str, images: Images, targets: Targets, streams: Sequence[Stream], samples: int) -> None:
        self.estimator = estimator
        self.masks = masks
        self.score = score
        self.images = images
        self.targets = targets
        self.streams = streams
        self.samples = samples
        self.kept = torch.empty(0)
        self.counts = [0] * len(images)

    def add(self, draws: range, active: Tensor, values: Tensor) -> None:
        """Take in (draws, images, cells + 2 + classes): grid, place, scores."""
        if not self.kept.numel():  # one block: small pieces between the large ones of a forward pass would scatter the memory
            self.kept = values.new_empty(len(self.counts), self.samples, values.shape[2])
        for place, image in enumerate(active.tolist()):
            self.kept[image, draws.start : draws.stop] = values[:, place]
            self.counts[image] = draws.stop

    def estimate(self, images: Tensor, targets: Targets | None = None) -> Estimate:
        """The maps of some images, of the targets or of other classes."""
        chosen = self.targets if targets is None else targets
        parts = [estimate(self.estimator, self.sample(image, int(chosen[image]))) for image in images.tolist()]
        if len(parts) == 1:
            return parts[0]
        maps, stderr, df = (torch.cat([getattr(part, name) for part in parts]) for name in ("maps", "stderr", "df"))
        blocks, counts = (torch.cat([getattr(part, name) for part in parts], 1) for name in ("blocks", "counts"))
        return Estimate(maps, stderr, df, blocks, counts)

    def sample(self, image: int, target: int) -> Sample:
        """The draws of one image, for one class."""
        rows = self.kept[image, : self.counts[image]]
        grids, places = unpacked(rows, self.masks.grid)
        found = rows[:, self.masks.grid**2 + 2 :]
        if found.shape[1] == 1:
            target = 0
        elif self.score == "sigmoid":
            found, target = found[:, [target]], 0
        probability = self.score in ("probability", "sigmoid")
        return Sample(self.masks, grids, places, found, target, probability, self.images[image], self.streams[image])
