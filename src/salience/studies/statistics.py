"""Means over images and their intervals.

The unit is the image: seeds and targets of one image are averaged first. Values are arrays (images,) or
(images, seeds, ...); what is not finite is undefined, left out and counted. Too little data gives NaN,
malformed input raises `InputError`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike
from scipy import optimize, stats

from salience.core.errors import InputError

FEWEST_IMAGES = 5
"""Of fewer images an interval is hardly more than the range of their values, and covers less than it says: 0.51, 0.75, 0.88 instead of 0.95 for two, three, four normal values."""

NUMBERS_AT_ONCE = 2**20
"""Resamples are made in blocks of so many numbers; no result depends on it."""


@dataclass(frozen=True)
class ImageMeans:
    """One number an image.

    Attributes:
        values: Mean over what is defined of an image, NaN if nothing is, (images,).
        undefined: How many values of each image were left out, (images,).
    """

    values: Float[np.ndarray, " images"]
    undefined: Int[np.ndarray, " images"]


@dataclass(frozen=True)
class Interval:
    """A confidence interval; both ends are NaN where the data allow none."""

    low: float
    high: float

    def within(self, lowest: float | None, highest: float | None) -> "Interval":
        """Cut off where no mean can lie; None leaves a side as it is."""
        ends = [end if lowest is None else max(end, lowest) for end in (self.low, self.high)]  # in this order NaN stays
        return Interval(*(end if highest is None else min(end, highest) for end in ends))


@dataclass(frozen=True)
class Accuracy:
    """Accuracy of the pointing game.

    Attributes:
        mean: Mean over the classes' accuracies.
        interval: Confidence interval of `mean`.
        classes: The accuracy of each class.
        images: How many images were counted.
        undefined: How many values were left out.
    """

    mean: float
    interval: Interval
    classes: dict[str, float]
    images: int
    undefined: int


def per_image(values: ArrayLike) -> ImageMeans:
    """Mean over the seeds and targets of each image, over those that are defined."""
    table = by_seed(values)
    defined = np.isfinite(table)
    return ImageMeans(_ratio(np.nansum(table, 1), defined.sum(1)), (~defined).sum(1))


def by_seed(values: ArrayLike) -> Float[np.ndarray, "images seeds"]:
    """Values as a table of images x seeds, NaN where undefined.

    Raises:
        InputError: If they are not numbers, or not one row an image.
    """
    try:
        table = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError("Values must be an array of numbers, one row an image; write NaN where a value is undefined.") from error
    if table.ndim == 0 or (table.ndim > 1 and 0 in table.shape[1:]):
        raise InputError(f"Values of shape {table.shape} are not one row an image: give (images,) or (images, seeds).")
    table = table.reshape(len(table), int(np.prod(table.shape[1:])))
    return np.where(np.isfinite(table), table, np.nan)


def bootstrap_interval(values: ArrayLike, level: float = 0.95, seed: int = 0, resamples: int = 5000, shared_seeds: bool = False) -> Interval:
    """Confidence interval of the mean over images, by resampling images.

    Quantiles of the resampled means, taken a little further out: at Phi(t sqrt(n / (n - 1))), t being
    Student's quantile for n - 1 degrees of freedom. Plain percentiles and BCa are both too narrow for few images
    (of normal values they cover 0.89 instead of 0.95 at n = 10; this 0.94), and this one never leaves the range of
    the values either. So it is too narrow under `FEWEST_IMAGES`, and where nearly all images are a hit (or a miss): of 20
    images with a chance of 0.95 each it covers 0.66, as in a third of all cases all are hits and it is a point.

    Shared seeds (weights drawn once for all images) are resampled as well: the mean over resampled images plus
    the mean of resampled seed effects (a seed's mean deviation from its images' means, or from the mean over images where an image lacks seeds), each stretched by
    sqrt(k / (k - 1)) for its k images or seeds to be of the right variance. As a few seeds cannot reach beyond
    their range, the interval is stretched to the width 2 sqrt(t1² v1 + t2² v2), with the variances v of both means
    and Student's quantiles t of n - 1 and k - 1 degrees of freedom: so it covers about what it says with two seeds as well. Noise within
    cells is counted in both, so it is rather too wide.

    Args:
        values: (images,) or (images, seeds).
        level: Of confidence.
        seed: Of the resampling.
        resamples: How many.
        shared_seeds: The same column is the same draw for all images.

    Returns:
        The interval; NaN for fewer than two images, or one shared seed; of equal values both ends are that value.

    Raises:
        InputError: If `level` is not between 0 and 1, or there are no resamples.

    Source: Hesterberg (2015), What teachers should know about the bootstrap (expanded percentiles);
    Rao & Wu (1988) (stretching).

    Differs from the source: the stretched two-way interval combines these.
    """
    rows, effects = _images_and_seeds(values)
    n, s, tail = len(rows), len(effects), _tail(level)
    if not shared_seeds:
        return _expanded(rows, lambda at: rows[at].mean(1), n, tail, seed, resamples)
    if n < 2 or s < 2:
        return Interval(np.nan, np.nan)
    if not np.ptp(effects) and not np.ptp(rows):
        return Interval(float(rows[0]), float(rows[0]))
    moved = _resampled(n, lambda at: rows[at].mean(1) - rows.mean(), resamples, generator(seed, 0)) * np.sqrt(n / (n - 1))
    moved += _resampled(s, lambda at: effects[at].mean(1) - effects.mean(), resamples, generator(seed, 1)) * np.sqrt(s / (s - 1))
    low, high = np.quantile(moved, [tail, 1 - tail])
    low, high = rows.mean() + np.array([low, high]) * 2 * _reach(rows, effects, tail) / (high - low)
    return Interval(float(low), float(high))


def p_of_shared_seeds(values: ArrayLike) -> float:
    """The p-value of a mean of 0, two-sided, where columns are draws that all images share: images and draws are both a sample.

    It is 1 - level of the interval that reaches from the mean to 0, its width being that of `bootstrap_interval`. NaN for fewer
    than two images or seeds.

    Args:
        values: (images, seeds).
    """
    rows, effects = _images_and_seeds(values)
    if len(rows) < 2 or len(effects) < 2:
        return float("nan")
    mean, least = abs(rows.mean()), 1e-15
    if _reach(rows, effects, least) <= mean:
        return 2 * least if mean else 1.0
    return float(2 * optimize.brentq(lambda tail: _reach(rows, effects, tail) - mean, least, 0.5))


def _images_and_seeds(values: ArrayLike) -> tuple[Float[np.ndarray, " images"], Float[np.ndarray, " seeds"]]:
    """The mean of each image, and each seed's mean deviation from its images' means, of what has a value.

    The mean of an image that lacks seeds holds what the others did to it (of a single one, all of it), so its deviations are from the mean over images.
    """
    table = by_seed(values)
    table = table[np.isfinite(table).any(1)]
    rows = per_image(table).values
    table = table[:, np.isfinite(table).any(0)]
    lacking = np.isnan(table).any(1)
    origins = np.where(lacking, rows.mean(), rows) if lacking.any() else rows
    return rows, np.nanmean(table - origins[:, None], 0)


def _reach(rows: np.ndarray, effects: np.ndarray, tail: float) -> float:
    """Half the width of an interval of the mean over images and shared seeds."""
    return float(np.hypot(*(stats.t.isf(tail, len(each) - 1) * each.std(ddof=1) / np.sqrt(len(each)) for each in (rows, effects))))


def pointing_accuracy(hits: ArrayLike, classes: ArrayLike, images: ArrayLike | None = None, level: float = 0.95, seed: int = 0, resamples: int = 5000, shared_seeds: bool = False) -> Accuracy:
    """Accuracy of the pointing game: the mean over classes of each class's mean hit.

    Its interval resamples images, all classes of an image together, then takes the classes' means; a class that a
    resample misses is left out of it. Where a class of few images weighs most, the interval is a little too narrow
    (it covers 0.93 instead of 0.95 with 60, 25 and 15 images).

    Shared seeds are counted too: both ends are moved out, from d to sqrt(d² + t² v) off the mean, with the variance v of the mean
    over the seeds' own accuracies and Student's quantile t. With one shared seed there is no interval.

    Args:
        hits: 1 for a hit, 0 for a miss, shares for ties; (rows,) or (rows, seeds), one row an image and class.
        classes: The class of each row.
        images: The image of each row, by any name; None: each row is an image of its own.
        level: Of confidence.
        seed: Of the resampling.
        resamples: How many.
        shared_seeds: The same column is the same draw for all images.

    Raises:
        InputError: If there are not as many classes or images as rows.

    Source: Zhang et al. (2018), Top-down neural attention by excitation backprop. Differs from the
    source: it has no interval.
    """
    table, means = by_seed(hits), per_image(hits)
    labels = np.asarray(classes)
    names = np.arange(len(labels)) if images is None else np.asarray(images)
    if labels.shape != means.values.shape or names.shape != means.values.shape:
        raise InputError(f"The pointing game has {len(means.values)} rows, but {labels.size} classes and {names.size} images: give one of each per row.")
    defined = np.isfinite(means.values)
    kinds, kind = np.unique(labels[defined], return_inverse=True)
    different, image = np.unique(names[defined], return_inverse=True)
    hit, count = np.zeros((2, len(different), len(kinds)))
    np.add.at(hit, (image, kind), means.values[defined])
    np.add.at(count, (image, kind), 1)

    def resampled(at: Int[np.ndarray, "b images"]) -> Float[np.ndarray, " b"]:
        b, n = at.shape
        weights = np.bincount((at + np.arange(b)[:, None] * n).ravel(), minlength=b * n).reshape(b, n).astype(np.float64)
        return per_image(_ratio(weights @ hit, weights @ count)).values

    accuracy, n = _ratio(hit.sum(0), count.sum(0)), len(different)
    interval = _expanded(means.values[defined], resampled, n, _tail(level), seed, resamples)
    if shared_seeds and n:
        sums, counts = np.zeros((2, len(kinds), table.shape[1]))
        np.add.at(sums, kind, np.nan_to_num(table[defined]))
        np.add.at(counts, kind, np.isfinite(table[defined]))
        interval = _with_seeds(interval, float(accuracy.mean()), per_image(_ratio(sums, counts).T).values, _tail(level)).within(0.0, 1.0)
    by_class = {str(name): float(value) for name, value in zip(kinds, accuracy, strict=True)}
    return Accuracy(float(accuracy.mean()) if n else np.nan, interval, by_class, n, int(means.undefined.sum()))


def _with_seeds(interval: Interval, mean: float, seeds: Float[np.ndarray, " seeds"], tail: float) -> Interval:
    """An interval over images, moved out for what shared seeds add, from the mean under each."""
    seeds = seeds[np.isfinite(seeds)]
    if len(seeds) < 2:
        return Interval(np.nan, np.nan)
    reach = stats.t.isf(tail, len(seeds) - 1) * stats.sem(seeds)
    return Interval(float(mean - np.hypot(mean - interval.low, reach)), float(mean + np.hypot(interval.high - mean, reach)))


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Quotients, NaN where there is nothing to divide by."""
    return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below > 0)


