"""Sensitivity-n, against a plain loop with SciPy and against numbers known beforehand."""

import pytest
import torch
from scipy.stats import pearsonr

import salience as sal
from salience.core.draws import streams
from salience.core.metric import measure
from salience.metrics.sensitivity_n import SensitivityN


class Linear(torch.nn.Module):
    """Class 1's logit is a weighted sum of the image."""

    def __init__(self, weights: torch.Tensor) -> None:
        super().__init__()
        self.weights = torch.nn.Parameter(weights)

    def forward(self, x):
        score = (x * self.weights).sum((1, 2, 3))
        return torch.stack([torch.zeros_like(score), score], 1)


def random_maps():
    return torch.randn(2, 3, 5, 7, generator=torch.Generator().manual_seed(3))


def test_same_as_a_plain_loop(conv, photos):
    """Sizes that round to the same number count once."""
    conv.module.eval()
    maps = random_maps()
    found = measure(SensitivityN(shares=(0.5, 0.001, 0.02, 0.2), samples=15), conv, photos, 2, maps, seed=[4, 5], details=True)
    sizes = [1, 7, 18]
    assert torch.allclose(found.curves["sensitivity_n"].x, torch.tensor(sizes) / 35)
    for i, stream in enumerate(streams([4, 5], 2)):
        stream, values = stream.at("metric", "sensitivity_n"), []
        for size in sizes:
            sums, changes = [], []
            for draw in range(15):
                image, total = photos[i].clone(), 0.0
                for pixel in stream.generator("subset", size, draw).choice(35, size, replace=False, shuffle=False):
                    total += maps[i, :, pixel // 7, pixel % 7].sum().item()
                    image[:, pixel // 7, pixel % 7] = conv.mean_colour
                sums.append(total)
                changes.append(-conv.target_scores(image[None], torch.tensor([2])).item())
            values.append(pearsonr(sums, changes).statistic)
        assert found.curves["sensitivity_n"].y[i].tolist() == pytest.approx(values, abs=1e-4)
        assert found.values[i].item() == pytest.approx(sum(values) / 3, abs=1e-4)


def test_one_image_has_the_value_it_has_in_a_batch(conv, photos):
    """The correlation is over subsets, not over images: one image suffices, and there is one number each."""
    metric, maps = SensitivityN(samples=12), random_maps()
    both = measure(metric, conv, photos, [2, 3], maps, seed=[0, 1])
    assert both.shape == (2,)
    for i in range(2):
        alone = measure(metric, conv, photos[i : i + 1], [2 + i], maps[i : i + 1], seed=i)
        assert torch.allclose(alone, both[i : i + 1], atol=1e-4)
    assert torch.allclose(measure(metric, conv, photos, [2, 3], maps, seed=[0, 1], chunk=1), both, atol=1e-4)


def test_perfect_reversed_and_constant_maps(photos):
    weights = torch.randn(3, 5, 7, generator=torch.Generator().manual_seed(2))
    model = sal.Model(Linear(weights))
    metric = SensitivityN(samples=20, fill="black")
    for sign in (1, -1):
        found = measure(metric, model, photos, 1, sign * photos * weights, details=True)
        assert torch.allclose(found.curves["sensitivity_n"].y, torch.tensor(float(sign)), atol=1e-4)
        assert (found.stderr < 1e-3).all()
    assert measure(metric, model, photos, 1, torch.full((2, 5, 7), 0.1)).tolist() == [0, 0]


def test_the_error_is_the_spread_over_seeds(conv, photos):
    n = 200
    maps = sal.explain("gradient", conv, photos[:1], 2).maps * (photos[:1] - 0.5)
    found = measure(SensitivityN(samples=30, shares=(0.1, 0.3)), conv, photos[:1].expand(n, -1, -1, -1), 2, maps.expand(n, -1, -1, -1), seed=range(n), details=True)
    assert found.stderr.mean().item() == pytest.approx(found.values.std().item(), rel=0.2)


@pytest.mark.parametrize("shares", [(), (0.0,), (0.5, 1.0)])
def test_shares_that_cannot_be_are_refused(shares):
    with pytest.raises(sal.InputError, match=r"^sensitivity_n: shares must lie above 0 and below 1, for example shares=0\.1\+0\.5\.$"):
        SensitivityN(shares=shares)
