"""Estimators of a RISE map from the scores of masked images.

All look for S(x) = E[f M(x)] / p: f the score of the image under a random mask M, p = E[M]. Each says
what a draw contributes; the map is the mean of the contributions, and their spread gives its error.

The control variate. If g is any function of the mask that was chosen without looking at draw i, then

    E[g M] / p  +  (f_i - g(M_i)) M_i / p

has expectation S(x), whatever g is; and the closer g comes to f, the smaller its variance. Here g is fitted
to 19/20 of the draws and used for the rest, in turn (cross-fitting), and E[g M] is the average over
masks that never go through the network: they cost microseconds, a forward pass milliseconds.

What g is: a Gaussian-process (kernel ridge) regression of the logarithms of the class probabilities on the mask.
A convolutional network sees patches, so its kernel is a sum over windows W of the image,

    k(M, M') = sum_W e_W exp(-6 / (4 p (1 - p)) sum_{b in W} c_b (M_b - M'_b)²),

M_b the mask averaged in bin b of 12 x 12, c_b a Gaussian around the window's centre times the local contrast of
the image (where it is flat, masking changes little), sum_b c_b = 1; e_W the window's contrast, sum_W e_W = 1.
The logarithms of the target's probability, of the 11 other classes with the highest mean, and of the rest
are predicted together and put through a softmax; then a + b g is fitted to the scores, with
leave-one-out predictions of g: where nothing can be predicted, b = 0 and g is a constant.
The noise of the regression is 0.1; no parameter is tuned to the image.

Source: Petsiuk, Das & Saenko (2018), "RISE", equation 6, for the original estimator; control functionals:
Oates, Girolami & Chopin (2017); cross-fitting: Chernozhukov et al. (2018).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from salience.core.draws import Stream
from salience.core.montecarlo import BLOCKS, Estimate, Moments
from salience.perturb.masks import RandomMasks

Estimator = Literal["crossfit", "surrogate", "centred", "original", "self_normalised"]

FOLDS = BLOCKS
"""Fold of a draw: its number modulo 20, so that the block estimates of the engine are nearly independent."""

GROUP = 1000
"""Draws that one regression is fitted to; more draws are divided into groups, so the cost stays in proportion."""

BINS, WINDOWS, WINDOW_SD, STEEPNESS, NOISE = 12, 6, 1.3, 6.0, 0.1
CLASSES, LOWEST = 12, -9.0
"""Classes predicted together, and the logarithm at which small probabilities are cut off."""


@dataclass(frozen=True)
class Sample:
    """Draws of one image.

    Attributes:
        masks: Where the masks come from.
        grids: Their grids, (m, s, s).
        places: Their places, (m, 2).
        scores: Scores of the masked images, (m, k).
        target: The column of `scores` explained.
        probability: Whether scores lie in [0, 1]; rows then sum to at most 1, or only the target's column counts.
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

    def sum(self, weights: Float[Tensor, " m"]) -> Float[Tensor, "h w"]:
        """Sum of weight x mask."""
        return self.masks.weighted_sum(weights, self.grids, self.places)


@dataclass(frozen=True)
class Contributions:
    """What each draw adds: the map is their mean.

    Attributes:
        of: From the masks (q, h, w) and the numbers (q,) of some draws to their contributions (q, h, w).
        variance: Of the error that all draws have in common, at every pixel or for all.
    """

    of: Callable[[Float[Tensor, "q h w"], Int[Tensor, " q"]], Float[Tensor, "q h w"]]
    variance: Tensor


def _column(values: Tensor) -> Tensor:
    return values[:, None, None]


def original(sample: Sample) -> Contributions:
    """The published estimator, mean of f M / p: unbiased, and noisy because masks cover pixels unevenly."""
    weights = sample.f / sample.masks.keep
    return Contributions(lambda masks, draws: _column(weights[draws]) * masks, torch.zeros(()))


def centred(sample: Sample) -> Contributions:
    """Each score minus the mean of the others: unbiased; a single draw is left as it is."""
    f, m = sample.f, len(sample.f)
    others = (f.sum() - f) / (m - 1) if m > 1 else torch.zeros_like(f)
    weights = (f - others) / sample.masks.keep
    return Contributions(lambda masks, draws: _column(others[draws]) + _column(weights[draws]) * masks, torch.zeros(()))


