"""Metrics of localisation at the model's input, against plain loops, scikit-learn and numbers known beforehand."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import salience as sal
from salience.core import registry, spec
from salience.core.geometry import Geometry
from salience.core.metric import UndefinedError
from salience.zoo.images import Photographs

AREAS = ["grid_pointing_game", "localisation_auc", "relevance_mass_accuracy", "relevance_rank_accuracy", "top_k_in_mask:k=10"]
LOCAL = [name for name, entry in registry.entries("metric").items() if entry.facts["category"] == "localisation"]


@pytest.fixture
def judge(conv):
    def values(name, maps, masks, geometry=None):
        maps = torch.as_tensor(maps)
        images = torch.rand(len(maps), 3, *maps.shape[-2:], generator=torch.Generator().manual_seed(0))
        if geometry is not None:
            images = Photographs.of(images, ["image"] * len(maps), [geometry] * len(maps), [])
        return sal.measure(name, conv, images, 0, maps, masks=masks)

    return values


def example(n=4, channels=1, height=11, width=13, levels=None, seed=0):
    """Maps, perhaps with few levels, and masks of several sizes."""
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(n, channels, height, width, generator=generator)
    maps = maps if levels is None else (maps * levels).round() / levels
    share = torch.linspace(0.1, 0.8, n)[:, None, None]
    return maps, torch.rand(n, height, width, generator=generator) < share


@pytest.mark.parametrize("levels", [None, 1, 2])
def test_auc_same_as_scikit_learn(judge, levels):
    maps, masks = example(levels=levels)
    expected = [roc_auc_score(mask.flatten().numpy(), each.flatten().numpy()) for each, mask in zip(maps, masks, strict=True)]
    assert judge("localisation_auc", maps, masks).tolist() == pytest.approx(expected, abs=1e-6)


def test_auc_with_very_many_ties(judge):
    maps = torch.randint(0, 2, (1, 300, 301), generator=torch.Generator().manual_seed(0)).float()
    maps[0, :, :120] = 0
    masks = torch.rand(1, 300, 301, generator=torch.Generator().manual_seed(1)) < 0.4
    assert (maps == 0).sum() > 65536 / 1.2
    assert judge("localisation_auc", maps, masks).item() == pytest.approx(roc_auc_score(masks.flatten().numpy(), maps.flatten().numpy()), abs=1e-6)
    assert judge("localisation_auc", torch.zeros(1, 300, 301), masks).item() == 0.5


def mean_over_orders(values, inside, k):
    """The share of the k largest inside, averaged over every order of equal values."""
    shares = []
    for order in itertools.permutations(range(len(values))):
        ranked = sorted(order, key=lambda place: -values[place])
        shares.append(sum(inside[place] for place in ranked[:k]) / k)
    return np.mean(shares)


@pytest.mark.parametrize("seed", range(6))
def test_ties_at_the_last_place_are_shared(judge, seed):
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randint(0, 3, (1, 1, 2, 3), generator=generator).float()
    masks = torch.rand(1, 2, 3, generator=generator) < 0.5
    masks[0, 0, 0], masks[0, 1, 2] = True, False
    flat, inside = maps.flatten().tolist(), masks.flatten().tolist()
    assert judge("relevance_rank_accuracy", maps, masks).item() == pytest.approx(mean_over_orders(flat, inside, sum(inside)))
    for k in (1, 2, 5):
        assert judge(f"top_k_in_mask:k={k}", maps, masks).item() == pytest.approx(mean_over_orders(flat, inside, k))


def test_rank_accuracy_without_ties_same_as_a_sort(judge):
    maps, masks = example(channels=3)
    saliency = maps.abs().sum(1).flatten(1).numpy()
    expected = [mask.flatten().numpy()[np.argsort(-row)[: int(mask.sum())]].mean() for row, mask in zip(saliency, masks, strict=True)]
    assert judge("relevance_rank_accuracy", maps, masks).tolist() == pytest.approx(expected)


def test_top_k_looks_at_every_channel_with_its_sign(judge):
    maps, masks = example(channels=3)
    expected = []
    for each, mask in zip(maps.numpy(), masks.numpy(), strict=True):
        best = np.argsort(-each.flatten())[:20]
        expected.append(np.mean([mask[place % (11 * 13) // 13, place % 13] for place in best]))
    assert judge("top_k_in_mask", maps, masks).tolist() == pytest.approx(expected)
    assert judge("top_k_in_mask", -maps, masks).tolist() != pytest.approx(expected)
    with pytest.raises(sal.InputError, match=r"^top_k_in_mask: k must be at most 429, the number of values of a map, not 430\.$"):
        judge("top_k_in_mask:k=430", maps, masks)
    assert judge("top_k_in_mask:k=429", maps, masks).tolist() == pytest.approx(masks.float().mean((1, 2)).tolist())


def test_mass_same_as_a_plain_loop(judge):
    for channels in (1, 3):
        maps, masks = example(channels=channels)
        for name, rule in [
            ("relevance_mass_accuracy", lambda pixel: max(pixel[0], 0) if len(pixel) == 1 else sum(abs(v) for v in pixel)),
            ("relevance_mass_accuracy:absolute=true,reduction=sum", lambda pixel: abs(sum(pixel))),
            ("grid_pointing_game", lambda pixel: max(sum(pixel), 0)),
        ]:
            for each, mask, found in zip(maps.double(), masks, judge(name, maps, masks).tolist(), strict=True):
                mass = {(y, x): rule(each[:, y, x].tolist()) for y in range(11) for x in range(13)}
                inside = sum(value for (y, x), value in mass.items() if mask[y, x])
                assert found == pytest.approx(inside / sum(mass.values()), rel=1e-5)


def test_grid_of_four_cells(judge):
    """All attribution in a cell gives one to it and nothing to the others; an even map a quarter."""
    cells = torch.zeros(4, 10, 14)
    for number, (top, left) in enumerate([(0, 0), (0, 7), (5, 0), (5, 7)]):
        cells[number, top : top + 5, left : left + 7] = 1
    maps = torch.rand(10, 14, generator=torch.Generator().manual_seed(0)) * cells[1] - cells[2]
    assert judge("grid_pointing_game", maps.expand(4, -1, -1), cells).tolist() == [0, 1, 0, 0]
    assert judge("grid_pointing_game", torch.full((4, 10, 14), 0.3), cells).tolist() == pytest.approx([0.25] * 4)


@pytest.mark.parametrize("name", AREAS)
class TestEveryMetricOfAreas:
    def test_perfect_reversed_and_constant(self, name, judge):
        _, masks = example()
        ramp = torch.rand(4, 11, 13, generator=torch.Generator().manual_seed(5)) * 0.1 + 0.1
        if "mass" in name or "grid" in name:
            perfect, opposite, none = ramp * masks, ramp * ~masks, masks.float().mean((1, 2))
        else:
            perfect, opposite = ramp + masks.float(), ramp - masks.float()
            none = torch.full((4,), 0.5) if "auc" in name else masks.float().mean((1, 2))
        assert judge(name, perfect, masks).tolist() == [1] * 4
        worst = judge(name, opposite, masks)
        if "rank" in name:
            area = masks.flatten(1).sum(1)
            assert worst.tolist() == pytest.approx(((2 * area - 143).clamp_min(0) / area).tolist())
        else:
            assert worst.tolist() == [0] * 4
        assert judge(name, torch.full((4, 11, 13), 0.7), masks).tolist() == pytest.approx(none.tolist())

    def test_scale_does_not_matter(self, name, judge):
        maps, masks = example(channels=3)
        expected = judge(name, maps, masks)
        for scale in (2.0**-60, 2.0**40):
            assert torch.equal(judge(name, maps * scale, masks), expected)

    def test_each_image_has_its_own_number(self, name, judge):
        maps, masks = example()
        together = judge(name, maps, masks)
        assert together.shape == (4,)
        assert torch.equal(together, torch.cat([judge(name, maps[i : i + 1], masks[i : i + 1]) for i in range(4)]))
        assert torch.equal(together, judge(name, maps, list(masks.numpy().astype(np.uint8) * 255)))

    def test_the_mask_goes_through_the_crop(self, name, judge):
        maps, _ = example(n=1, height=10, width=10)
        geometry = Geometry((40, 60), (10, 10), (5.0, 15.0, 35.0, 45.0))
        mask = torch.zeros(1, 40, 60, dtype=torch.bool)
        mask[0, 17:29, 24:36] = True
        seen = torch.zeros(1, 10, 10)
        seen[0, 4:8, 3:7] = 1
        assert torch.equal(judge(name, maps, mask, geometry), judge(name, maps, seen))
        outside = torch.zeros(1, 40, 60)
        outside[0, :, :10] = 1
        with pytest.raises(UndefinedError, match=r"is not defined for the image: its mask has no pixel in the model's input\.$"):
            judge(name, maps, outside, geometry)

    def test_boxes_are_the_mask_of_what_lies_in_any_of_them(self, name, judge):
        maps, _ = example(n=2, height=10, width=10)
        geometry = Geometry((40, 60), (10, 10), (5.0, 15.0, 35.0, 45.0))
        mask = torch.zeros(2, 40, 60, dtype=torch.bool)
        mask[0, 17:29, 24:36] = mask[1, 10:20, 20:30] = mask[1, 15:25, 20:41] = True
        boxes = [[24, 17, 36, 29], np.array([[20, 10, 30, 20], [20, 15, 41, 25]])]
        assert torch.equal(judge(name, maps, boxes, geometry), judge(name, maps, mask, geometry))
        with pytest.raises(sal.InputError, match=r"^A box of image 1 is empty: boxes are left, top, right, bottom, in pixels from 0, with left < right and top < bottom\.$"):
            judge(name, maps, [[24, 17, 24, 29], [0, 0, 1, 1]], geometry)

    def test_undefined(self, name, judge):
        maps, masks = example()
        masks[2] = False
        with pytest.raises(UndefinedError, match=rf"^{name.split(':')[0]} is not defined for image 3: its mask has no pixel in the model's input\.$"):
            judge(name, maps, masks)
        masks[2] = True
        if "auc" in name:
            with pytest.raises(UndefinedError, match=r"^localisation_auc is not defined for image 3: its mask covers the model's whole input, so nothing is outside the object\.$"):
                judge(name, maps, masks)
        else:
            assert judge(name, maps, masks)[2] == 1
        masks[2, 0, 0] = False
        maps[3, 0, 1, 1] = torch.nan
        with pytest.raises(UndefinedError, match=r"^The map of image 4 holds NaN or infinity"):
            judge(name, maps, masks)

    def test_a_map_of_zeros(self, name, judge):
        maps, masks = example()
        maps[1] = 0
        if "mass" in name or "grid" in name:
            with pytest.raises(UndefinedError, match=rf"^{name} is not defined for image 2: its map has no value that counts, so no share of it lies anywhere\.$"):
                judge(name, maps, masks)
        else:
            assert judge(name, maps, masks)[1] == pytest.approx(0.5 if "auc" in name else masks[1].float().mean().item())


@pytest.mark.parametrize("name", LOCAL)
def test_declared_and_documented(name):
    entry = registry.entries("metric")[name]
    assert entry.facts["needs_masks"]
    assert entry.facts["higher_is_better"]
    assert entry.facts["cites"]
    assert all(part in entry.cls.__doc__ for part in ("Cost:", "Source:", "Differs from"))
    assert all(field.metadata["help"] for field in dataclasses.fields(entry.cls))
    assert spec.build("metric", str(entry.cls())) == entry.cls()


def test_all_are_here():
    assert {name.split(":")[0] for name in AREAS} | {"pointing_game"} <= set(LOCAL)
