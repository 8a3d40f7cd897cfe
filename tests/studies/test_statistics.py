"""Statistics of studies: intervals that cover, tests of the right size, numbers known beforehand."""

import re
from itertools import product

import numpy as np
import pytest
from scipy import stats

from salience.core.errors import InputError
from salience.studies import statistics
from salience.studies.comparison import compare, holm, paired_test
from salience.studies.statistics import FEWEST_IMAGES, Interval, bootstrap_interval, p_of_shared_seeds, per_image, pointing_accuracy
from salience.studies.variance import flip_probability, variance_split

NAN = np.nan


def numbers(seed=0):
    return np.random.default_rng(seed)


def refused(message):
    return pytest.raises(InputError, match=f"^{re.escape(message)}$")


def covered(draw, truth, runs=400, **options):
    """The share of intervals that hold the truth."""
    found = [bootstrap_interval(draw(), seed=run, resamples=600, **options) for run in range(runs)]
    return np.mean([each.low <= truth <= each.high for each in found])


# one number an image


def test_images_are_averaged_over_seeds_and_targets_and_the_undefined_counted():
    values = np.array([[[1, 2], [3, NAN]], [[NAN, NAN], [NAN, NAN]], [[1, np.inf], [1, 1]]])
    found = per_image(values)
    assert np.array_equal(found.values, [2, NAN, 1], equal_nan=True)
    assert found.undefined.tolist() == [1, 4, 1]


def test_one_number_an_image_is_taken_as_it_is():
    assert np.array_equal(per_image([3, 1, NAN]).values, [3, 1, NAN], equal_nan=True)
    assert len(per_image([]).values) == 0


@pytest.mark.parametrize("bad", [1.0, np.zeros((3, 0))])
def test_what_is_not_a_row_an_image_is_refused(bad):
    with refused(f"Values of shape {np.shape(bad)} are not one row an image: give (images,) or (images, seeds)."):
        per_image(bad)


def test_what_is_not_a_number_is_refused():
    with refused("Values must be an array of numbers, one row an image; write NaN where a value is undefined."):
        per_image(["a", "b"])


# intervals


@pytest.mark.parametrize(
    ("draw", "truth", "least"),
    [
        (lambda rng: rng.normal(size=10), 0, 0.90),
        (lambda rng: rng.normal(size=40), 0, 0.92),
        (lambda rng: rng.beta(0.5, 2, size=40), 0.2, 0.91),
        (lambda rng: (rng.random(60) < 0.7).astype(float), 0.7, 0.92),
    ],
)
def test_the_interval_covers_the_mean(draw, truth, least):
    rng = numbers()
    assert least <= covered(lambda: draw(rng), truth) <= 0.98


def test_the_interval_of_many_values_is_the_normal_one():
    values = numbers(1).normal(3, 2, size=2000)
    found, half = bootstrap_interval(values, resamples=20_000), 1.959964 * values.std(ddof=1) / np.sqrt(2000)
    assert found.low == pytest.approx(values.mean() - half, abs=0.06 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.06 * half)
    ninety = bootstrap_interval(values, level=0.9, resamples=20_000)
    assert (ninety.high - ninety.low) / (found.high - found.low) == pytest.approx(1.644854 / 1.959964, rel=0.05)


def test_the_interval_stays_within_the_range_and_follows_the_skew():
    values = np.array([0.0, 0, 0, 0, 0, 0, 0, 1, 0, 0])
    found = bootstrap_interval(values)
    assert found.low == 0
    assert found.high - values.mean() > values.mean() - found.low
    assert found.high <= 1


def test_intervals_with_nothing_to_resample():
    assert bootstrap_interval([0.1] * 7) == Interval(0.1, 0.1)
    assert bootstrap_interval(np.full((7, 3), 0.25), shared_seeds=True) == Interval(0.25, 0.25)
    for few in ([], [1.0], [1.0, NAN]):
        assert np.isnan([bootstrap_interval(few).low, bootstrap_interval(few).high]).all()
    one_seed = bootstrap_interval(numbers().normal(size=(9, 1)), shared_seeds=True)
    no_pairs = bootstrap_interval(np.full((4, 2), NAN), shared_seeds=True)
    assert np.isnan([one_seed.low, one_seed.high, no_pairs.low, no_pairs.high]).all()