def self_normalised(sample: Sample) -> Contributions:
    """Sum of f M / sum of M: its bias falls as 1 / draws. Contributions are linearised around it."""
    cover = sample.sum(torch.ones_like(sample.f)).clamp_min(1e-6)
    value = sample.sum(sample.f) / cover
    cover = cover / len(sample.f)
    return Contributions(lambda masks, draws: value + (_column(sample.f[draws]) - value) * masks / cover, torch.zeros(()))


def crossfit(sample: Sample) -> Contributions:
    """The control variate described above: unbiased, for any score and any network."""
    parts = _groups(len(sample.f))
    bases, weights, variances = zip(*(_crossfit(sample.part(draws), group) for group, draws in enumerate(parts)), strict=True)
    weight = torch.cat(weights)
    group = torch.cat([torch.full((len(each),), i) for i, each in enumerate(weights)]).to(weight.device)
    number = torch.cat([torch.arange(len(each)) for each in weights]).to(weight.device)
    base = torch.stack(bases)
    shares = torch.tensor([len(each) / len(weight) for each in weights])
    variance = sum(share**2 * each for share, each in zip(shares.tolist(), variances, strict=True))
    return Contributions(lambda masks, draws: base[group[draws], number[draws] % base.shape[1]] + _column(weight[draws]) * masks, torch.as_tensor(variance))


def surrogate(sample: Sample) -> Contributions:
    """The surrogate's own map, E[g M] / p: less noise, but biased toward what the surrogate can express.

    Its error is that of `crossfit`, an upper bound wherever the bias is smaller than the noise that is saved.
    """
    whole = crossfit(sample)
    numbers = torch.arange(len(sample.f), device=sample.f.device)
    correction = torch.zeros(())
    for part in numbers.split(CHUNK):
        made = sample.masks.make(sample.grids[part], sample.places[part])
        correction = correction + (whole.of(made, part) - whole.of(torch.zeros_like(made), part)).sum(0) / len(numbers)
    return Contributions(lambda masks, draws: whole.of(masks, draws) - correction, whole.variance)


ESTIMATORS: dict[str, Callable[[Sample], Contributions]] = {
    "crossfit": crossfit,
    "surrogate": surrogate,
    "centred": centred,
    "original": original,
    "self_normalised": self_normalised,
}

CHUNK = 32
"""Masks made at once when contributions are added up."""


def estimate(name: str, sample: Sample) -> Estimate:
    """Map, standard error and block estimates of one image, shapes (1, 1, h, w) and (b, 1, 1, h, w)."""
    contributions = ESTIMATORS[name](sample)
    m = len(sample.f)
    moments = Moments(1, m)
    for draws in torch.arange(m).split(CHUNK):
        values = contributions.of(sample.masks.make(sample.grids[draws], sample.places[draws]), draws.to(sample.f.device))
        moments.add(range(int(draws[0]), int(draws[-1]) + 1), torch.zeros(1, dtype=torch.int64), values[:, None, None])
    found = moments.estimate(torch.zeros(1, dtype=torch.int64))
    return replace(found, stderr=(found.stderr.square() + contributions.variance).sqrt())


