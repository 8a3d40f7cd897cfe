"""RISE: the published procedure, estimators without bias by enumeration, honest errors, reproducible draws."""

import functools
import itertools
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy import stats
from skimage.transform import resize

import salience as sal
from salience.core.draws import streams
from salience.explainers import _rise_estimators
from salience.explainers._rise_estimators import ESTIMATORS, Sample, averaged, estimate
from salience.explainers._rise_surrogate import Kernel, contrast, regression
from salience.perturb.masks import RandomMasks

UNBIASED = ("original", "centred", "crossfit")
STREAM = streams(0, 1)[0]


class Enumerated(RandomMasks):
    """Masks of which `draw_many` hands out every one, in proportion to its probability: means are exact."""

    def draw_many(self, stream, count):
        return self.every()

    @functools.cache  # noqa: B019  # there are few, and the lists are long
    def every(self):
        chance = Fraction(self.keep).limit_denominator(10)
        on, off = chance.numerator, chance.denominator - chance.numerator
        grids, places = [], list(itertools.product(*map(range, self.places)))
        for bits in itertools.product((0, 1), repeat=self.grid**2):
            grids += [bits] * (on ** sum(bits) * off ** (len(bits) - sum(bits))) * len(places)
        chosen = torch.tensor(places).repeat(len(grids) // len(places), 1)
        return torch.tensor(grids, dtype=torch.float32).view(-1, self.grid, self.grid), chosen


def table(outcomes: int, classes: int = 3) -> torch.Tensor:
    """The class probabilities of each mask: any function of the mask will do."""
    return (3 * torch.randn(outcomes, classes, generator=torch.Generator().manual_seed(3))).softmax(1)


def sample_of(masks: RandomMasks, grids, places, scores, seed: int = 0) -> Sample:
    image = torch.rand(3, *masks.size, generator=torch.Generator().manual_seed(1))
    return Sample(masks, grids, places, scores, 1, True, image, streams(seed, 1)[0])


@pytest.mark.parametrize("keep", [0.2, 0.5])
@pytest.mark.parametrize("name", UNBIASED)
@pytest.mark.parametrize(("grid", "draws"), [(2, 2), (1, 5)])
def test_unbiased_by_enumeration_of_all_samples(name, keep, grid, draws):
    """Every sequence of draws, weighted by its probability: the expectation of the estimate is E[f M] / keep."""
    masks = Enumerated((grid, grid), grid, keep)
    bits = torch.tensor(list(itertools.product((0.0, 1.0), repeat=grid**2)))
    grids, scores = bits.view(-1, grid, grid), table(len(bits))
    chance = torch.where(bits == 1, keep, 1 - keep).prod(1)
    places = torch.zeros(len(bits), 2, dtype=torch.int64)
    truth = torch.einsum("m,mhw->hw", chance * scores[:, 1], masks.make(grids, places)) / keep
    expected, total = torch.zeros_like(truth, dtype=torch.float64), 0.0
    for chosen in itertools.product(range(len(bits)), repeat=draws):
        index = torch.tensor(chosen)
        weight = chance[index].double().prod()
        expected += weight * estimate(name, sample_of(masks, grids[index], places[index], scores[index])).maps[0, 0]
        total += weight
    assert total == pytest.approx(1, abs=1e-6)
    assert torch.allclose(expected.float(), truth, atol=2e-5)


@pytest.mark.parametrize("keep", [0.1, 0.5])
def test_unbiased_over_many_tiny_runs_and_the_self_normalised_estimator_is_not(keep):
    """Seven draws of 2 x 2 cells with the real surrogate and its own random masks, judged at 5 standard errors."""
    masks = RandomMasks((3, 2), 2, keep)
    scores, runs = table(16), 150
    code = torch.tensor([8, 4, 2, 1])

    def scored(grids):
        return scores[(grids.flatten(1).long() * code).sum(1)]

    every = Enumerated((3, 2), 2, keep).every()
    truth = masks.weighted_sum(scored(every[0])[:, 1], *every) / len(every[0]) / keep
    found = {name: [] for name in ("crossfit", "self_normalised")}
    for seed in range(runs):
        grids, places = masks.draw_many(streams(1000 + seed, 1)[0], 7)
        for name, maps in found.items():
            maps.append(estimate(name, sample_of(masks, grids, places, scored(grids), seed)).maps[0, 0])
    off = {name: (torch.stack(maps).mean(0) - truth) / (torch.stack(maps).std(0) / runs**0.5) for name, maps in found.items()}
    assert off["crossfit"].abs().max() < 5
    assert keep == 0.5 or off["self_normalised"].abs().max() > 5


def toy(images: torch.Tensor) -> torch.Tensor:
    """Probabilities of three classes: smooth and rough functions of the light in nine patches."""
    light = torch.nn.functional.adaptive_avg_pool2d(images.mean(1, keepdim=True), 3).flatten(1)
    logits = torch.stack([9 * light[:, 4] + 30 * light[:, 0] * light[:, 1], 3 + 4 * torch.sin(40 * light[:, 8]), 10 * light[:, 2]], 1)
    return logits.softmax(1)


BOX = sal.BlackBox(toy, mean_colour=(0.0, 0.0, 0.0), name="toy")
PHOTO = 0.25 + 0.75 * torch.rand(1, 3, 18, 21, generator=torch.Generator().manual_seed(4))


@functools.cache
def converged(keep: float = 0.5, target: int = 0, count: int = 40000) -> torch.Tensor:
    """E[f M] / keep from many masks of another stream."""
    masks = RandomMasks((18, 21), 4, keep)
    grids, places = masks.draw_many(streams(99, 1)[0], count)
    f = torch.cat([toy(PHOTO * masks.make(g, p)[:, None])[:, target] for g, p in zip(grids.split(2000), places.split(2000), strict=True)])
    return masks.weighted_sum(f - f.mean(), grids, places) / count / keep + f.mean()


def test_the_published_procedure():
    """As written in the paper and its authors' code: float64 masks, one after the other."""
    e = sal.Rise(samples=30, grid=4, keep=0.3, estimator="original")(BOX, PHOTO, targets=2, seed=8)
    masks, total = RandomMasks((18, 21), 4, 0.3), np.zeros((18, 21))
    for number in range(30):
        grid, place = masks.draw(streams(8, 1)[0], number)
        (y, x), cells = place.tolist(), (5, 6)
        mask = resize(grid.double().numpy(), (5 * cells[0], 5 * cells[1]), order=1, mode="reflect", anti_aliasing=False)[y : y + 18, x : x + 21]
        total += toy(PHOTO * torch.from_numpy(mask).float())[0, 2].item() * mask
    assert np.allclose(e.maps[0, 0].numpy(), total / 30 / 0.3, atol=1e-5)
    assert e.score == "probability"


def test_the_fill_is_the_models_mean_colour_or_what_is_asked_for():
    seen = []
    box = sal.BlackBox(lambda images: (seen.append(images.clone()), toy(images))[1], mean_colour=(0.1, 0.2, 0.3), name="toy")
    for fill, colour in (("mean", (0.1, 0.2, 0.3)), ("white", (1.0, 1.0, 1.0))):
        seen.clear()
        sal.Rise(samples=3, grid=4, fill=fill)(box, PHOTO, targets=0)
        grid, place = RandomMasks((18, 21), 4, 0.5).draw(STREAM, 2)
        mask = RandomMasks((18, 21), 4, 0.5).make(grid[None], place[None])
        assert torch.allclose(torch.cat(seen)[-1], PHOTO[0] * mask + torch.tensor(colour).view(3, 1, 1) * (1 - mask), atol=1e-6)


def test_draws_are_the_same_under_any_chunk_batch_and_number():
    seen = []
    box = sal.BlackBox(lambda images: (seen.append(images.clone()), toy(images))[1], name="toy")

    def shown(samples, chunk=None, images=PHOTO):
        seen.clear()
        sal.Rise(samples=samples, grid=4)(box, images, targets=0, chunk=chunk, seed=7)
        return torch.cat(seen)[len(images) :]

    reference = shown(40)
    assert torch.equal(reference[:11], shown(11))
    for chunk in (1, 3, 64):
        assert torch.equal(reference, shown(40, chunk))
    assert torch.equal(reference, shown(40, images=torch.cat([PHOTO.flip(3), PHOTO]))[1::2])


@pytest.fixture(scope="module")
def runs():
    """Twenty-five runs of 100 masks: maps and half-widths of the intervals, by estimator."""
    found = {}
    for name in ("crossfit", "centred", "original", "surrogate"):
        explained = [sal.Rise(samples=100, grid=4, estimator=name)(BOX, PHOTO, targets=0, seed=seed) for seed in range(25)]
        maps, stderr = (torch.cat([getattr(e, what) for e in explained])[:, 0] for what in ("maps", "stderr"))
        found[name] = (maps, stderr, explained[0].df[0].item())
    return found


def test_intervals_cover_the_truth_as_often_as_they_say(runs):
    truth = converged()
    for name in ("crossfit", "centred", "original"):
        maps, stderr, df = runs[name]
        assert df == 99
        covered = ((maps - truth).abs() <= stats.t.ppf(0.975, df) * stderr).float().mean().item()
        assert 0.92 <= covered <= 0.975, (name, covered)
        assert maps.var(0).mean() == pytest.approx(stderr.square().mean().item(), rel=0.35)


def test_crossfit_is_unbiased_and_far_better_than_the_original(runs):
    truth = converged()
    error = {name: (maps - truth).square().mean().item() for name, (maps, _, _) in runs.items()}
    assert error["crossfit"] < error["original"] / 4
    assert error["crossfit"] < error["centred"] / 2
    maps = runs["crossfit"][0]
    assert ((maps.mean(0) - truth) / (maps.std(0) / len(maps) ** 0.5)).abs().mean() < 1.5
    assert torch.allclose(runs["surrogate"][1], runs["crossfit"][1], rtol=1e-3)
    assert error["surrogate"] < error["crossfit"]


def test_a_score_that_cannot_be_predicted_costs_nothing():
    """Pure noise: the control variate must switch itself off."""
    masks = RandomMasks((18, 21), 4, 0.5)
    ratio = []
    for seed in range(12):
        stream = streams(seed, 1)[0]
        grids, places = masks.draw_many(stream, 100)
        noise = torch.from_numpy(stream.generator("noise").random((100, 1), dtype=np.float32))
        sample = Sample(masks, grids, places, noise, 0, True, PHOTO[0], stream)
        ratio.append(estimate("crossfit", sample).stderr.square().mean() / estimate("centred", sample).stderr.square().mean())
    assert torch.stack(ratio).mean() < 1.05


@pytest.mark.parametrize("name", list(ESTIMATORS))
def test_blocks_are_parts_of_the_map(name):
    e = sal.Rise(samples=53, grid=4, estimator=name)(BOX, PHOTO, targets=0)
    weights = e.counts[..., None, None, None]
    assert e.counts.sum().item() == 53
    assert torch.allclose((weights * e.blocks).sum(0) / weights.sum(0), e.maps, atol=1e-5)
    spread = (e.blocks.std(0) / 20**0.5).square().mean() / e.stderr.square().mean()
    assert 0.5 < spread.item() < 2


def test_another_class_needs_no_forward_pass():
    calls = []
    box = sal.BlackBox(lambda images: (calls.append(len(images)), toy(images))[1], name="toy")
    batch = torch.cat([PHOTO, PHOTO.flip(3)])
    e = sal.Rise(samples=40, grid=4)(box, batch, targets=0, seed=[3, 4])
    calls.clear()
    other = e.for_target(2)
    assert calls == []
    direct = sal.Rise(samples=40, grid=4)(box, batch, targets=2, seed=[3, 4])
    assert torch.allclose(other.maps, direct.maps, atol=1e-6)
    assert torch.allclose(other.stderr, direct.stderr, atol=1e-6)
    assert other.targets.tolist() == [2, 2]
    assert torch.equal(other.for_target(0).maps, e.maps)
    with pytest.raises(sal.InputError, match=r"^Target 3 is out of range: toy has classes 0 to 2\.$"):
        e.for_target(3)


@pytest.mark.parametrize("score", ["logit", "probability", "log_probability", "sigmoid"])
def test_every_score_is_explained(conv, score, photos):
    e = sal.Rise(samples=60, grid=3)(conv, photos, targets=1, score=score)
    plain = sal.Rise(samples=60, grid=3, estimator="centred")(conv, photos, targets=1, score=score)
    assert torch.isfinite(e.maps).all()
    assert e.stderr.mean() < plain.stderr.mean()
    assert ((e.maps - plain.maps).abs() < 5 * plain.stderr + 1e-4).all()


def test_a_users_score_has_one_class(conv, photos):
    e = sal.Rise(samples=30)(conv, photos, targets=1, score=lambda outputs, targets: outputs[:, 1] - outputs[:, 2])
    assert torch.isfinite(e.maps).all()
    with pytest.raises(sal.InputError, match="computes one class at a time"):
        e.for_target(2)


def test_independent_probabilities_may_sum_to_more_than_one(photos):
    box = sal.BlackBox(lambda images: torch.stack([images.mean((1, 2, 3)), images.amax((1, 2, 3)), images[:, 0].mean((1, 2))], 1), name="labels")
    e = sal.Rise(samples=60, grid=3)(box, photos, targets=0)
    plain = sal.Rise(samples=60, grid=3, estimator="centred")(box, photos, targets=0)
    assert e.stderr.mean() < 0.6 * plain.stderr.mean()


@pytest.mark.parametrize("name", list(ESTIMATORS))
@pytest.mark.parametrize(("samples", "size", "grid"), [(1, (5, 7), 7), (2, (5, 7), 1), (3, (2, 3), 7), (21, (11, 5), 3)])
def test_few_draws_and_small_images(name, samples, size, grid):
    image = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    box = sal.BlackBox(lambda images: torch.stack([images.mean((1, 2, 3)), 1 - images.mean((1, 2, 3))], 1), name="box")
    e = sal.Rise(samples=samples, grid=grid, estimator=name)(box, image)
    assert torch.isfinite(e.maps).all()
    assert e.stderr.isnan().all() if samples == 1 else torch.isfinite(e.stderr).all()


@pytest.mark.parametrize("name", list(ESTIMATORS))
def test_keeping_everything_shows_the_score_itself(name):
    e = sal.Rise(samples=25, grid=4, keep=1, estimator=name)(BOX, PHOTO, targets=0)
    assert torch.allclose(e.maps, toy(PHOTO)[0, 0].expand(1, 1, 18, 21), atol=1e-5)
    assert e.stderr.max() < 1e-4


def test_more_draws_than_one_fit_takes(monkeypatch):
    whole = sal.Rise(samples=120, grid=4)(BOX, PHOTO, targets=0)
    monkeypatch.setattr(_rise_estimators, "GROUP", 45)
    parts = sal.Rise(samples=120, grid=4)(BOX, PHOTO, targets=0)
    assert not torch.equal(whole.maps, parts.maps)
    assert ((parts.maps - converged()).abs() < 5 * parts.stderr).all()
    assert whole.stderr.mean() < parts.stderr.mean() < 2 * whole.stderr.mean()


def test_stops_at_the_tolerance():
    e = sal.Rise(samples=1000, grid=4)(BOX, PHOTO, targets=0, tolerance=0.3)
    assert e.converged.tolist() == [True]
    assert e.samples.item() in (50, 100, 200, 400, 800)
    assert e.relative_error.item() <= 0.3
    fixed = sal.Rise(samples=e.samples.item(), grid=4)(BOX, PHOTO, targets=0)
    assert torch.allclose(fixed.maps, e.maps, atol=1e-6)


def test_options_out_of_range():
    with pytest.raises(sal.InputError, match=r"^rise: keep must be above 0, not 0\.0\.$"):
        sal.Rise(keep=0)
    with pytest.raises(sal.InputError, match=r"^Unknown value for rise: estimator: 'best'"):
        sal.explain("rise:estimator=best", BOX, PHOTO)


class TestSurrogate:
    masks = RandomMasks((18, 21), 4, 0.5)

    def test_kernel_is_the_formula(self):
        grids, places = self.masks.draw_many(STREAM, 9)
        kernel = Kernel.of(self.masks, PHOTO[0])
        features = kernel.features(grids, places)
        values = kernel.against(features[:5])(features)
        light, expected = contrast(PHOTO[0], (12, 12)), torch.zeros(9, 5)
        total = 0.0
        for row, column in itertools.product(range(6), repeat=2):
            y, x = torch.meshgrid(torch.arange(12.0), torch.arange(12.0), indexing="ij")
            window = torch.exp(-((y - 2 * row - 0.5) ** 2 + (x - 2 * column - 0.5) ** 2) / (2 * 1.3**2))
            window = torch.where(window < 0.1, 0.0, window) * light
            distance = ((features[:, None] - features[:5]) ** 2 * window / window.sum()).sum((2, 3))
            expected += window.sum() * torch.exp(-6 * distance)
            total += window.sum()
        assert torch.allclose(values, expected / total, atol=1e-5)

    def test_a_fit_is_the_one_found_by_solving_for_each_draw(self):
        """Without four draws, and calibrated by predictions that leave one more out: by brute force."""
        grids, places = self.masks.draw_many(STREAM, 30)
        scores, area = toy(PHOTO * self.masks.make(grids, places)[:, None]), torch.rand(30, generator=torch.Generator().manual_seed(5))
        kernel = Kernel.of(self.masks, PHOTO[0])
        features = kernel.features(grids, places)
        among, out = kernel.against(features)(features), torch.arange(30) % 8 == 2
        noisy = among + 0.1 * torch.eye(30)
        found = regression(scores, 0, True, area, torch.linalg.inv(noisy), out)(among)

        values = scores.clamp_min(1e-9).log().clamp_min(-9)
        values = torch.cat([values, torch.full((30, 1), -9.0)], 1)  # three classes, and nothing for the rest
        mean = values[~out].mean(0)

        def predicted(rows, at):
            return (mean + among[at][:, rows] @ torch.linalg.solve(noisy[rows][:, rows], values[rows] - mean)).softmax(1)[:, 0]

        kept = (~out).nonzero()[:, 0]
        left_out = torch.cat([predicted(kept[kept != i], i[None]) for i in kept])
        calibration = np.polyfit(left_out.numpy(), scores[kept, 0].numpy(), 1, w=area[kept].sqrt().numpy())
        assert 0.1 < calibration[0] < 1.5
        assert torch.allclose(found, calibration[1] + calibration[0] * predicted(kept, torch.arange(30)), atol=1e-4)

    def test_no_draw_is_predicted_from_itself(self):
        """Changing one draw's score changes its own contribution by exactly the change / keep."""
        grids, places = self.masks.draw_many(STREAM, 41)
        scores = torch.rand(41, 1, generator=torch.Generator().manual_seed(2))
        changed = scores.clone()
        changed[23] = 0.9
        nothing, number = torch.zeros(1, 18, 21), torch.tensor([23])
        before, after = (ESTIMATORS["crossfit"](Sample(self.masks, grids, places, each, 0, True, PHOTO[0], STREAM)) for each in (scores, changed))
        everything = torch.ones_like(nothing)
        assert torch.allclose(before.of(nothing, number), after.of(nothing, number), atol=1e-6)
        gain = after.of(everything, number) - before.of(everything, number)
        assert torch.allclose(gain, (changed[23] - scores[23]).expand_as(gain) / 0.5, atol=1e-5)

    def test_averages_of_the_surrogate_have_the_variance_that_is_added(self):
        """The masks that the surrogate is averaged over are drawn anew; nothing else changes."""
        grids, places = self.masks.draw_many(STREAM, 60)
        scores = toy(PHOTO * self.masks.make(grids, places)[:, None])
        sample = Sample(self.masks, grids, places, scores, 0, True, PHOTO[0], STREAM)
        maps = torch.stack([estimate("surrogate", replace(sample, stream=streams(seed, 1)[0])).maps[0, 0] for seed in range(25)])
        whole = ESTIMATORS["crossfit"](sample)
        added = whole.variance
        alone = averaged(replace(whole, variance=0.0), sample).stderr.square()
        assert torch.allclose(averaged(whole, sample).stderr.square(), alone + added, rtol=1e-4)
        assert maps.var(0).mean().item() == pytest.approx(added.mean().item(), rel=0.4)
