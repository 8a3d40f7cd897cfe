"""The surrogate of a RISE map: a cheap function of the mask that predicts the score of the masked image.

It is a Gaussian-process (kernel ridge) regression of the logarithms of the class probabilities on the mask.
A convolutional network sees patches, so its kernel is a sum over windows W of the image,

    k(M, M') = sum_W e_W exp(-6 / (4 p (1 - p)) sum_{b in W} c_b (M_b - M'_b)²),

M_b the mask averaged in bin b of 12 x 12; c_b a Gaussian around the window's centre times the local contrast of
the image (where it is flat, masking changes little), with sum_b c_b = 1 in each of the 6 x 6 windows; e_W the
window's contrast, sum_W e_W = 1. The logarithms of the probabilities of the target, of the 11 other classes with
the highest mean, and of the rest are predicted together and put through a softmax. Then a + b g is fitted to
the scores with leave-one-out predictions of g, weighing draws by the area they show (as errors count in the
map): where nothing can be predicted, b = 0 and the surrogate is a constant. Scores that are no
probabilities are regressed as they are.

The constants below were chosen on photographs with EfficientNet-Lite0, where the error is flat in all of them;
none is fitted to the image at hand. A poor choice costs accuracy, never unbiasedness.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from salience.perturb.masks import RandomMasks

BINS, WINDOWS, WINDOW_SD, STEEPNESS, NOISE = 12, 6, 1.3, 6.0, 0.1
"""Bins and windows a side, sd of a window in bins, the factor in the exponent, and the noise of the regression."""

CLASSES, LOWEST = 12, -9.0
"""Classes predicted together, and the logarithm at which small probabilities are cut off."""

ROWS = 512
"""Rows of kernel values made at once, so that they stay in the processor's cache."""

Regressor = Callable[[Float[Tensor, "q m"]], Float[Tensor, " q"]]
"""From kernel values between q masks and all m draws to predicted scores."""


@dataclass(frozen=True)
class Kernel:
    """The kernel for the masks of one image.

    Attributes:
        features: From grids and places to the masks' bin averages minus keep, (m, rows, columns).
        bins: Per window, the bins in it.
        scales: Per window, the root of the weight of each of those bins.
        levels: Logarithm of each window's weight.
    """

    features: Callable[[Tensor, Tensor], Float[Tensor, "m rows columns"]]
    bins: list[Tensor]
    scales: list[Tensor]
    levels: list[float]

    @classmethod
    def of(cls, masks: RandomMasks, image: Float[Tensor, "c h w"]) -> "Kernel":
        """The kernel for masks of an image."""
        sides = (min(BINS, masks.size[0]), min(BINS, masks.size[1]))
        average = masks.averages(sides)
        rows, columns = (_gaussians(side).to(image) for side in sides)
        weights = torch.einsum("pa,qb->pqab", rows, columns).flatten(2).flatten(0, 1)
        weights = torch.where(weights < 0.1, 0.0, weights) * contrast(image, sides).flatten()
        energy = weights.sum(1)
        steepness = STEEPNESS / max(4 * masks.keep * (1 - masks.keep), 1e-6)
        bins = [row.nonzero()[:, 0] for row in weights]
        scales = [(steepness * row[inside] / row.sum()).sqrt() for row, inside in zip(weights, bins, strict=True)]
        return cls(lambda grids, places: average(grids, places) - masks.keep, bins, scales, (energy / energy.sum()).log().tolist())

    def against(self, seen: Float[Tensor, "m rows columns"]) -> Callable[[Float[Tensor, "q rows columns"]], Float[Tensor, "q m"]]:
        """The kernel's values of any masks with some masks."""
        # level - |a - b|² is one product: (a, -|a|², 1) · (2 b, 1, level - |b|²)
        right = []
        for bins, scale, level in zip(self.bins, self.scales, self.levels, strict=True):
            inside = seen.flatten(1)[:, bins] * scale
            right.append(torch.cat([2 * inside, torch.ones_like(inside[:, :1]), level - inside.square().sum(1, keepdim=True)], 1).T.contiguous())
        # all windows' left sides stand one below the other in one matrix, made in a few steps
        heights = [len(bins) + 2 for bins in self.bins]
        window = torch.repeat_interleave(torch.tensor([height - 2 for height in heights])).to(seen.device)
        chosen, scales = torch.cat(self.bins), torch.cat(self.scales)[:, None]
        ends = torch.tensor(heights, device=seen.device).cumsum(0)
        places = torch.arange(len(chosen), device=seen.device) + 2 * window

        def values(features: Tensor) -> Tensor:
            out = torch.zeros(len(features), len(seen)).to(seen)
            inside = features.flatten(1).T.contiguous()[chosen].mul_(scales)
            left = torch.ones(sum(heights), len(features)).to(seen)
            left[places] = inside
            left[ends - 2] = torch.zeros(len(heights), len(features)).to(seen).index_add_(0, window, inside.square_(), alpha=-1)
            for part, columns in zip(out.split(ROWS), left.split(ROWS, 1), strict=True):
                for one, other in zip(columns.split(heights), right, strict=True):
                    part += (one.T @ other).exp_()  # noqa: PLW2901  # in place: a view of the result
            return out

        return values