def test_the_interval_depends_on_the_seed_and_not_on_the_blocks(monkeypatch):
    values = numbers().normal(size=(30, 4))
    for shared in (False, True):
        whole, other = (bootstrap_interval(values, seed=seed, shared_seeds=shared) for seed in (3, -3))
        monkeypatch.setattr(statistics, "NUMBERS_AT_ONCE", 77)
        assert bootstrap_interval(values, seed=3, shared_seeds=shared) == whole != other
        monkeypatch.undo()


def test_undefined_images_are_left_out():
    values = numbers().normal(size=(30, 2))
    holes = np.concatenate([values, np.full((5, 2), NAN)])
    assert bootstrap_interval(holes) == bootstrap_interval(values)
    assert bootstrap_interval(values) == bootstrap_interval(values.mean(1))


@pytest.mark.parametrize(("images", "covered"), [(2, 0.51), (3, 0.75), (4, 0.88)])
def test_few_images_have_too_narrow_an_interval(images, covered):
    """What `FEWEST_IMAGES` says."""
    assert images < FEWEST_IMAGES
    ends = [bootstrap_interval(values, resamples=300) for values in np.random.default_rng(0).normal(size=(1000, images))]
    assert np.mean([end.low <= 0 <= end.high for end in ends]) == pytest.approx(covered, abs=0.04)


def test_an_interval_is_cut_off_where_no_mean_can_lie():
    assert Interval(-0.5, 1.5).within(0.0, 1.0) == Interval(0.0, 1.0)
    assert Interval(-0.5, 1.5).within(0.0, None) == Interval(0.0, 1.5)
    assert Interval(-0.5, 1.5).within(None, None) == Interval(-0.5, 1.5)
    assert np.isnan(Interval(NAN, NAN).within(0.0, 1.0).low)


@pytest.mark.parametrize(("between", "shared", "seeds"), [(1, 0.0, 5), (1, 1.0, 5), (0.2, 1.0, 5), (1, 0.5, 2), (0.2, 1.0, 2), (1, 0.5, 3)])
def test_with_shared_seeds_the_interval_covers_what_new_seeds_would_give(between, shared, seeds):
    """With two seeds it covered 0.88."""
    rng = numbers(2)

    def draw():
        return between * rng.normal(size=(25, 1)) + shared * rng.normal(size=(1, seeds)) + 0.3 * rng.normal(size=(25, seeds))

    assert covered(draw, 0, shared_seeds=True) >= 0.91
    if shared:
        assert covered(draw, 0) < 0.8


def test_a_seed_counts_too_where_each_image_has_one_seed_alone():
    """Deviations from the images' own means were all 0, as if no seed had an effect: the interval covered 0.67."""
    seeds, images = np.arange(30) % 5, np.arange(30) // 5
    values = np.full((30, 5), np.nan)
    values[np.arange(30), seeds] = seeds + images / 10
    student = stats.ttest_1samp(np.arange(5) + 0.25, 0).confidence_interval()
    found = bootstrap_interval(values, shared_seeds=True)
    assert found.high - found.low >= student.high - student.low
    values[:15] = np.arange(5)
    some, every = bootstrap_interval(values, shared_seeds=True), bootstrap_interval(np.tile(np.arange(5.0), (30, 1)), shared_seeds=True)
    assert some.high - some.low >= 0.95 * (every.high - every.low)


def test_with_shared_seeds_the_interval_is_students_where_only_one_thing_varies():
    scores = stats.norm.ppf((np.arange(8) + 0.5) / 8)
    table = scores[:, None] + 1e-6 * scores
    for each in (table, table.T):
        found = bootstrap_interval(each, resamples=50_000, shared_seeds=True)
        assert found.high - found.low == pytest.approx(2 * stats.t.ppf(0.975, 7) * scores.std(ddof=1) / np.sqrt(8), rel=0.02)


@pytest.mark.parametrize(
    ("call", "message"),
    [({"level": 95.0}, "The level of an interval lies between 0 and 1, for example 0.95; it was 95.0."), ({"resamples": 0}, "An interval needs resamples, for example 5000; they were 0.")],
)
def test_impossible_intervals_are_refused(call, message):
    with refused(message):
        bootstrap_interval([1.0, 2.0], **call)


