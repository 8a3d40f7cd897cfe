"""Faithfulness correlation, against a plain loop with SciPy and against numbers known beforehand."""

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr

import salience as sal
from salience.core.draws import streams
from salience.core.metric import Case, measure
from salience.metrics._removal import correlation, random_removals
from salience.metrics.faithfulness_correlation import FaithfulnessCorrelation


class Linear(torch.nn.Module):
    """Class 1's logit is a weighted sum of the image; the mean colour is 0."""

    def __init__(self, weights: torch.Tensor) -> None:
        super().__init__()
        self.weights = torch.nn.Parameter(weights)

    def forward(self, x):
        score = (x * self.weights).sum((1, 2, 3))
        return torch.stack([torch.zeros_like(score), score], 1)


def weights():
    return torch.randn(3, 5, 7, generator=torch.Generator().manual_seed(2))


def random_maps(channels=3):
    return torch.randn(2, channels, 5, 7, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("single_channels", [False, True])
def test_same_as_a_plain_loop(conv, photos, single_channels):
    conv.module.eval()
    maps, saliency = random_maps(), random_maps().abs().sum(1)
    metric = FaithfulnessCorrelation(samples=20, subset=9, single_channels=single_channels, reduction="abs_sum")
    found = measure(metric, conv, photos, 2, maps, seed=[4, 5])
    for i, stream in enumerate(streams([4, 5], 2)):
        stream, sums, changes = stream.at("metric", "faithfulness_correlation"), [], []
        for draw in range(20):
            subset = stream.generator("subset", 9, draw).choice(105 if single_channels else 35, 9, replace=False, shuffle=False)
            image, total = photos[i].clone(), 0.0
            for entry in subset:
                channels, pixel = ([entry // 35], entry % 35) if single_channels else ([0, 1, 2], entry)
                total += saliency[i, pixel // 7, pixel % 7].item()
                for channel in channels:
                    image[channel, pixel // 7, pixel % 7] = conv.mean_colour[channel]
            sums.append(total)
            changes.append((conv.target_scores(photos[i : i + 1], torch.tensor([2])) - conv.target_scores(image[None], torch.tensor([2]))).item())
        assert found[i].item() == pytest.approx(pearsonr(sums, changes).statistic, abs=1e-4)


def test_perfect_and_reversed_maps(photos):
    """On a linear model what an entry is worth is known."""
    model = sal.Model(Linear(weights()))
    worth = photos * weights()
    for fill, maps in (("black", worth), ("white", (photos - 1) * weights())):
        for sign in (1, -1):
            found = measure(FaithfulnessCorrelation(samples=30, fill=fill), model, photos, 1, sign * maps, details=True)
            assert torch.allclose(found.values, torch.full((2,), float(sign)), atol=1e-5)
            assert (found.stderr < 1e-4).all()
    summed = measure(FaithfulnessCorrelation(samples=30, fill="black"), model, photos, 1, worth.sum(1))
    assert torch.allclose(summed, torch.ones(2), atol=1e-5)


def test_constant_maps_and_a_model_that_does_not_look_are_zero(conv, photos):
    for maps in (torch.zeros(2, 5, 7), torch.full((2, 3, 5, 7), 0.1)):
        found = measure(FaithfulnessCorrelation(samples=10), conv, photos, 2, maps, details=True)
        assert found.values.tolist() == [0, 0]
        assert found.stderr.tolist() == [0, 0]
    blind = measure(FaithfulnessCorrelation(samples=10), sal.Model(Linear(torch.zeros(3, 5, 7))), photos, 1, random_maps())
    assert blind.tolist() == [0, 0]


def test_scale_and_offset_of_the_map_do_not_matter(conv, photos):
    maps, metric = random_maps(1), FaithfulnessCorrelation(samples=20, subset=5)
    assert torch.allclose(measure(metric, conv, photos, 2, maps), measure(metric, conv, photos, 2, 3e-7 * (maps + 2)), atol=1e-5)


@pytest.mark.parametrize("scale", [1e300, 1e-300])
def test_nor_does_a_scale_whose_squares_overflow(conv, photos, scale):
    """The correlation came out as 0."""
    maps = torch.randn(len(photos), 1, *photos.shape[-2:], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for metric in ("faithfulness_correlation:samples=20", "sensitivity_n:samples=5"):
        torch.testing.assert_close(measure(metric, conv, photos, 1, scale * maps), measure(metric, conv, photos, 1, maps))


def test_seeds_chunks_and_batches(conv, photos):
    metric, maps = FaithfulnessCorrelation(samples=23), random_maps()
    state = np.random.get_state()[1].copy()  # noqa: NPY002 - the global one must not be touched
    first = measure(metric, conv, photos, 2, maps, seed=[0, 1])
    for chunk in (1, 7):
        assert torch.allclose(measure(metric, conv, photos, 2, maps, seed=[0, 1], chunk=chunk), first, atol=1e-4)
    assert torch.allclose(measure(metric, conv, photos[1:], 2, maps[1:], seed=1), first[1:], atol=1e-4)
    assert not torch.allclose(measure(metric, conv, photos, 2, maps, seed=9), first, atol=1e-2)
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002


def test_the_first_draws_of_many_are_those_of_few(conv, photos):
    conv.module.eval()
    case = Case(conv, photos, torch.tensor([0, 1]), random_maps(), streams(0, 2), streams(0, 2))
    few, many = (random_removals(case, random_maps()[:, 0], torch.zeros_like(photos), [4, 9], samples) for samples in (5, 12))
    assert torch.equal(few[0], many[0][..., :5])
    assert torch.allclose(few[1], many[1][..., :5], atol=1e-5)


def test_the_error_is_the_jackknife():
    a, b = np.random.default_rng(0).normal(size=(2, 3, 12))
    b[0] += a[0]
    values, stderr = correlation(torch.from_numpy(a), torch.from_numpy(b))
    for i in range(3):
        without = np.array([pearsonr(np.delete(a[i], k), np.delete(b[i], k)).statistic for k in range(12)])
        assert values[i].item() == pytest.approx(pearsonr(a[i], b[i]).statistic, abs=1e-6)
        assert stderr[i].item() == pytest.approx(np.sqrt(11 / 12 * ((without - without.mean()) ** 2).sum()), rel=1e-5)


def test_the_error_is_the_spread_over_seeds(conv, photos):
    n = 300
    maps = sal.explain("gradient", conv, photos[:1], 2).maps * (photos[:1] - 0.5)
    found = measure(FaithfulnessCorrelation(samples=40), conv, photos[:1].expand(n, -1, -1, -1), 2, maps.expand(n, -1, -1, -1), seed=range(n), details=True)
    assert found.values.mean() > 0.2
    assert found.stderr.mean().item() == pytest.approx(found.values.std().item(), rel=0.15)


def test_the_default_subset_is_the_side_of_the_image(conv, photos):
    """002's 32 entries at 32 pixels, 224 at 224."""
    maps = random_maps()
    for single_channels in (False, True):
        default, six = (measure(FaithfulnessCorrelation(samples=10, subset=subset, single_channels=single_channels), conv, photos, 2, maps) for subset in (None, 6))
        assert torch.equal(default, six)


def test_a_subset_larger_than_the_image_is_refused(conv, photos):
    with pytest.raises(sal.InputError, match=r"^faithfulness_correlation: subset=36 is more than the 35 there are in an image: give fewer\.$"):
        measure(FaithfulnessCorrelation(subset=36), conv, photos, 2, random_maps())


def test_progress(conv, photos):
    seen = []
    measure(FaithfulnessCorrelation(samples=10), conv, photos, 2, random_maps(), chunk=7, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(7, 20), (14, 20), (20, 20)]