def _tail(level: float) -> float:
    if not 0 < level < 1:
        raise InputError(f"The level of an interval lies between 0 and 1, for example 0.95; it was {level}.")
    return (1 - level) / 2


def generator(seed: int, *parts: int) -> np.random.Generator:
    """The generator of one kind of draw."""
    return np.random.default_rng([seed % 2**64, *parts])


def _resampled(n: int, statistic: Callable[[np.ndarray], np.ndarray], resamples: int, source: np.random.Generator) -> Float[np.ndarray, " resamples"]:
    """A statistic of each row of (b, n) indices drawn with replacement."""
    if resamples < 1:
        raise InputError(f"An interval needs resamples, for example 5000; they were {resamples}.")
    block = max(1, NUMBERS_AT_ONCE // n)
    return np.concatenate([statistic(source.integers(n, size=(min(block, resamples - start), n))) for start in range(0, resamples, block)])


def _expanded(rows: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], n: int, tail: float, seed: int, resamples: int) -> Interval:
    """Expanded percentiles of a statistic of n resampled images."""
    if n < 2:
        return Interval(np.nan, np.nan)
    if not np.ptp(rows):
        return Interval(float(rows[0]), float(rows[0]))
    outer = stats.norm.cdf(stats.t.ppf(tail, n - 1) * np.sqrt(n / (n - 1)))
    low, high = np.quantile(_resampled(n, statistic, resamples, generator(seed, 0)), [outer, 1 - outer])
    return Interval(float(low), float(high))