# tests of pairs


def enumerated(difference, statistic):
    """p by every way of giving the differences signs."""
    sums = [abs(np.dot(signs, statistic)) for signs in product([-1, 1], repeat=len(difference))]
    return np.mean(np.array(sums) >= abs(np.dot(np.sign(difference), statistic)) - 1e-9)


def test_wilcoxon_is_scipys_and_exact_for_few_pairs():
    rng = numbers()
    a, b = rng.normal(0.4, 1, size=(2, 60))
    assert paired_test(a, b).p == pytest.approx(stats.wilcoxon(a, b, zero_method="pratt").pvalue)
    difference = (a - b)[:11]
    found = paired_test(a[:11], b[:11])
    assert found.test == "wilcoxon"
    assert found.p == pytest.approx(enumerated(difference, stats.rankdata(np.abs(difference))), abs=1e-12)


def test_equal_pairs_are_ranked_but_not_counted():
    """Pratt's way: the ranks of the others stay as they are with the zeros."""
    difference = np.array([0, 0, 0.1, 0.2, -0.3, 0.4, 0.5, 0.6, 0.7, 0.8])
    ranks = stats.rankdata(np.abs(difference))
    other = numbers().normal(size=10)
    found = paired_test(other + difference, other)
    assert found.p == pytest.approx(enumerated(difference[2:], ranks[2:]), abs=1e-12)
    assert found.effect == pytest.approx((ranks[2:].sum() - 2 * ranks[4]) / ranks[2:].sum())


@pytest.mark.parametrize("equal", [0, 3, 40])
def test_few_pairs_that_differ_are_tested_exactly(equal):
    """With equal pairs among more than 13 the normal approximation was taken: four pairs that differ gave p = 0.046."""
    difference = np.concatenate([np.zeros(equal), [0.1, 0.1, 0.2, -0.2, 0.3, 0.4, 0.4, 0.4, 0.9]])
    ranks = stats.rankdata(np.abs(difference))[equal:]
    other = np.linspace(1, 2, len(difference))
    assert paired_test(other + difference, other, few_values=False).p == pytest.approx(enumerated(difference[equal:], ranks), abs=1e-12)
    four = np.concatenate([np.zeros(46), [0.1, 0.2, 0.3, 0.4]])
    assert paired_test(np.linspace(1, 2, 50) + four, np.linspace(1, 2, 50)).p == pytest.approx(2 / 2**4)


def test_many_pairs_with_ties_are_tested_as_scipy_does():
    difference = numbers(3).integers(-3, 5, size=90).astype(float)
    assert (difference != 0).sum() > 50
    assert paired_test(difference, np.zeros(90), few_values=False).p == pytest.approx(stats.wilcoxon(difference, zero_method="pratt").pvalue)


def test_rounding_does_not_break_ties():
    """Thirds are not exact: 2/3 - 1/3 and 1/3 - 0 differ in their last bit."""
    rng = numbers(4)
    a, b = rng.integers(0, 4, size=(2, 40))
    found, exact = paired_test(a / 3, b / 3, few_values=False), paired_test(a, b, few_values=False).p
    assert len(np.unique(np.abs(a / 3 - b / 3))) > len(np.unique(np.abs(a - b)))
    assert found.p == pytest.approx(exact, abs=1e-12)
    assert found.effect == pytest.approx(paired_test(a, b).effect, abs=1e-12)


def test_sign_flips_equal_enumeration():
    rng = numbers(5)
    a, b = rng.integers(0, 4, size=(2, 12)) / 3
    found = paired_test(a, b)
    assert found.test == "sign flips"
    assert found.p == pytest.approx(enumerated(a - b, np.abs(a - b)), abs=1e-12)
    a, b = rng.normal(0.5, 1, size=(2, 12))
    assert paired_test(a, b, few_values=True).p == pytest.approx(enumerated(a - b, np.abs(a - b)), abs=1e-12)


