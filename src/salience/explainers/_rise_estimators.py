"""Estimators of a RISE map from the scores of masked images.

All look for S(x) = E[f M(x)] / p: f the score of the image under a random mask M, p = E[M]. Each says
what a draw contributes; the map is the mean of the contributions, and their spread gives its error.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from salience.core.draws import Stream
from salience.core.montecarlo import BLOCKS, Estimate, Moments
from salience.explainers._rise_surrogate import NOISE, Kernel, Linear, regression
from salience.perturb.masks import RandomMasks

Estimator = Literal["crossfit", "surrogate", "centred", "original", "self_normalised"]

FOLDS = BLOCKS
"""Fold of a draw: its number modulo 20, so that the engine's blocks are nearly independent."""

GROUP = 1000
"""Draws that one surrogate is fitted to; more draws are divided into groups, so the cost stays in proportion."""

FEWEST = 200
"""Masks at least that a surrogate is averaged over; else as many as there are draws."""

PIXELS = 2**20
"""Pixels of masks made at once when contributions are added up."""

ONE = torch.zeros(1, dtype=torch.int64)


@dataclass(frozen=True)
class Sample:
    """Draws of one image.

    Attributes:
        masks: Where the masks come from.
        grids: Their grids, (m, s, s).
        places: Their places, (m, 2).
        scores: Scores of the masked images, (m, k).
        target: The column of `scores` explained.
        probability: Whether scores lie in [0, 1].
        image: (c, h, w).
        stream: For the masks that the surrogate is averaged over.
    """

    masks: RandomMasks
    grids: Float[Tensor, "m s s"]
    places: Int[Tensor, "m 2"]
    scores: Float[Tensor, "m k"]
    target: int
    probability: bool
    image: Float[Tensor, "c h w"]
    stream: Stream

    @property
    def f(self) -> Float[Tensor, " m"]:
        """The score explained."""
        return self.scores[:, self.target]

    def part(self, draws: slice) -> "Sample":
        """Some of the draws."""
        return replace(self, grids=self.grids[draws], places=self.places[draws], scores=self.scores[draws])

    def chunks(self) -> Iterator[tuple[Int[Tensor, " q"], Float[Tensor, "q h w"]]]:
        """The numbers of a few draws at a time, and their masks."""
        height, width = self.masks.size
        for draws in torch.arange(len(self.f), device=self.f.device).split(max(1, PIXELS // (height * width))):
            yield draws, self.masks.make(self.grids[draws], self.places[draws])

    def sum(self, weights: Float[Tensor, " m"]) -> Float[Tensor, "h w"]:
        """Sum of weight x mask."""
        return self.masks.weighted_sum(weights, self.grids, self.places)


@dataclass(frozen=True)
class Contributions:
    """What each draw adds: the map is their mean.

    Attributes:
        of: From the masks (q, h, w) and the numbers (q,) of some draws to their contributions (q, h, w).
        variance: Of the error that all draws have in common, (h, w).
    """

    of: Callable[[Float[Tensor, "q h w"], Int[Tensor, " q"]], Float[Tensor, "q h w"]]
    variance: Float[Tensor, "h w"] | float = 0.0


def _column(values: Tensor) -> Tensor:
    return values[:, None, None]


def original(sample: Sample) -> Contributions:
    """The published estimator, mean of f M / p: unbiased, and noisy because masks cover pixels unevenly."""
    weights = sample.f / sample.masks.keep
    return Contributions(lambda masks, draws: _column(weights[draws]) * masks)


def centred(sample: Sample) -> Contributions:
    """Each score less the mean of the others, which is added again: unbiased. A single draw is left as it is."""
    others = (sample.f.sum() - sample.f) / max(len(sample.f) - 1, 1)
    weights = (sample.f - others) / sample.masks.keep
    return Contributions(lambda masks, draws: _column(others[draws]) + _column(weights[draws]) * masks)


def self_normalised(sample: Sample) -> Contributions:
    """Sum of f M / sum of M: its bias falls as 1 / draws. The contributions are linearised around it."""
    cover = sample.sum(torch.ones_like(sample.f)).clamp_min(1e-6)
    found, mean_cover = sample.sum(sample.f) / cover, cover / len(sample.f)
    return Contributions(lambda masks, draws: found + (_column(sample.f[draws]) - found) * masks / mean_cover)


def crossfit(sample: Sample) -> Contributions:
    """A control variate that is fitted to the other draws: unbiased, for any score and any network.

    If g is any function of the mask that was chosen without looking at draw i, then

        E[g M] / p + (f_i - g(M_i)) M_i / p

    has expectation S, whatever g is; and the closer g comes to f, the smaller its variance. Here g is the
    surrogate of `_rise_surrogate`, fitted to 19/20 of the draws and used for the rest, in turn. E[g M] is the
    average over other masks, 20 a draw, which never go through the network.

    Source: control functionals, Oates, Girolami & Chopin (2017); cross-fitting, Chernozhukov et al. (2018).
    """
    m = len(sample.f)
    if m == 1:
        return original(sample)
    count = -(-m // GROUP)
    edges = [m * group // count for group in range(count + 1)]
    folds = torch.arange(m, device=sample.f.device) % FOLDS
    share = 1 / torch.bincount(folds)
    means, variance, weights = sample.f.new_zeros(len(share), *sample.masks.size), torch.zeros_like(sample.masks.mean_square), torch.empty_like(sample.f)
    for group, edge in enumerate(pairwise(edges)):
        draws = slice(*edge)
        fit = _crossfit(sample.part(draws), folds[draws], group)
        means += fit.means.mul_(_column(share * torch.bincount(folds[draws])))
        variance += (len(fit.weights) / m) ** 2 * fit.variance
        weights[draws] = fit.weights
    return Contributions(lambda masks, draws: torch.addcmul(means[folds[draws]], _column(weights[draws]), masks), variance)


def surrogate(sample: Sample) -> Contributions:
    """The surrogate's own map, E[g M] / p: less noise, but biased toward what the surrogate can express.

    Its error is that of `crossfit`: too large, as long as the bias is smaller than the noise that is saved.
    """
    return uncorrected(crossfit(sample), sample)


def uncorrected(whole: Contributions, sample: Sample) -> Contributions:
    """The contributions of `crossfit` less the mean of the corrections (f - g) M / p."""
    correction = torch.zeros(sample.masks.size, device=sample.f.device)
    for draws, masks in sample.chunks():
        correction += (whole.of(masks, draws) - whole.of(torch.zeros_like(masks), draws)).sum(0) / len(sample.f)
    return Contributions(lambda masks, draws: whole.of(masks, draws) - correction, whole.variance)


ESTIMATORS: dict[str, Callable[[Sample], Contributions]] = {
    "crossfit": crossfit,
    "surrogate": surrogate,
    "centred": centred,
    "original": original,
    "self_normalised": self_normalised,
}


def estimate(name: str, sample: Sample) -> Estimate:
    """Map, standard error and blocks of one image, (1, 1, h, w) and (b, 1, 1, h, w), by the named estimator."""
    return averaged(ESTIMATORS[name](sample), sample)


def averaged(contributions: Contributions, sample: Sample) -> Estimate:
    """The mean of the contributions and its error."""
    moments = Moments(1, len(sample.f))
    for draws, masks in sample.chunks():
        moments.add(range(int(draws[0]), int(draws[-1]) + 1), ONE, contributions.of(masks, draws)[:, None, None])
    variance = contributions.variance
    del contributions  # at 1000 pixels a side its maps are 80 MB
    found = moments.estimate(ONE)
    return replace(found, stderr=(found.stderr.square() + variance).sqrt())


@dataclass(frozen=True)
class _Fit:
    """Per fold E[g M] / p, per draw (f - g) / p, and the variance of the first."""

    means: Float[Tensor, "folds h w"]
    weights: Float[Tensor, " m"]
    variance: Float[Tensor, "h w"]


def _crossfit(sample: Sample, folds: Int[Tensor, " m"], group: int) -> _Fit:
    masks, f, m = sample.masks, sample.f, len(sample.f)
    kernel = Kernel.of(masks, sample.image)
    features = kernel.features(sample.grids, sample.places)
    against = kernel.against(features)
    among = against(features)
    inverse = torch.linalg.inv(among + NOISE * torch.eye(m).to(among))
    area = (features + masks.keep).square().mean((1, 2)) + 1e-6
    means, weights, variance = f.new_empty(min(FOLDS, m), *masks.size), torch.empty_like(f), torch.zeros_like(masks.mean_square)
    for fold in range(len(means)):
        out = folds == fold
        predict = regression(sample.scores, sample.target, sample.probability, area, inverse, out)
        predicted = predict(among)
        weights[out] = (f[out] - predicted[out]) / masks.keep
        linear = Linear.fit(masks, sample.grids[~out], sample.places[~out], predicted[~out])
        grids, places = masks.draw_many(sample.stream.at("surrogate", group, fold), max(FEWEST, m))
        rest = predict(against(kernel.features(grids, places))) - linear(grids, places)
        means[fold] = (linear.mean_with_mask() + masks.weighted_sum(rest, grids, places) / len(rest)) / masks.keep
        variance += (float(out.sum()) / m / masks.keep) ** 2 * rest.square().mean() / len(rest) * masks.mean_square
    return _Fit(means, weights, variance)
