"""Tests of one method against another, and of all methods of a table's column against the best."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy import stats

from salience.core.errors import InputError
from salience.studies.statistics import Interval, bootstrap_interval, by_seed, generator, p_of_shared_seeds, per_image

FEWEST_PAIRS = 6
"""With fewer pairs no two-sided signed-rank test can reach p = 0.05."""

FEW_VALUES = 10
"""A metric with at most so many values, such as hit or miss, is tested by sign flips."""

EXACT = 50
"""Up to so many differing pairs the signed-rank test is exact: the normal approximation finds p = 0.046 where four pairs of fifty differ, which cannot be under 0.125."""

MOST_OUTCOMES = 2**20
"""Sign flips are enumerated up to so many outcomes, beyond that drawn at random."""

ONE_SEED = "the weights were drawn once: draw them at least twice, or leave the method out of the shared ones to test for these weights alone"


@dataclass(frozen=True)
class PairedTest:
    """What pairs of values of the same images say about methods a and b.

    Attributes:
        pairs: Images for which both are defined.
        difference: Mean of a - b.
        interval: Confidence interval of `difference`.
        median: Median of a - b.
        effect: Matched-pairs rank-biserial correlation, -1 (b is larger in every pair) to 1; 0 without any difference.
        p: Two-sided, NaN if not testable.
        test: ``wilcoxon`` or ``sign flips``.
        why_not: Why there is no test; empty if there is one.
    """

    pairs: int
    difference: float
    interval: Interval
    median: float
    effect: float
    p: float
    test: str
    why_not: str = ""


@dataclass(frozen=True)
class Standing:
    """One method's line in a comparison.

    Attributes:
        mean: Over all images for which the method is defined.
        interval: Confidence interval of `mean`.
        images: How many images that are.
        undefined: How many values (images x seeds) were left out.
        against_best: The test of this method (a) against the best (b), None for the best itself.
        adjusted: The test's p by Holm's method, NaN if not testable.
        tied: Not significantly worse than the best by `adjusted`; this does not show that the two are equal: see
            the interval of the difference. None if not testable.
        tied_unadjusted: The same by the test's own p, as the tables of NoiseGrad's paper have it.
    """

    mean: float
    interval: Interval
    images: int
    undefined: int
    against_best: PairedTest | None
    adjusted: float
    tied: bool | None
    tied_unadjusted: bool | None


@dataclass(frozen=True)
class Comparison:
    """All methods against the best of a column.

    Attributes:
        best: Its name; None if no method has a value.
        methods: By name, in the order given.
    """

    best: str | None
    methods: dict[str, Standing]


def paired_test(a: ArrayLike, b: ArrayLike, level: float = 0.95, seed: int = 0, resamples: int = 5000, shared_seeds: bool = False, few_values: bool | None = None) -> PairedTest:
    """Test whether two methods differ on the same images, two-sided.

    Wilcoxon's signed-rank test, equal pairs ranked but not counted (Pratt); exact, ties included, if at most `EXACT` pairs
    differ, else by `scipy.stats.wilcoxon`'s normal approximation. Metrics with few values, such as
    hit or miss, are tested by flipping the signs of the differences: p is the share of flips whose sum is at least as
    far from zero; all flips if they have at most `MOST_OUTCOMES` outcomes, else (count + 1) / (resamples + 1) of
    random ones. With one value (0 and 1) this is McNemar's exact test.

    The tests take images as independent. Where seeds are shared this holds for the weights drawn only: there p is at least
    that of `p_of_shared_seeds`, for which the draws are a sample too.

    Args:
        a: (images,) or (images, seeds).
        b: Of the same images in the same order.
        level: Of the interval's confidence.
        seed: Of all resampling.
        resamples: How many.
        shared_seeds: Column j of either is the same draw for all images, and for both methods; one column fits any.
        few_values: The metric takes few values; None: if both have at most `FEW_VALUES` and half as many as images.

    Raises:
        InputError: If the images, or the shared seeds, are not as many for a as for b.
    """
    first, second = by_seed(a), by_seed(b)
    if len(first) != len(second):
        raise InputError(f"A paired test needs the same images for both methods, but there are {len(first)} and {len(second)}: write NaN where a value is missing.")
    if not shared_seeds:
        first, second = (per_image(each).values[:, None] for each in (first, second))
    elif first.shape[1] != second.shape[1] and 1 not in (first.shape[1], second.shape[1]):
        raise InputError(f"Methods that share their weight draws need the same seeds, but there are {first.shape[1]} and {second.shape[1]}.")
    table = first - second
    scale = np.nanmax(np.abs(np.concatenate([first.ravel(), second.ravel(), [0.0]]))) or 1.0
    rows = per_image(table).values
    both = np.isfinite(rows)
    difference = np.round(rows[both] / scale, 12)  # means of equal numbers may differ in their last bit, which would break ties
    pairs = len(difference)
    ranks = stats.rankdata(np.abs(difference)) * np.sign(difference)
    few = few_values if few_values is not None else _few(per_image(first).values[both]) and _few(per_image(second).values[both])
    why_not, p = "", np.nan
    if pairs < FEWEST_PAIRS:
        why_not = f"not testable: {pairs} pairs, at least {FEWEST_PAIRS} are needed"
    elif shared_seeds and np.isfinite(table).any(0).sum() < 2:
        why_not = f"not testable: {ONE_SEED}"
    elif not difference.any():
        p = 1.0
    else:
        p = _sign_flips(difference, seed, resamples) if few else _signed_ranks(ranks)
        p = max(p, p_of_shared_seeds(table)) if shared_seeds else p
    return PairedTest(
        pairs,
        float(rows[both].mean()) if pairs else np.nan,
        bootstrap_interval(table, level, seed, resamples, shared_seeds),
        float(np.median(rows[both])) if pairs else np.nan,
        float(ranks.sum() / (np.abs(ranks).sum() or 1.0)) if pairs else np.nan,
        p,
        "sign flips" if few else "wilcoxon",
        why_not,
    )


def holm(p_values: ArrayLike) -> Float[np.ndarray, " tests"]:
    """p-values adjusted for their number by Holm's method; NaN stays NaN and does not count.

    The k-th smallest of m becomes the largest of (m - i + 1) p_i over i = 1..k, at most 1.

    Source: Holm (1979). Differs from the source: nothing.
    """
    p = np.asarray(p_values, dtype=np.float64).reshape(-1)
    order = np.argsort(p, kind="stable")[: np.isfinite(p).sum()]
    adjusted = np.full_like(p, np.nan)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)), 1)
    return adjusted


def compare(
    column: Mapping[str, ArrayLike],
    higher_is_better: bool,
    level: float = 0.95,
    seed: int = 0,
    resamples: int = 5000,
    shared: Collection[str] = (),
    within: tuple[float | None, float | None] = (None, None),
) -> Comparison:
    """All methods of one column of a table (a metric on a data set and a model) against the best of them.

    The best is the one with the best mean, over the images for which it is defined. A method is significantly worse if
    its p is under 1 - level and both its mean difference and its ranks are on the worse side; where weight draws are
    shared, p counts them too and the difference's interval must leave out 0. The best is chosen on the same images, so that
    differences are a little larger than new images would show.

    Args:
        column: For each method (images,) or (images, seeds), the same images in the same order.
        higher_is_better: Of the metric.
        level: Of the intervals' confidence; tests are at 1 - level.
        seed: Of all resampling.
        resamples: How many.
        shared: The methods whose columns are weight draws that all images share; the same draws for all of these.
        within: The least and the greatest value of the metric, beyond which no interval of a mean reaches; None where there is none.

    Raises:
        InputError: If the methods do not have the same number of images, or one of `shared` is not in the column.
    """
    tables = {name: by_seed(values) for name, values in column.items()}
    if len({len(table) for table in tables.values()}) > 1:
        counts = ", ".join(f"{name} {len(table)}" for name, table in tables.items())
        raise InputError(f"All methods need the same images, but their numbers are {counts}: write NaN where a value is missing.")
    if missing := sorted(set(shared) - set(tables)):
        raise InputError(f"The column has no method {missing[0]!r}: its weight draws cannot be shared.")
    rows = {name: per_image(table).values for name, table in tables.items()}
    means = {name: float(each[np.isfinite(each)].mean()) for name, each in rows.items() if np.isfinite(each).any()}
    sign = 1 if higher_is_better else -1
    best = max(means, key=lambda name: sign * means[name]) if means else None
    few = all(_few(each) for each in rows.values())

    tests = {}
    for name in tables:
        if best is not None and name != best:
            a, b = (tables[each] if each in shared else rows[each] for each in (name, best))
            tests[name] = paired_test(a, b, level, seed, resamples, name in shared or best in shared, few)
    adjusted = dict(zip(tests, holm([test.p for test in tests.values()]), strict=True))

    def tied(name: str, p: float) -> bool | None:
        test = tests[name]
        if np.isnan(p):
            return None
        apart = not {name, best} & set(shared) or not test.interval.low <= 0 <= test.interval.high
        return not (p < round(1 - level, 12) and apart and sign * test.difference < 0 and sign * test.effect < 0)

    methods = {}
    for name, table in tables.items():
        alone = name not in tests
        methods[name] = Standing(
            means.get(name, np.nan),
            bootstrap_interval(table, level, seed, resamples, name in shared).within(*within),
            int(np.isfinite(rows[name]).sum()),
            int(np.isnan(table).sum()),
            None if alone else tests[name],
            np.nan if alone else float(adjusted[name]),
            (name == best or None) if alone else tied(name, adjusted[name]),
            (name == best or None) if alone else tied(name, tests[name].p),
        )
    return Comparison(best, methods)


def _few(values: Float[np.ndarray, " images"]) -> bool:
    defined = values[np.isfinite(values)]
    distinct = np.unique(np.round(defined / (np.abs(defined).max(initial=0.0) or 1.0), 12))
    return len(distinct) <= min(FEW_VALUES, len(defined) / 2)


def _signed_ranks(ranks: Float[np.ndarray, " pairs"]) -> float:
    """The p-value of the sum of signed ranks, 0 for equal pairs, when each may as well have had the other sign."""
    signed = np.rint(2 * ranks[ranks != 0]).astype(int)  # whole numbers, as ties share their ranks
    if len(signed) > EXACT:
        return float(stats.wilcoxon(ranks, zero_method="pratt").pvalue)
    total = np.abs(signed).sum()
    chances = np.zeros(total + 1)  # of each sum of the positive ones
    chances[0] = 1
    for rank in np.abs(signed):
        chances = (chances + np.concatenate([np.zeros(rank), chances[:-rank]])) / 2
    return float(min(chances[np.abs(2 * np.arange(total + 1) - total) >= abs(signed.sum())].sum(), 1.0))


def _sign_flips(difference: Float[np.ndarray, " pairs"], seed: int, draws: int) -> float:
    """The p-value of the sum of differences, when each difference may as well have had the other sign.

    Equal sizes are flipped together: of m differences of size v, k are positive with the chances of a fair coin.
    """
    sizes, counts = np.unique(np.abs(difference[difference != 0]), return_counts=True)
    observed = np.abs(difference.sum()) - 1e-9 * sizes.max()
    if np.prod(counts + 1.0) > MOST_OUTCOMES:
        positive = generator(seed, 2).binomial(counts, 0.5, size=(draws, len(counts)))
        return float((np.sum(np.abs((2 * positive - counts) @ sizes) >= observed) + 1) / (draws + 1))
    sums, chances = np.zeros(1), np.ones(1)
    for size, count in zip(sizes, counts, strict=True):
        positive = np.arange(count + 1)
        sums = np.add.outer(sums, size * (2 * positive - count)).ravel()
        chances = np.multiply.outer(chances, stats.binom.pmf(positive, count, 0.5)).ravel()
    return float(min(chances[np.abs(sums) >= observed].sum(), 1.0))