def test_sign_flips_of_hits_are_mcnemars_exact_test():
    rng = numbers(6)
    a, b = (rng.random((2, 500)) < [[0.75], [0.68]]).astype(float)
    better, worse = int((a > b).sum()), int((a < b).sum())
    assert paired_test(a, b).p == pytest.approx(stats.binomtest(better, better + worse).pvalue, rel=1e-9)


def test_random_sign_flips_come_near_the_exact_ones(monkeypatch):
    rng = numbers(7)
    a, b = rng.integers(0, 4, size=(2, 40)) / 3 + [[0.15], [0]]
    exact = paired_test(a, b, few_values=True).p
    monkeypatch.setattr("salience.studies.comparison.MOST_OUTCOMES", 1)
    drawn = paired_test(a, b, few_values=True, resamples=50_000)
    assert drawn.p == pytest.approx(exact, abs=5 * np.sqrt(exact / 50_000))
    assert drawn == paired_test(a, b, few_values=True, resamples=50_000)
    assert paired_test(np.arange(1, 31), np.zeros(30), few_values=True, resamples=99).p == 0.01


def test_tests_hold_their_size_and_find_a_clear_effect():
    rng = numbers(8)

    def rejected(draw, runs):
        return np.mean([paired_test(*draw(), resamples=1).p < 0.05 for _ in range(runs)])

    def hits(of_first, of_second):
        return (rng.random((2, 200)) < [[of_first], [of_second]]).astype(float)

    def skewed(shift):
        """Paired: both methods find the same images hard."""
        hard = rng.exponential(size=25)
        return hard + rng.normal(shift, 0.3, size=25), hard + rng.normal(0, 0.3, size=25)

    assert 0.03 <= rejected(lambda: skewed(0), 1000) <= 0.07
    assert 0.02 <= rejected(lambda: hits(0.6, 0.6), 500) <= 0.06
    assert rejected(lambda: skewed(0.4), 100) > 0.97
    assert rejected(lambda: hits(0.8, 0.6), 100) > 0.95


def test_what_a_test_reports():
    a, b = np.array([[3.0, 5], [2, NAN], [NAN, NAN], [4, 4], [1, 1], [9, 9], [5, 5]]), np.array([1.0, 1, 1, 1, 1, NAN, 1])
    found = paired_test(a, b)
    assert (found.pairs, found.difference, found.median, found.effect) == (5, 2.2, 3.0, 1.0)
    assert np.isnan(found.p)
    assert found.why_not == "not testable: 5 pairs, at least 6 are needed"
    assert found.interval == bootstrap_interval([3.0, 1, 3, 0, 4])


def test_a_and_b_change_places():
    a, b = numbers().normal(size=(2, 20, 3))
    for shared in (False, True):
        there, back = paired_test(a, b, shared_seeds=shared), paired_test(b, a, shared_seeds=shared)
        assert there.p == pytest.approx(back.p)
        assert (there.difference, there.median, there.effect) == pytest.approx((-back.difference, -back.median, -back.effect))


def test_equal_methods_and_none():
    same = numbers().normal(size=10)
    found = paired_test(same, same)
    assert (found.p, found.effect, found.interval, found.why_not) == (1.0, 0.0, Interval(0.0, 0.0), "")
    nothing = paired_test(np.full(10, NAN), same)
    assert nothing.pairs == 0
    assert np.isnan([nothing.p, nothing.difference, nothing.median, nothing.effect, nothing.interval.low]).all()


def test_pairs_that_do_not_fit_are_refused():
    with refused("A paired test needs the same images for both methods, but there are 3 and 4: write NaN where a value is missing."):
        paired_test([1, 2, 3], [1, 2, 3, 4])
    with refused("Methods that share their weight draws need the same seeds, but there are 2 and 3."):
        paired_test(np.zeros((7, 2)), np.zeros((7, 3)), shared_seeds=True)


def test_weights_drawn_once_are_no_sample():
    a, b = numbers().normal(size=(2, 20, 1))
    found = paired_test(a, b, shared_seeds=True)
    assert np.isnan(found.p)
    assert found.why_not.startswith("not testable: the weights were drawn once")


# many tests