def contrast(image: Float[Tensor, "c h w"], bins: tuple[int, int]) -> Float[Tensor, "rows columns"]:
    """Root mean square difference of neighbouring pixels in each bin; the same everywhere for a constant image."""
    down, across = image.diff(dim=1).square().sum(0), image.diff(dim=2).square().sum(0)
    energy = F.adaptive_avg_pool2d((F.pad(down, (0, 0, 0, 1)) + F.pad(across, (0, 1)))[None], bins)[0]
    return (energy + 1e-4 * energy.mean() + 1e-12).sqrt()


def _gaussians(bins: int) -> Float[Tensor, "windows bins"]:
    """Windows along an axis, their centres evenly spread."""
    count = min(WINDOWS, bins)
    centres = (torch.arange(count) + 0.5) * bins / count - 0.5
    return torch.exp(-((torch.arange(bins) - centres[:, None]) ** 2) / (2 * WINDOW_SD**2))


def regression(scores: Float[Tensor, "m k"], target: int, probability: bool, area: Float[Tensor, " m"], inverse: Float[Tensor, "m m"], out: Bool[Tensor, " m"]) -> Regressor:
    """Fit the surrogate to some draws, without looking at the others.

    Both sets of leave-out coefficients come from the one inverse A of the kernel matrix of all draws: without
    the draws o they are A z - A_o (A_oo)^-1 A_o' z for values z that are zero at o, and those that leave out a
    single draw more predict z - coefficient / diagonal there.

    Args:
        scores: Of the masked images.
        target: The column that is predicted.
        probability: Whether scores are probabilities.
        area: Weight of each draw in the calibration.
        inverse: Of the kernel matrix with noise, of all draws.
        out: The draws that are left out.
    """
    kept, area = scores[~out], area[~out] / area[~out].sum()
    f = kept[:, target]
    values, link = _linked(kept, target, probability)
    mean = values.mean(0)
    padded = torch.zeros(len(scores), values.shape[1]).to(values)
    padded[~out] = values - mean
    cross = inverse[:, out]
    gain = torch.linalg.solve(cross[out], cross.T)
    coefficients = inverse @ padded - gain.T @ (cross.T @ padded)
    coefficients[out] = 0
    diagonal = inverse.diagonal() - (cross * gain.T).sum(1)
    left_out = link(values - (coefficients / diagonal[:, None])[~out])
    centre, level = (area * left_out).sum(), (area * f).sum()
    spread, common = (area * (left_out - centre) ** 2).sum(), (area * (left_out - centre) * (f - level)).sum()
    slope = (common / spread.clamp_min(torch.finfo(spread.dtype).tiny)).clamp(0, 1.5)
    return lambda kernel: level + slope * (link(mean + kernel @ coefficients) - centre)


def _linked(scores: Tensor, target: int, probability: bool) -> tuple[Float[Tensor, "m c"], Callable[[Tensor], Tensor]]:
    """What is regressed, and the way back from it to the score."""
    if not probability:
        return scores[:, target, None], lambda values: values[:, 0]
    means = scores.mean(0)
    means[target] = torch.inf
    exclusive = bool(scores.sum(1).max() < 1.01)
    chosen = scores[:, means.topk(min(CLASSES, len(means)) if exclusive else 1).indices]
    rest = 1 - chosen.sum(1, keepdim=True)
    return torch.cat([chosen, rest], 1).clamp_min(1e-9).log().clamp_min(LOWEST), lambda values: values.softmax(1)[:, 0]


@dataclass(frozen=True)
class Linear:
    """The linear part of a surrogate. The mean of its product with the mask is known; only the rest is averaged.

    Attributes:
        masks: The masks' distribution.
        average: From grids and places to bin averages.
        level: Its mean.
        slopes: Per bin, (rows, columns).
    """

    masks: RandomMasks
    average: Callable[[Tensor, Tensor], Tensor]
    level: Float[Tensor, ""]
    slopes: Float[Tensor, "rows columns"]

    @classmethod
    def fit(cls, masks: RandomMasks, grids: Float[Tensor, "m s s"], places: Int[Tensor, "m 2"], values: Float[Tensor, " m"]) -> "Linear":
        """Ridge regression of a surrogate's values at some masks on bin averages."""
        bins = (min(WINDOWS, masks.size[0]), min(WINDOWS, masks.size[1]))
        average = masks.averages(bins)
        design = (average(grids, places) - masks.keep).flatten(1)
        gram = design.T @ design
        penalty = (1e-2 * gram.diagonal().mean() + 1e-9) * torch.eye(len(gram)).to(gram)
        slopes = torch.linalg.solve(gram + penalty, design.T @ (values - values.mean()))
        return cls(masks, average, values.mean(), slopes.view(bins))

    def __call__(self, grids: Float[Tensor, "q s s"], places: Int[Tensor, "q 2"]) -> Float[Tensor, " q"]:
        """Its values."""
        return self.level + ((self.average(grids, places) - self.masks.keep) * self.slopes).sum((1, 2))

    def mean_with_mask(self) -> Float[Tensor, "h w"]:
        """E[linear part x mask]."""
        rows, columns = (self.masks.covariance(axis, self.slopes.shape[axis]) for axis in (0, 1))
        keep = self.masks.keep
        return keep * self.level + keep * (1 - keep) * (rows.T @ self.slopes @ columns)
