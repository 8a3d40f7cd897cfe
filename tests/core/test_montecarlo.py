"""The engine: moments, jackknife, stopping, and none of it depending on chunks or batches."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

import salience as sal
from salience.core.montecarlo import BLOCKS, Draws, Mean, Moments, jackknife, level_stderr, reached, relative_error, run, together


class Plain(sal.Classifier):
    """A classifier that is never asked."""

    name = "plain"


def draws_of(values: torch.Tensor):
    """A sampler that hands out given values (draws, n, c, h, w)."""
    return lambda numbers, active: Draws(values[numbers.start : numbers.stop][:, active], {"draw": torch.tensor([[float(i)] * len(active) for i in numbers])})


def gaussian(draws: int, n: int = 2, mean: float = 3.0) -> torch.Tensor:
    return mean + torch.randn(draws, n, 1, 3, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("images", "at_once", "draws"), [(1, 6, 6), (8, 6, 3), (4, 6, 3), (6, 6, 1), (7, 6, 3), (100, 6, 1), (8, 1, 1), (3, 1000, 317)])
def test_draws_are_made_together_so_that_passes_are_full(images, at_once, draws):
    assert together(images, at_once) == draws


@pytest.mark.parametrize("samples", [1, 2, 19, 20, 21, 57])
@pytest.mark.parametrize("at_once", [1, 4, 1000])
def test_mean_and_standard_error_are_those_of_the_draws(samples, at_once):
    values = gaussian(samples)
    done = run(draws_of(values), Moments(2, samples), n=2, samples=samples, at_once=at_once, model=Plain())
    assert torch.allclose(done.estimate.maps, values.mean(0), atol=1e-5)
    assert done.samples.tolist() == [samples, samples]
    assert torch.allclose(done.notes["draw"], torch.full((2,), (samples - 1) / 2))
    if samples == 1:
        assert done.estimate.stderr.isnan().all()
    else:
        assert torch.allclose(done.estimate.stderr, values.std(0) / samples**0.5, rtol=1e-4)
        assert done.estimate.df.tolist() == [samples - 1] * 2
    weights = done.estimate.counts[..., None, None, None]
    assert torch.allclose((weights * done.estimate.blocks).sum(0) / weights.sum(0), values.mean(0), atol=1e-5)


@pytest.mark.parametrize("at_once", [2, 6, 1000])
def test_the_mean_alone(at_once):
    """What a method within another collects: the same mean, in chunks of one size or nearly."""
    values, sizes = gaussian(23), []

    def draw(numbers, active):
        sizes.append(len(numbers))
        return draws_of(values)(numbers, active)

    done = run(draw, Mean(2), n=2, samples=23, at_once=at_once, model=Plain())
    assert torch.allclose(done.estimate.maps, values.mean(0), atol=1e-6)
    assert done.estimate.stderr.isnan().all()
    assert max(sizes) <= max(1, at_once // 2)
    assert max(sizes) - min(sizes) <= 1


def test_no_cancellation():
    values = gaussian(40).double() + 1e6
    done = run(draws_of(values.float()), Moments(2, 40), n=2, samples=40, at_once=3, model=Plain())
    assert torch.allclose(done.estimate.stderr.double(), values.float().double().std(0) / 40**0.5, rtol=0.05)


def test_jackknife_of_a_mean_is_the_usual_error():
    values = gaussian(60)
    done = run(draws_of(values), Moments(2, 60), n=2, samples=60, at_once=7, model=Plain()).estimate
    counts = done.counts[..., None, None, None]
    without = (60 * done.maps - counts * done.blocks) / (60 - counts)
    stderr, pseudo = jackknife(done.maps, without, done.counts)
    assert torch.allclose(pseudo, done.blocks, atol=1e-4)
    assert torch.allclose(stderr, done.blocks.std(0) / BLOCKS**0.5, rtol=1e-3)


def test_jackknife_with_unequal_blocks():
    """Against the definition: pseudo-values and their spread, block by block."""
    counts, means = np.array([3.0, 3.0, 2.0, 2.0]), np.array([1.0, 4.0, 2.0, 7.0])
    whole = (counts * means).sum() / 10
    without = (10 * whole - counts * means) / (10 - counts)
    square = lambda value: value**2  # noqa: E731  # a one-word statistic
    share = 10 / counts
    pseudo = share * square(whole) - (share - 1) * square(without)
    centre = 4 * square(whole) - ((1 - 1 / share) * square(without)).sum()
    expected = math.sqrt(((pseudo - centre) ** 2 / (share - 1)).mean())
    stderr, found = jackknife(torch.tensor([square(whole)]), torch.tensor(square(without))[:, None], torch.tensor(counts)[:, None])
    assert stderr.item() == pytest.approx(expected)
    assert found[:, 0].numpy() == pytest.approx(pseudo)


def test_relative_error_takes_the_noise_off():
    torch.manual_seed(0)
    signal = torch.randn(1, 1, 100, 100)
    noise = torch.full_like(signal, 0.5)
    noisy = signal + 0.5 * torch.randn_like(signal)
    assert relative_error(noisy, noise, torch.zeros(1)).item() == pytest.approx(0.5, rel=0.03)
    assert relative_error(torch.zeros(1, 1, 5, 5), torch.ones(1, 1, 5, 5), torch.zeros(1)).item() == math.inf


def test_relative_error_leaves_noise_that_all_values_share_in():
    """It never was in the spread over the map: taking it off there made the error of maps of masks too large, or infinite."""
    pattern = torch.randn(1, 1, 1, 60, 60, generator=torch.Generator().manual_seed(1))
    draw = torch.Generator().manual_seed(2)
    values = pattern + 12 * torch.randn(200, 1, 1, 1, 1, generator=draw) + 3 * torch.randn(200, 1, 1, 60, 60, generator=draw)
    done = run(draws_of(values), Moments(1, 200), n=1, samples=200, at_once=50, model=Plain()).estimate
    level = level_stderr(done.maps, done.blocks, done.counts)
    assert level.item() == pytest.approx(12 / 200**0.5, rel=0.35)
    assert relative_error(done.maps, done.stderr, level).item() == pytest.approx((12**2 + 3**2) ** 0.5 / 200**0.5 / pattern.std().item(), rel=0.1)
    assert reached(done, 1.0).item()
    assert not reached(done, 0.8).item()


@pytest.mark.parametrize("level", [0.1, 0.3, 0.9, 1 / 3, -7.0])
@pytest.mark.parametrize("error", [0.0, 1e-9, 1e-7])
def test_a_map_that_is_the_same_everywhere_has_no_signal(level, error):
    """In float32 the variance of equal values is not 0: such maps were called converged."""
    even = torch.full((1, 1, 40, 40), level)
    rounded = torch.where(torch.rand(even.shape, generator=torch.Generator().manual_seed(0)) < 0.5, even, torch.nextafter(even, torch.tensor(9.0)))
    assert relative_error(torch.cat([even, rounded]), torch.full((2, 1, 40, 40), error), torch.zeros(2)).tolist() == [math.inf, math.inf]


def test_stopping_is_per_image_and_only_at_checkpoints():
    pattern = torch.arange(12.0).view(1, 3, 4)
    easy = pattern + 0.05 * torch.randn(900, 1, 1, 3, 4, generator=torch.Generator().manual_seed(1))
    middle = pattern + 6 * torch.randn(900, 1, 1, 3, 4, generator=torch.Generator().manual_seed(2))
    none = torch.randn(900, 1, 1, 3, 4, generator=torch.Generator().manual_seed(3))
    values = torch.cat([easy, middle, none], 1)
    together = run(draws_of(values), Moments(3, 900), n=3, samples=900, at_once=64, model=Plain(), tolerance=0.1)
    assert together.samples.tolist()[0] == 50
    assert together.samples.tolist()[1] in (100, 200, 400, 800)
    assert together.samples.tolist()[2] == 900
    assert together.converged.tolist() == [True, True, False]
    for image in range(3):
        alone = run(draws_of(values[:, image : image + 1]), Moments(1, 900), n=1, samples=900, at_once=7, model=Plain(), tolerance=0.1)
        assert alone.samples[0] == together.samples[image]
        assert torch.allclose(alone.estimate.maps[0], together.estimate.maps[image], atol=1e-5)


def test_stopping_early_narrows_intervals_only_a_little():
    """Runs stop when their error looks small: coverage falls below 95 %, and the docs say so."""
    truth = torch.linspace(0, 3, 12).view(1, 3, 4)
    covered = []
    for seed in range(200):
        values = truth + 4 * torch.randn(400, 1, 1, 3, 4, generator=torch.Generator().manual_seed(seed))
        done = run(draws_of(values), Moments(1, 400), n=1, samples=400, at_once=50, model=Plain(), tolerance=0.35)
        width = stats.t.ppf(0.975, done.estimate.df.item()) * done.estimate.stderr
        covered.append(((done.estimate.maps - truth).abs() <= width).float().mean().item())
    assert 0.90 < np.mean(covered) < 0.97


def test_progress_is_reported():
    seen = []
    model = Plain()
    model.progress = lambda done, total: seen.append((done, total))
    run(draws_of(gaussian(20)), Moments(2, 20), n=2, samples=20, at_once=10, model=model)
    assert seen == [(5, 20), (10, 20), (15, 20), (20, 20)]