def test_holm_by_hand():
    """0.01 x 4 = 0.04; 0.02 x 3 = 0.06; 0.03 x 2 = 0.06; 0.9 x 1."""
    assert holm([0.02, NAN, 0.9, 0.01, 0.03]) == pytest.approx([0.06, NAN, 0.9, 0.04, 0.06], nan_ok=True)
    assert holm([0.5, 0.4]) == pytest.approx([0.8, 0.8])
    assert holm([0.9, 0.8, 0.7]) == pytest.approx([1, 1, 1])
    assert holm([0.03]) == pytest.approx([0.03])
    assert len(holm([])) == 0


def test_holm_rejects_what_stepping_down_rejects():
    rng = numbers(9)
    for _ in range(200):
        p = rng.beta(0.3, 2, size=rng.integers(1, 12))
        adjusted, rejected = holm(p), set()
        for step, test in enumerate(np.argsort(p)):
            if p[test] > 0.05 / (len(p) - step):
                break
            rejected.add(test)
        assert set(np.flatnonzero(adjusted <= 0.05)) == rejected
        assert (adjusted >= p).all()
        assert (np.diff(adjusted[np.argsort(p)]) >= 0).all()


# all methods against the best


@pytest.fixture
def column():
    rng = numbers(10)
    hard = rng.normal(size=(50, 1))
    made = {name: hard + shift + 0.3 * rng.normal(size=(50, 3)) for name, shift in {"worst": -1, "near": -0.01, "best": 0.05, "few": -0.2}.items()}
    made["few"][5:] = NAN
    made["near"][0, 0] = NAN
    made["none"] = np.full((50, 3), NAN)
    return made


def test_a_column_is_compared_with_its_best(column):
    found = compare(column, higher_is_better=True, seed=1)
    assert found.best == "best"
    assert list(found.methods) == ["worst", "near", "best", "few", "none"]
    best, worst, near, few, none = (found.methods[name] for name in ("best", "worst", "near", "few", "none"))
    assert (best.tied, best.against_best) == (True, None)
    assert (worst.tied, worst.tied_unadjusted) == (False, False)
    assert worst.against_best == paired_test(column["worst"], column["best"], seed=1)
    assert worst.adjusted == pytest.approx(2 * worst.against_best.p)
    assert near.adjusted == pytest.approx(near.against_best.p)
    assert near.tied is (near.adjusted >= 0.05)
    assert (near.images, near.undefined) == (50, 1)
    assert near.mean == pytest.approx(per_image(column["near"]).values.mean())
    assert near.interval == bootstrap_interval(column["near"], seed=1)
    assert (few.tied, few.tied_unadjusted, few.images, few.against_best.pairs) == (None, None, 5, 5)
    assert (none.tied, none.images, none.undefined, none.against_best.pairs) == (None, 0, 150, 0)
    assert np.isnan([few.adjusted, none.mean, none.adjusted]).all()


def test_lower_may_be_better(column):
    higher = compare(column, higher_is_better=True)
    lower = compare({name: -values for name, values in column.items()}, higher_is_better=False)
    assert lower.best == higher.best
    for name, standing in lower.methods.items():
        assert (standing.tied, standing.tied_unadjusted) == (higher.methods[name].tied, higher.methods[name].tied_unadjusted)
    assert lower.methods["worst"].against_best.difference > 0


def test_holm_may_tie_what_a_single_test_does_not():
    rng = numbers(11)
    hard = rng.normal(size=30)
    column = {f"method {i}": hard + 0.5 * rng.normal(size=30) for i in range(12)} | {"best": hard + 0.35}
    methods = compare(column, higher_is_better=True).methods.values()
    assert sum(not each.tied for each in methods) < sum(not each.tied_unadjusted for each in methods)
    assert all(each.tied_unadjusted <= each.tied for each in methods)


def test_the_best_by_its_mean_is_not_called_better_than_what_wins_most_pairs():
    steady, lucky = np.linspace(0, 1, 40), np.linspace(0, 1, 40) - 0.1
    lucky[:3] += 50
    found = compare({"steady": steady, "lucky": lucky}, higher_is_better=True)
    assert found.best == "lucky"
    assert found.methods["steady"].against_best.p < 0.001
    assert found.methods["steady"].tied


