"""Where the variance of a metric's values comes from, and what a new seed would change."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from salience.core.errors import InputError
from salience.studies.statistics import by_seed, per_image


@dataclass(frozen=True)
class VarianceSplit:
    """The variance of single values, split by what causes it; NaN where no image has two seeds.

    Attributes:
        images: Between images.
        sampling: Of an image's value, by the known Monte-Carlo error; 0 if no error is known.
        seeds: Of an image's value, beyond that: weight draws, other networks, and sampling noise not known as such.
    """

    images: float
    sampling: float
    seeds: float


def variance_split(values: ArrayLike, stderr: ArrayLike | None = None) -> VarianceSplit:
    """Split the variance of values between images, sampling noise and seeds.

    One-way random-effects analysis of variance: the mean square within images estimates sampling + seeds; that
    between images, less the one within, divided by the (effective) seeds an image, estimates images. Sampling is the mean
    of the squared errors, at most what is within. Estimates under 0 become 0. Undefined values are left out, and
    images may have different numbers of seeds.

    Args:
        values: (images, seeds).
        stderr: The values' own Monte-Carlo errors, of the shape of `values`, or (images,) if equal for all seeds.

    Raises:
        InputError: If the errors do not fit the values.

    Source: Searle, Casella & McCulloch (1992), Variance components. Differs from the source: nothing.
    """
    table = by_seed(values)
    errors = np.zeros((1, 1)) if stderr is None else by_seed(stderr)
    if stderr is not None and (len(errors) != len(table) or errors.shape[1] not in (1, table.shape[1])):
        raise InputError(f"Errors of shape {errors.shape} do not fit values of shape {table.shape}: give one per value, or one per image.")
    defined = np.isfinite(table)
    counts = defined.sum(1)[defined.any(1)]
    total, k = counts.sum(), len(counts)
    if k < 2 or total == k:
        return VarianceSplit(np.nan, np.nan, np.nan)
    means = per_image(table).values
    within = np.nansum((table - means[:, None]) ** 2) / (total - k)
    grand = table[defined].mean()
    between = (counts * (means[np.isfinite(means)] - grand) ** 2).sum() / (k - 1)
    effective = (total - (counts**2).sum() / total) / (k - 1)
    squares = np.broadcast_to(errors**2, table.shape)[defined]
    known = squares[np.isfinite(squares)]
    sampling = min(known.mean(), within) if len(known) else 0.0
    return VarianceSplit(float(max(0.0, (between - within) / effective)), float(sampling), float(within - sampling))


def flip_probability(a: ArrayLike, b: ArrayLike) -> float:
    """The chance that one new seed ranks two methods' means the other way round, on the same images.

    With d the mean difference over common images, one a seed, and k seeds, a new seed's difference is predicted by
    Student's t with k - 1 degrees of freedom around mean(d), scale sd(d) sqrt(1 + 1 / k); the answer is its part
    beyond 0. So it is right on the average over how far apart methods are; of methods that are really equal it
    says less than the true 0.5 if seeds are few.

    Args:
        a: (images, seeds); column j of both methods are runs with the same seed, if they share any draws.
        b: Likewise; one column is a method without randomness.

    Returns:
        0 to 0.5; NaN without at least two seeds, or a common image that is defined for all of them; 0.5 if all
        differences are 0.

    Raises:
        InputError: If the images or the seeds are not as many for both.

    Source: the predictive distribution of a normal sample. Differs from the source: nothing.
    """
    first, second = by_seed(a), by_seed(b)
    if len(first) != len(second) or (first.shape[1] != second.shape[1] and 1 not in (first.shape[1], second.shape[1])):
        raise InputError(f"Two methods are ranked on the same images and seeds, but their values are {first.shape} and {second.shape}.")
    table = first - second
    common = table[np.isfinite(table).all(1)]
    k = table.shape[1]
    if k < 2 or not len(common):
        return float("nan")
    difference = common.mean(0)
    centre, scale = abs(difference.mean()), difference.std(ddof=1) * np.sqrt(1 + 1 / k)
    if scale <= 1e-12 * np.abs(difference).max():
        return 0.0 if centre > 0 else 0.5
    return float(stats.t.sf(centre / scale, k - 1))
