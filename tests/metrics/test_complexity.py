"""Gini index and entropy, against their formulas in plain NumPy, scipy, and numbers known beforehand."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

import salience as sal
from salience.core import registry
from salience.core.metric import UndefinedError


@pytest.fixture
def judge(conv):
    def values(name, maps):
        return sal.measure(name, conv, torch.rand(len(maps), 3, *maps.shape[-2:]), 0, maps)

    return values


def hurley_rickard(a):
    """1 - 2 sum of a_k / |a| (n - k + 1/2) / n over the sorted values."""
    a = np.sort(np.abs(a.astype(np.float64)).flatten())
    n, total = len(a), a.sum()
    return 1 - 2 * sum(value / total * (n - k + 0.5) / n for k, value in enumerate(a, start=1))


def mean_difference(a):
    """Half the mean absolute difference of all pairs, as a share of the mean: Gini's own definition."""
    a = np.abs(a.astype(np.float64)).flatten()
    return np.abs(a[:, None] - a[None]).mean() / (2 * a.mean())


MAPS = torch.randn(3, 3, 9, 11, generator=torch.Generator().manual_seed(0)) ** 3


def test_gini_same_as_the_formulas(judge):
    found = judge("gini", MAPS)
    assert found.tolist() == pytest.approx([hurley_rickard(each.numpy()) for each in MAPS], abs=1e-6)
    assert found.tolist() == pytest.approx([mean_difference(each.numpy()) for each in MAPS], abs=1e-6)


def test_entropy_same_as_scipy(judge):
    expected = [stats.entropy(each.abs().double().flatten().numpy()) for each in MAPS]
    assert judge("entropy", MAPS).tolist() == pytest.approx(expected, rel=1e-6)
    assert judge("entropy:relative=true", MAPS).tolist() == pytest.approx([each / math.log(297) for each in expected], rel=1e-6)


@pytest.mark.parametrize("reduction", ["sum", "abs_sum", "abs_max", "l2"])
@pytest.mark.parametrize("scale", [1e-30, 1e-22, 1e25])
def test_maps_whose_squares_are_no_floats(judge, reduction, scale):
    assert torch.allclose(judge(f"gini:reduction={reduction}", MAPS * scale), judge(f"gini:reduction={reduction}", MAPS), atol=1e-5)


@pytest.mark.parametrize("reduction", ["sum", "abs_sum", "abs_max", "l2"])
def test_channels_flattened_or_reduced(judge, reduction):
    reduced = {"sum": MAPS.sum(1), "abs_sum": MAPS.abs().sum(1), "abs_max": MAPS.abs().amax(1), "l2": MAPS.norm(dim=1)}[reduction]
    assert judge(f"gini:reduction={reduction}", MAPS).tolist() == pytest.approx([hurley_rickard(each.numpy()) for each in reduced], abs=1e-6)
    assert judge(f"entropy:reduction={reduction}", MAPS).tolist() == pytest.approx([stats.entropy(each.abs().flatten().numpy()) for each in reduced], rel=1e-5)


def test_known_values(judge):
    spike, zeros = torch.zeros(1, 5, 7), torch.zeros(1, 5, 7)
    spike[0, 2, 3] = -4
    half = torch.zeros(1, 4, 5)
    half[0, :2] = 0.3
    assert judge("gini", spike).item() == pytest.approx(34 / 35)
    assert judge("entropy", spike).item() == 0
    assert judge("gini", half).item() == pytest.approx(0.5)
    assert judge("entropy", half).item() == pytest.approx(math.log(10))
    for constant in (zeros, zeros + 0.1, zeros - 1e-30):
        assert judge("gini", constant).item() == 0
        assert judge("entropy", constant).item() == pytest.approx(math.log(35))
        assert judge("entropy:relative=true", constant).item() == pytest.approx(1)
    assert judge("entropy:relative=true", torch.ones(1, 1, 1)).item() == 0


@pytest.mark.parametrize("name", ["gini", "entropy"])
def test_neither_scale_nor_sign_nor_place_matters(judge, name):
    expected = judge(name, MAPS)
    for scale in (1e-7, 1e-30, 1e20, -1.0):
        assert judge(name, MAPS * scale).tolist() == pytest.approx(expected.tolist(), abs=1e-5)
    assert judge(name, MAPS.flip(2, 3)).tolist() == pytest.approx(expected.tolist(), abs=1e-6)


@pytest.mark.parametrize("name", ["gini", "entropy"])
def test_one_number_an_image_in_the_declared_direction(judge, name):
    entry = registry.entries("metric")[name]
    found = judge(name, torch.stack([torch.full((9, 11), 0.5), MAPS[0, 0], MAPS[0, 0] ** 5]))
    assert found.shape == (3,)
    assert torch.equal(found[1:2], judge(name, MAPS[:1, 0]))
    assert (found.diff() > 0).all() == entry.facts["higher_is_better"]
    assert entry.facts["category"] == "complexity"
    assert all(part in entry.cls.__doc__ for part in ("Cost:", "Source:", "Differs from"))
    broken = MAPS.clone()
    broken[1, 0, 0, 0] = torch.nan
    with pytest.raises(UndefinedError, match=r"^The map of image 2 holds NaN or infinity"):
        judge(name, broken)