def test_hits_are_tested_by_sign_flips():
    hits = (numbers().random((3, 50)) < 0.6).astype(float)
    found = compare(dict(zip("abc", hits, strict=True)), higher_is_better=True)
    assert {each.against_best.test for each in found.methods.values() if each.against_best} == {"sign flips"}
    mixed = compare(dict(zip("abc", [*hits[:2], numbers().random(50)], strict=True)), higher_is_better=True)
    assert {each.against_best.test for each in mixed.methods.values() if each.against_best} == {"wilcoxon"}


def test_shared_weight_draws_do_not_make_equal_methods_differ():
    """Images agree on which draw was lucky, so images alone would find a difference nearly always."""
    rng, apart, naive = numbers(12), [], []
    for run in range(100):
        column = {name: rng.normal(size=(1, 4)) + 0.2 * rng.normal(size=(40, 4)) for name in "ab"}
        apart.append(any(each.tied is False for each in compare(column, True, seed=run, resamples=400, shared="ab").methods.values()))
        naive.append(any(each.tied is False for each in compare(column, True, seed=run, resamples=2).methods.values()))
    assert np.mean(naive) > 0.8
    assert np.mean(apart) <= 0.05
    clear = {"a": column["a"], "b": column["b"] + 20, "fixed": numbers().normal(size=40) - 20}
    assert [each.tied for each in compare(clear, True, shared="ab").methods.values()] == [False, True, False]


def test_among_many_methods_with_shared_draws_holm_keeps_the_level():
    """The interval of a single difference leaves out 0 for one of seven equal methods in a third of all studies."""
    rng, apart, alone = numbers(14), [], []
    for run in range(60):
        column = {name: 0.5 * rng.normal(size=(15, 1)) + 0.5 * rng.normal(size=(1, 5)) + 0.5 * rng.normal(size=(15, 5)) for name in "abcdefgh"}
        found = compare(column, True, seed=run, resamples=100, shared="abcdefgh").methods.values()
        apart.append(any(each.tied is False for each in found))
        alone.append(any(each.tied_unadjusted is False for each in found))
    assert np.mean(apart) <= 0.1
    assert np.mean(alone) >= 0.25


def test_the_p_of_shared_draws_is_students_where_only_one_thing_varies():
    images = np.repeat(numbers(5).normal(0.4, 1, size=(12, 1)), 3, 1)
    draws = np.repeat(numbers(6).normal(0.4, 1, size=(1, 5)), 7, 0)
    for each, sample in ((images, images[:, 0]), (draws, draws[0])):
        assert p_of_shared_seeds(each) == pytest.approx(stats.ttest_1samp(sample, 0).pvalue)
        assert paired_test(each, np.zeros(len(each)), shared_seeds=True).p >= p_of_shared_seeds(each)
    assert p_of_shared_seeds(np.full((3, 2), 0.0)) == 1
    assert p_of_shared_seeds(np.full((3, 2), 0.5)) < 1e-12
    assert np.isnan([p_of_shared_seeds(np.ones((1, 2))), p_of_shared_seeds(np.ones((7, 1)))]).all()


def test_draws_of_which_one_has_values_are_no_sample():
    a, b = numbers().normal(size=(2, 20, 2))
    a[:, 1] = NAN
    found = paired_test(a, b, shared_seeds=True)
    assert np.isnan([found.p, found.interval.low]).all()
    assert found.why_not.startswith("not testable: the weights were drawn once")


def test_an_empty_column_has_no_best():
    found = compare({"a": [NAN, NAN], "b": [NAN, NAN]}, higher_is_better=True)
    assert found.best is None
    assert [each.tied for each in found.methods.values()] == [None, None]
    assert compare({}, higher_is_better=True).methods == {}


def test_columns_that_do_not_fit_are_refused():
    with refused("All methods need the same images, but their numbers are a 2, b 3: write NaN where a value is missing."):
        compare({"a": [1, 2], "b": [1, 2, 3]}, higher_is_better=True)
    with refused("The column has no method 'c': its weight draws cannot be shared."):
        compare({"a": [1, 2]}, higher_is_better=True, shared=["c"])


# the pointing game