def _groups(m: int) -> list[slice]:
    """Draws in groups of at most `GROUP`, as equal as can be, in order."""
    count = max(1, -(-m // GROUP))
    edges = [m * group // count for group in range(count + 1)]
    return [slice(*edge) for edge in zip(edges[:-1], edges[1:], strict=True)]


def _crossfit(sample: Sample, group: int) -> tuple[Float[Tensor, "folds h w"], Float[Tensor, " m"], Tensor]:
    """Per fold E[g M] / p of the surrogate fitted to the other folds; per draw (f - g) / p; variance of the first."""
    masks, f, m = sample.masks, sample.f, len(sample.f)
    kernel = Kernel.of(masks, sample.image)
    seen = kernel.features(sample.grids, sample.places)
    among = kernel(seen, seen)
    inverse = torch.linalg.inv(among + NOISE * torch.eye(m).to(among))
    square = (seen + masks.keep).square().mean((1, 2))
    fold = torch.arange(m, device=f.device) % FOLDS
    bases, weights, variance = [], torch.empty_like(f), torch.zeros(())
    for k in range(min(FOLDS, m)):
        train, test = (fold != k).nonzero()[:, 0], (fold == k).nonzero()[:, 0]
        predict = _regression(sample.part(train), square[train], _inverse_without(inverse, train, test))
        weights[test] = (f[test] - predict(among[test][:, train])) / masks.keep
        grids, places = masks.draw_many(sample.stream.at("surrogate", group, k), max(m, FEWEST))
        new = kernel.features(grids, places)
        linear = Linear.fit(masks, sample.part(train), predict(among[train][:, train]))
        rest = predict(kernel(new, seen[train])) - linear(grids, places)
        bases.append((linear.mean_with_mask() + masks.weighted_sum(rest, grids, places) / len(rest)) / masks.keep)
        variance = variance + (len(test) / m / masks.keep) ** 2 * rest.square().mean() * masks.mean_square / len(rest)
    return torch.stack(bases), weights, variance


FEWEST = 200
"""Masks at least that a surrogate is averaged over."""


def _inverse_without(inverse: Tensor, train: Tensor, test: Tensor) -> Tensor:
    """The inverse of a matrix without some rows and columns, from the inverse of the whole."""
    cross = inverse[test][:, train]
    return inverse[train][:, train] - cross.T @ torch.linalg.solve(inverse[test][:, test], cross)


def _regression(sample: Sample, square: Tensor, inverse: Tensor) -> Callable[[Tensor], Tensor]:
    """Fit the surrogate; the result takes kernel values (q, m) to predicted scores (q,)."""
    if len(sample.f) == 0:
        return lambda values: torch.zeros(len(values)).to(values)
    values, link = _links(sample)
    mean = values.mean(0)
    coefficients = inverse @ (values - mean)
    left_out = link(values - coefficients / inverse.diagonal()[:, None])
    weight = square / square.sum()
    centre, level = (weight * left_out).sum(), (weight * sample.f).sum()
    spread, common = (weight * (left_out - centre) ** 2).sum(), (weight * (left_out - centre) * (sample.f - level)).sum()
    slope = (common / spread.clamp_min(torch.finfo(spread.dtype).tiny)).clamp(0, 1.5)
    return lambda values: level + slope * (link(mean + values @ coefficients) - centre)


def _links(sample: Sample) -> tuple[Float[Tensor, "m c"], Callable[[Tensor], Tensor]]:
    """What is regressed, and the way back from it to the score."""
    if not sample.probability:
        return sample.f[:, None], lambda values: values[:, 0]
    classes = sample.scores.mean(0).index_fill(0, torch.tensor([sample.target], device=sample.f.device), torch.inf).topk(min(CLASSES, sample.scores.shape[1])).indices
    chosen = sample.scores[:, classes]
    rest = 1 - chosen.sum(1, keepdim=True)
    return torch.cat([chosen, rest], 1).clamp_min(1e-9).log().clamp_min(LOWEST), lambda values: values.softmax(1)[:, 0]


@dataclass(frozen=True)
class Kernel:
    """The kernel described above, for one image and its masks.

    Attributes:
        features: From grids and places to the masks' bin averages minus keep, (m, rows, columns).
        scales: Root of the weight of each bin in each window times the steepness, (windows, bins).
        levels: Logarithm of each window's weight, (windows,).
    """

    features: Callable[[Tensor, Tensor], Float[Tensor, "m rows columns"]]
    scales: Float[Tensor, "windows bins"]
    levels: Float[Tensor, " windows"]

    @classmethod
    def of(cls, masks: RandomMasks, image: Float[Tensor, "c h w"]) -> "Kernel":
        """The kernel for masks of an image."""
        bins = (min(BINS, masks.size[0]), min(BINS, masks.size[1]))
        average = masks.averages(bins)
        rows, columns = (_gaussians(count).to(image) for count in bins)
        weights = torch.einsum("pa,qb->pqab", rows, columns).flatten(0, 1).flatten(1)
        weights = torch.where(weights < 0.1, 0.0, weights) * contrast(image, bins).flatten()
        energy = weights.sum(1).clamp_min(torch.finfo(weights.dtype).tiny)
        steepness = STEEPNESS / max(4 * masks.keep * (1 - masks.keep), 1e-6)
        scales = (steepness * weights / energy[:, None]).sqrt()
        return cls(lambda grids, places: average(grids, places) - masks.keep, scales, (energy / energy.sum()).log())

    def __call__(self, a: Float[Tensor, "m rows columns"], b: Float[Tensor, "l rows columns"]) -> Float[Tensor, "m l"]:
        """Kernel values of all pairs. Small parts of the result stay in the processor's cache."""
        right = [self._expanded(b, window, self.levels[window], swap=True).T.contiguous() for window in range(len(self.levels))]
        out = torch.zeros(len(a), len(b)).to(a)
        for rows, values in zip(out.split(256), a.split(256), strict=True):
            for window, other in enumerate(right):
                rows += (self._expanded(values, window, torch.zeros(()), swap=False) @ other).exp_()
        return out

    def _expanded(self, features: Tensor, window: int, level: Tensor, swap: bool) -> Tensor:
        """Rows whose products are level - |a - b|² in a window."""
        inside = self.scales[window].nonzero()[:, 0]
        scaled = features.flatten(1)[:, inside] * self.scales[window, inside]
        norm, one = level - scaled.square().sum(1, keepdim=True), torch.ones(len(scaled), 1).to(scaled)
        return torch.cat([2 * scaled, one, norm] if swap else [scaled, norm, one], 1)


def contrast(image: Float[Tensor, "c h w"], bins: tuple[int, int]) -> Float[Tensor, "rows columns"]:
    """Root mean square difference of neighbouring pixels in each bin; 1 everywhere for a constant image."""
    down, across = image.diff(dim=1).square().sum(0), image.diff(dim=2).square().sum(0)
    energy = F.pad(down, (0, 0, 0, 1)) + F.pad(across, (0, 1))
    energy = F.adaptive_avg_pool2d(energy[None], bins)[0]
    return (energy + 1e-4 * energy.mean() + 1e-12).sqrt()


def _gaussians(bins: int) -> Float[Tensor, "windows bins"]:
    """Windows along an axis: their centres evenly spread."""
    count = min(WINDOWS, bins)
    centres = (torch.arange(count) + 0.5) * bins / count - 0.5
    return torch.exp(-((torch.arange(bins) - centres[:, None]) ** 2) / (2 * WINDOW_SD**2))


@dataclass(frozen=True)
class Linear:
    """The linear part of a surrogate, whose product with the mask has a known mean: only the rest is averaged.

    Attributes:
        level: Its mean.
        slopes: Per bin, (rows, columns).
        masks: The masks' distribution.
        average: From grids and places to bin averages.
    """

    level: Tensor
    slopes: Float[Tensor, "rows columns"]
    masks: RandomMasks
    average: Callable[[Tensor, Tensor], Tensor]

    @classmethod
    def fit(cls, masks: RandomMasks, sample: Sample, values: Tensor) -> "Linear":
        """Ridge regression of the surrogate's values at the draws on bin averages."""
        bins = (min(WINDOWS, masks.size[0]), min(WINDOWS, masks.size[1]))
        average = masks.averages(bins)
        if len(values) == 0:
            return cls(torch.zeros(()).to(values), torch.zeros(bins).to(values), masks, average)
        design = (average(sample.grids, sample.places) - masks.keep).flatten(1)
        gram = design.T @ design
        ridge = 1e-2 * gram.diagonal().mean() + 1e-9
        slopes = torch.linalg.solve(gram + ridge * torch.eye(len(gram)).to(gram), design.T @ (values - values.mean()))
        return cls(values.mean(), slopes.view(bins), masks, average)

    def __call__(self, grids: Tensor, places: Tensor) -> Float[Tensor, " m"]:
        """Its values."""
        return self.level + ((self.average(grids, places) - self.masks.keep) * self.slopes).sum((1, 2))

    def mean_with_mask(self) -> Float[Tensor, "h w"]:
        """E[linear part x mask]."""
        rows, columns = (self.masks.covariance(axis, self.slopes.shape[axis]) for axis in (0, 1))
        keep = self.masks.keep
        return keep * self.level + keep * (1 - keep) * (rows.T @ self.slopes @ columns)