def test_pointing_accuracy_is_the_mean_over_classes():
    hits, classes = [1, 1, 1, 0, NAN, 0.5, 0], ["cat", "cat", "cat", "cat", "cat", "dog", "dog"]
    found = pointing_accuracy(hits, classes)
    assert found.classes == {"cat": 0.75, "dog": 0.25}
    assert (found.mean, found.images, found.undefined) == (0.5, 6, 1)
    assert pointing_accuracy([[1, 0], [0, 0]], ["a", "b"]).mean == 0.25


def test_pointing_accuracy_of_one_class_has_the_interval_of_a_mean():
    hits = (numbers().random(80) < 0.7).astype(float)
    found, plain = pointing_accuracy(hits, [3] * 80), bootstrap_interval(hits)
    assert (found.interval.low, found.interval.high) == pytest.approx((plain.low, plain.high))


def test_the_rows_of_an_image_are_resampled_together():
    """Each image thrice: the interval is that of the images, not of three times as many."""
    hits = (numbers().random(60) < 0.6).astype(float)
    once = pointing_accuracy(hits, ["a"] * 60)
    thrice = pointing_accuracy(np.repeat(hits, 3), ["a", "b", "c"] * 60, np.repeat(np.arange(60), 3))
    assert (thrice.interval.low, thrice.interval.high) == pytest.approx((once.interval.low, once.interval.high))
    assert thrice.images == 60
    alone = pointing_accuracy(np.repeat(hits, 3), ["a", "b", "c"] * 60)
    assert alone.interval.high - alone.interval.low < 0.7 * (once.interval.high - once.interval.low)


def test_the_interval_of_pointing_accuracy_covers():
    rng, classes, held = numbers(13), np.repeat(["a", "b", "c"], [60, 25, 15]), []
    chance = np.repeat([0.9, 0.6, 0.3], [60, 25, 15])
    for run in range(500):
        found = pointing_accuracy((rng.random(100) < chance).astype(float), classes, seed=run, resamples=400)
        held.append(found.interval.low <= 0.6 <= found.interval.high)
    assert 0.9 <= np.mean(held) <= 0.98


@pytest.mark.parametrize("seeds", [2, 3])
def test_the_interval_of_pointing_accuracy_covers_what_new_seeds_would_give(seeds):
    """Whether a hit is likely depends on the weights, which all images share: it covered 0.45 to 0.6."""
    rng, held = numbers(17), []
    for run in range(200):
        hits = (rng.random((100, seeds)) < 0.5 + 0.12 * rng.normal(size=seeds)).astype(float)
        found = pointing_accuracy(hits, np.arange(100) % 4, seed=run, resamples=200, shared_seeds=True)
        held.append(found.interval.low <= 0.5 <= found.interval.high)
    assert np.mean(held) >= 0.93
    assert np.isnan(pointing_accuracy(hits[:, 0], np.arange(100) % 4, shared_seeds=True).interval.low)
    assert np.isnan(pointing_accuracy([[NAN, NAN]], ["a"], shared_seeds=True).interval.low)


def test_pointing_accuracy_with_nothing_to_count():
    nothing = pointing_accuracy([NAN, NAN], ["a", "b"])
    assert np.isnan([nothing.mean, nothing.interval.low]).all()
    assert (nothing.classes, nothing.images, nothing.undefined) == ({}, 0, 2)
    assert pointing_accuracy([1, 1, 1], ["a", "a", "b"]).interval == Interval(1.0, 1.0)
    with refused("The pointing game has 3 rows, but 2 classes and 2 images: give one of each per row."):
        pointing_accuracy([1, 0, 1], ["a", "b"])


# where the variance comes from


def test_variance_is_split_as_it_was_made():
    rng, found = numbers(14), []
    for _ in range(40):
        errors = rng.uniform(0.5, 1.5, size=(200, 4))
        values = 2 * rng.normal(size=(200, 1)) + 0.7 * rng.normal(size=(200, 4)) + errors * rng.normal(size=(200, 4))
        values[rng.random((200, 4)) < 0.2] = NAN
        split = variance_split(values, errors)
        found.append([split.images, split.sampling, split.seeds])
        assert variance_split(values).seeds == pytest.approx(split.sampling + split.seeds)
    truth = np.array([4, 1 + 1 / 12, 0.49])
    assert np.allclose(np.mean(found, 0), truth, atol=5 * np.std(found, 0) / np.sqrt(40))


def test_variance_split_is_the_analysis_of_variance():
    values = numbers().normal(size=(12, 3)) + np.arange(12)[:, None]
    split = variance_split(values)
    assert (3 * split.images + split.seeds) / split.seeds == pytest.approx(stats.f_oneway(*values).statistic)


def test_variance_parts_are_never_negative():
    opposite = np.array([[1.0, -1], [-1, 1], [1, -1]])
    assert variance_split(opposite).images == 0
    known = variance_split(opposite, np.full(3, 100.0))
    assert (known.seeds, known.images) == (0, 0) < (known.sampling, 1)
    equal = variance_split(np.repeat(np.arange(5.0)[:, None], 3, 1))
    assert (equal.sampling, equal.seeds) == (0, 0)
    assert equal.images > 0
    assert variance_split(np.ones((4, 2))).images == 0


def test_variance_needs_two_seeds_and_two_images():
    for values in (np.arange(5.0), [[1.0, 2]], [[1, NAN], [NAN, 2]], np.full((3, 2), NAN)):
        split = variance_split(values)
        assert np.isnan([split.images, split.sampling, split.seeds]).all()
    with refused("Errors of shape (3, 1) do not fit values of shape (4, 2): give one per value, or one per image."):
        variance_split(np.zeros((4, 2)), np.zeros(3))


# would a new seed rank otherwise?


@pytest.mark.parametrize("seeds", [3, 10])
def test_the_chance_of_a_flip_is_how_often_a_new_seed_flips(seeds):
    """Over pairs of methods whose distances are spread wide."""
    rng, said, seen = numbers(15), [], []
    for _ in range(3000):
        distance = rng.uniform(-4, 4)
        values = distance + 0.5 * rng.normal(size=(6, seeds + 1)) + rng.normal(size=(1, seeds + 1))
        said.append(flip_probability(values[:, :-1], np.zeros((6, 1))))
        seen.append(np.sign(values[:, -1].mean()) != np.sign(values[:, :-1].mean()))
    assert np.mean(said) == pytest.approx(np.mean(seen), abs=4 * np.sqrt(np.mean(seen) / 3000))


def test_the_chance_of_a_flip_is_that_of_a_draw_from_the_posterior():
    """With the flat prior of mean and log sd: first the variance, then the mean, then the new seed."""
    seeds, rng = np.array([0.1, 0.9, 1.2]), numbers(17)
    sd = np.sqrt(2 * seeds.var(ddof=1) / rng.chisquare(2, size=400_000))
    new = rng.normal(rng.normal(seeds.mean(), sd / np.sqrt(3)), sd)
    assert flip_probability(np.tile(seeds, (2, 1)), [0, 0]) == pytest.approx((new < 0).mean(), abs=0.003)


def test_the_chance_of_a_flip_with_many_seeds_is_the_normal_one():
    effects = numbers(16).normal(0.8, 1, size=4000)
    found = flip_probability(np.zeros((3, 4000)), np.tile(effects, (3, 1)))
    assert found == pytest.approx(stats.norm.sf(effects.mean() / effects.std()), abs=1e-3)
    assert found == pytest.approx(stats.norm.sf(0.8), abs=0.02)


def test_only_images_that_both_have_under_all_seeds_count():
    a, b = numbers().normal(size=(2, 10, 4))
    holes = a.copy()
    holes[0, 2], b[1] = NAN, NAN
    assert flip_probability(holes, b) == flip_probability(a[2:], b[2:]) == flip_probability(b, holes)


def test_chances_known_without_a_sample():
    steady = np.tile(np.arange(5.0)[:, None], 3)
    assert flip_probability(steady + 0.1, steady) == 0
    assert flip_probability(steady, steady) == 0.5
    assert np.isnan(flip_probability(np.arange(5.0), np.arange(5.0)))
    assert np.isnan(flip_probability(np.full((5, 3), NAN), steady))
    with refused("Two methods are ranked on the same images and seeds, but their values are (5, 3) and (5, 2)."):
        flip_probability(steady, np.zeros((5, 2)))
