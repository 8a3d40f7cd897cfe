"""Levels of noise: closed forms within the stated intervals, and what is kept."""

import json
import math
import re
import warnings
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.stats import norm
from torch import nn

import salience as sal
from salience.core import registry
from salience.perturb import tune as of_noise
from salience.perturb import weights
from salience.perturb.tune import CacheWarning, cache_folder, known_weight_sigma, tuned_weight_sigma
from salience.studies import noise_search
from salience.studies.noise_search import relative_drop
from salience.studies.statistics import bootstrap_interval
from salience.studies.tuned import Basis, Choice, Row, Tuning
from salience.studies.tuning import tunable, tune


@dataclass(frozen=True, repr=False, kw_only=True)
class Made(sal.Dataset):
    """Items as they are."""

    items: object = ()

    def size(self):
        return len(self.items)

    def item(self, place):
        return self.items[place]

    def __str__(self):
        return "made"


class Scores(nn.Module):
    """Scores w0 x0 and w1 x1 of the first two channels' mean, w = 1; counts the images that pass."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.ones(2))
        self.passed = 0

    def forward(self, x):
        self.passed += len(x)
        return self.w * x.mean((2, 3))[:, :2]


def of_ratios(ratios, labels=None, side=1):
    """Pictures whose clean scores are 1 and (nearly) the ratio; their range is 1."""
    pictures = [np.broadcast_to(np.array([255, round(255 * ratio), 0], np.uint8), (side, side, 3)) for ratio in ratios]
    return Made(items=tuple(sal.Item(f"{place}", np.ascontiguousarray(picture), () if labels is None else labels[place]) for place, picture in enumerate(pictures)))


LOW, HIGH = 0.3, 0.9


def weight_drop(sigma, low=LOW, high=HIGH):
    """Relative drop of `Scores` over ratios that are uniform on low to high: w0 - r w1 is normal."""
    return 2 * quad(lambda r: norm.cdf(-(1 - r) / (sigma * math.sqrt(1 + r**2))), low, high)[0] / (high - low)


@pytest.fixture(autouse=True)
def no_threads(monkeypatch):
    """Two weights are drawn sooner than a thread is started."""
    for module in (weights, of_noise):
        monkeypatch.setattr(module, "in_threads", lambda make, numbers: [make(number) for number in numbers])


@pytest.fixture
def two():
    return sal.Model(Scores(), name="two")


class TestClosedForms:
    def test_weight_sigma_and_its_interval(self, two):
        """The interval of the level holds the exact crossing, that of the drop the exact drop there, for other pictures and draws each time."""
        crossing = brentq(lambda sigma: weight_drop(sigma) - 0.05, 1e-3, 1)
        held, levels = [], []
        for seed in range(4, 8):
            found = tune("noisegrad", two, of_ratios(np.random.default_rng(seed).uniform(LOW, HIGH, 50)), limit=50, seed=seed)
            (choice,) = found.choices
            assert choice.rule == "searched"
            assert choice.row.drop >= 0.05
            assert choice.low < choice.row.weight_sigma < choice.high
            levels.append(choice.row.weight_sigma)
            held.append([choice.low <= crossing <= choice.high, choice.row.low <= weight_drop(choice.row.weight_sigma) <= choice.row.high])
        assert np.sum(held, 0).min() >= 3  # of the first 40 seeds 36 hold it
        assert 0.6 * crossing < np.median(levels) < 1.7 * crossing

    def test_noise_level_and_its_interval(self, two):
        """Input noise on one pixel: score 0 less score 1 is normal with mean 1 - r and sd level sqrt(2)."""

        def drop(level, sd=1.0):
            return 2 * quad(lambda r: norm.cdf(-(1 - r) / (level * sd * math.sqrt(2))), LOW, HIGH)[0] / (HIGH - LOW)

        crossing = brentq(lambda level: drop(level) - 0.05, 1e-3, 1)
        found = tune("smoothgrad", two, of_ratios(np.random.default_rng(0).uniform(LOW, HIGH, 80)), limit=80)
        searched, published = found.choices
        assert (searched.rule, published.rule, published.row.noise_level) == ("searched", "published", 0.2)
        assert searched.low < crossing < searched.high
        assert published.row.low < drop(0.2) < published.row.high
        assert {0.1, 0.15, 0.2} <= {row.noise_level for row in found.rows}
        assert all(row.sd == row.noise_level for row in found.rows)

    def test_uniform_noise_also_at_equal_sd(self, two):
        """The difference of two uniform draws of half-width h is triangular on -2h to 2h."""
        ratio = 0.8

        def drop(half):
            return 2 * max(0.0, 1 - 0.2 / (2 * half)) ** 2 / 2

        found = tune("uniformgrad", two, of_ratios([ratio] * 60), limit=60)
        _, published, equal = found.choices
        assert [each.rule for each in found.choices] == ["searched", "published", "equal sd"]
        assert equal.row.noise_level == pytest.approx(0.2 * math.sqrt(3), abs=5e-4)
        assert equal.row.sd == pytest.approx(0.2, abs=5e-4)
        assert published.row.sd == pytest.approx(0.2 / math.sqrt(3))
        for row in (published.row, equal.row):
            assert row.low < drop(row.noise_level) < row.high
        assert {0.173, 0.26, 0.346} <= {row.noise_level for row in found.rows}

    def test_both_fusiongrad_variants(self, two):
        ratios = np.random.default_rng(1).uniform(LOW, HIGH, 30)
        found = tune("fusiongrad", two, of_ratios(ratios), draws=8)
        halved, together, alone = found.choices
        assert [each.rule for each in found.choices] == ["halved", "searched together", "searched alone"]
        assert (halved.row.weight_sigma, halved.row.noise_level) == (alone.row.weight_sigma / 2, 0.1)
        assert (alone.row.noise_level, together.row.noise_level) == (0, 0.1)
        assert together.row.weight_sigma < alone.row.weight_sigma
        (single,) = tune("noisegrad", two, of_ratios(ratios), draws=8).choices
        assert single.row == alone.row
        (given, *_) = tune("fusiongrad:noise_level=0.05", two, of_ratios(ratios), draws=8).choices
        assert given.row.noise_level == 0.05

    def test_the_weight_noise_alone_has_the_interval_that_noisegrad_has(self, two):
        """No larger levels were tried, so the drop was said to be 5 % perhaps at all of them."""
        pictures = of_ratios([0.3, 0.4, 0.5, 0.6, 0.7, 0.8])
        alone, (single,) = tune("fusiongrad", two, pictures, draws=20).choices[2], tune("noisegrad", two, pictures, draws=20).choices
        assert single.high is not None
        assert single == replace(alone, rule="searched")

    def test_noise_in_the_image_that_leaves_nothing_for_the_weights(self, two):
        found = tune("fusiongrad:noise_level=0.5", two, of_ratios([0.9] * 20))
        together = found.choices[1]
        assert (together.row.weight_sigma, together.low) == (0, 0)
        assert found.sentences()[1].endswith("; the noise in the image alone costs that much, so nothing is left for the weights.")
        assert found.show()._repr_png_().startswith(b"\x89PNG")

    def test_the_smallest_crossing_of_a_drop_that_comes_back(self):
        """Class 1 wins where |w - 1| is within 0.02 to 0.05: at sigma 1 that is a hundredth of the draws, near 0.03 a third of them."""

        class Bump(nn.Module):
            def __init__(self):
                super().__init__()
                self.w = nn.Parameter(torch.ones(()))

            def forward(self, x):
                moved = (self.w - 1).abs()
                return torch.stack([torch.zeros(len(x)), ((moved - 0.02) * (0.05 - moved)).expand(len(x))], 1)

        def drop(sigma):
            return 4 * (norm.cdf(0.05 / sigma) - norm.cdf(0.02 / sigma))

        crossing = brentq(lambda sigma: drop(sigma) - 0.05, 1e-3, 0.02)
        found = tune("noisegrad", sal.Model(Bump()), of_ratios([0.5, 0.6, 0.7]), draws=60)
        assert drop(1.0) < 0.05
        assert found.choices[0].row.weight_sigma == pytest.approx(crossing, rel=0.3)

    def test_what_it_costs_is_announced_about(self, two):
        """One picture of ten is soon lost and the others never: every level of the grid is tried, those of the bisection and the one given, and no bound is claimed."""
        told = []
        found = tune("noisegrad:weight_sigma=0.3", two, of_ratios([0.996, *[0.01] * 9]), draws=20, announce=told.append)
        (told,) = told
        assert re.fullmatch(rf"About {14 * 20 * 10} forward passes, [\d.]+ (seconds|minutes) here; and where the data have masks, maps at every level\.", told)
        assert len(found.rows) > 14

    def test_no_crossing(self, two):
        found = tune("noisegrad", two, of_ratios([0.01] * 5), draws=3, seed=4)
        (choice,) = found.choices
        assert (choice.reached, choice.row.weight_sigma, choice.high) == (False, 1.0, None)
        assert re.fullmatch(r"the smallest level at which accuracy drops by 5 %: none up to 1; at weight_sigma 1 accuracy drops by .+ %.*\.", found.sentences()[0])

    def test_half_of_a_level_that_was_not_found(self, two):
        halved = tune("fusiongrad:weight_samples=2,samples=2,noise_level=0.001", two, of_ratios([0.01] * 5), draws=3, seed=4).choices[0]
        assert (halved.rule, halved.reached, halved.row.weight_sigma) == ("halved", False, 0.5)
        found = tune("fusiongrad:weight_samples=2,samples=2,noise_level=0.001", two, of_ratios([0.01] * 5), draws=3, seed=4)  # from its file
        assert found.sentences()[0].endswith("; no level of weight noise up to 1 alone costs 5 %.")

    def test_labels_of_the_data_set(self, two):
        """A quarter of the labels is wrong: what is right without noise is 0.75, and the drop is relative to that."""
        ratios, labels = [0.8] * 100, [(int(place < 25),) for place in range(100)]
        found = tune("noisegrad:weight_sigma=0.2", two, of_ratios(ratios, labels), limit=100)
        assert (found.basis.labels, found.basis.clean, found.basis.chance) == ("data set", 0.75, 0.5)
        given = found.choices[1]
        assert given.rule == "given"
        assert given.row.drop == pytest.approx(given.row.changed * 2)  # (0.75 - (0.75 (1 - c) + 0.25 c)) / 0.25


class TestDrop:
    def test_with_clean_predictions_it_is_a_mean(self):
        noisy = (np.random.default_rng(0).random((30, 20)) < 0.9).astype(float)
        clean, chance = np.ones(30), np.full(30, 0.1)
        for shared in (False, True):
            drop, low, high = relative_drop(clean, noisy, chance, shared)
            interval = bootstrap_interval((1 - noisy) / 0.9, shared_seeds=shared)
            assert (drop, low, high) == (pytest.approx(1 - (noisy.mean() - 0.1) / 0.9), pytest.approx(interval.low), pytest.approx(interval.high))

    def test_the_linear_form_is_as_wide_as_the_bootstrap_of_the_ratio(self):
        source = np.random.default_rng(1)
        clean, chance = (source.random(80) < 0.8).astype(float), np.full(80, 0.1)
        noisy = clean[:, None] * (source.random((80, 10)) < 0.85)
        drop, low, high = relative_drop(clean, noisy, chance, False)
        at = source.integers(80, size=(4000, 80))
        ratios = 1 - (noisy.mean(1)[at].mean(1) - 0.1) / (clean[at].mean(1) - 0.1)
        assert drop == pytest.approx(1 - (noisy.mean() - 0.1) / (clean.mean() - 0.1))
        assert [low, high] == pytest.approx(np.quantile(ratios, [0.025, 0.975]).tolist(), abs=0.006)

    def test_shared_draws_are_resampled_too(self):
        """All pictures lose their class in the same draws: resampling pictures alone would find no variance at all."""
        noisy = np.broadcast_to(np.arange(20) % 4 > 0, (30, 20)).astype(float)
        drop, low, high = relative_drop(np.ones(30), noisy, np.full(30, 0.5), True)
        assert drop == pytest.approx(0.5)
        assert high - low > 0.5
        assert relative_drop(np.ones(30), noisy, np.full(30, 0.5), False) == (pytest.approx(0.5),) * 3

    def test_one_picture_has_no_interval(self, two):
        found = tune("noisegrad", two, of_ratios([0.8]))
        assert all((row.low, row.high) == (None, None) for row in found.rows)
        assert (found.choices[0].low, found.choices[0].high) == (None, None)
        assert "[" not in found.sentences()[0]
        assert found.show()._repr_png_().startswith(b"\x89PNG")


class TestDraws:
    def test_a_level_does_not_depend_on_the_others(self, two, monkeypatch):
        data = of_ratios([0.7, 0.8, 0.9])
        first = {row.weight_sigma: row for row in tune("noisegrad", two, data, draws=4).rows}
        monkeypatch.setattr(noise_search, "WEIGHT_LEVELS", (0.05, 0.1))
        second = tune("noisegrad:weight_samples=3", two, data, draws=4).rows
        common = [row for row in second if row.weight_sigma in first]
        assert len(common) >= 2
        assert all(first[row.weight_sigma] == row for row in common)

    def test_twice_the_same(self, two, monkeypatch, tmp_path):
        data = of_ratios([0.7, 0.8, 0.9])
        found = tune("noisegrad", two, data, draws=4)
        monkeypatch.setenv("SALIENCE_CACHE", str(tmp_path / "another"))
        assert tune("noisegrad", two, data, draws=4) == found
        monkeypatch.setenv("SALIENCE_CACHE", str(tmp_path / "third"))
        assert tune("noisegrad", two, data, draws=4, seed=1).rows != found.rows

    def test_nothing_of_the_users_changes(self, conv, tmp_path):
        before, state, modes = conv.weights_hash(), torch.get_rng_state(), [module.training for module in conv.modules()]
        items = tuple(sal.Item(f"{place}", np.random.default_rng(place).integers(0, 256, (5, 7, 3), np.uint8)) for place in range(3))
        tune("fusiongrad:weight_samples=2,samples=2", conv, Made(items=items), draws=2)
        assert conv.weights_hash() == before
        assert torch.equal(torch.get_rng_state(), state)
        assert [module.training for module in conv.modules()] == modes
        assert conv.weight_sigma == 0.02


class TestKept:
    def test_asked_again_it_costs_no_pass(self, two):
        data = of_ratios([0.7, 0.8, 0.9])
        told = []
        found = tune("noisegrad", two, data, draws=4, announce=told.append)
        passed = two.module.passed
        assert passed >= 4 * 3 * len(found.rows)
        assert tune("noisegrad", two, data, draws=4, announce=told.append) == found
        assert two.module.passed == passed
        assert len(told) == 1

    @pytest.mark.parametrize("change", ["draws", "seed", "limit", "method", "pictures", "labels", "weights", "preprocessing", "structure", "outputs"])
    def test_whatever_matters_is_asked_anew(self, two, change):
        data, options = of_ratios([0.7, 0.8, 0.9]), {"draws": 2, "seed": 0, "limit": 3}
        tune("noisegrad", two, data, **options)
        passed = two.module.passed
        if change == "weights":
            two.module.w.data *= 2
        if change == "preprocessing":
            two.mean += 0.01
        if change == "structure":
            two.module.activation = torch.nn.GELU()
        if change == "outputs":
            two.multilabel = True
        data = {"pictures": of_ratios([0.7, 0.8, 0.85]), "labels": of_ratios([0.7, 0.8, 0.9], [(0,)] * 3)}.get(change, data)
        options |= {change: 2 if change == "limit" else 3} if change in options else {}
        tune("noisegrad:weight_samples=3" if change == "method" else "noisegrad", two, data, **options)
        assert two.module.passed > passed

    def test_auto_takes_it(self, two):
        data = of_ratios(np.linspace(0.5, 0.9, 20))
        images = sal.load_images([item.picture for item in data], two)
        (choice,) = tune("noisegrad", two, data, draws=10).choices
        passed = two.module.passed
        assert tuned_weight_sigma(two, images) == choice.row.weight_sigma
        assert two.module.passed == passed
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            e = sal.explain("fusiongrad:weight_samples=2,samples=2", two, images)
        assert e.record["images"]["weight_sigma"] == pytest.approx([choice.row.weight_sigma / 2] * 20)

    def test_a_study_may_look_without_changing_it(self, two):
        data = of_ratios(np.linspace(0.5, 0.9, 20))
        tune("noisegrad", two, data, draws=5, make_auto=False)
        assert known_weight_sigma(two) is None
        tune("noisegrad", two, data, draws=5)
        assert known_weight_sigma(two) is not None

    def test_the_last_one_counts_also_if_it_was_kept(self, two):
        many, few = of_ratios(np.linspace(0.5, 0.9, 20)), of_ratios([0.95, 0.97])
        images = sal.load_images([many[0].picture], two)
        levels = [tune("noisegrad", two, data, draws=5).choices[0].row.weight_sigma for data in (many, few)]
        assert levels[0] != levels[1]
        assert tuned_weight_sigma(two, images) == levels[1]
        tune("noisegrad", two, many, draws=5)
        assert tuned_weight_sigma(two, images) == levels[0]

    def test_noise_in_the_image_is_no_level_for_auto(self, two):
        tune("smoothgrad", two, of_ratios([0.7, 0.8]), draws=2)
        assert not list(cache_folder().rglob("weight_sigma.json"))

    def test_a_damaged_record_is_one_warning(self, two):
        data = of_ratios([0.7, 0.8, 0.9])
        found = tune("noisegrad", two, data, draws=4)
        (path,) = (path for path in cache_folder().rglob("*.json") if path.name != "weight_sigma.json")
        for text in ("{", json.dumps({"weights": found.weights}), json.dumps({"weights": found.weights} | found.record() | {"rows": [1]})):
            path.write_text(text)
            with pytest.warns(CacheWarning, match=r"^The noise level kept in .*\.json cannot be used \(.*\), so it is searched anew: delete that file\.$") as told:
                assert tune("noisegrad", two, data, draws=4) == found
            assert len(told) == 1
        assert Tuning.from_record(json.loads(path.read_text())) == found

    def test_a_black_box_is_tuned_but_not_kept(self):
        box = sal.BlackBox(lambda images: images.mean((2, 3))[:, :2], outputs="logits", name="box")
        found = tune("smoothgrad:base=(occlusion)", box, of_ratios([0.7, 0.8, 0.9]), draws=3)
        assert found.weights is None
        assert not list(cache_folder().rglob("*.json"))


def with_objects(count, side=12):
    """Bright squares, and where they are; every third picture has no mask."""
    source = np.random.default_rng(0)
    items = []
    for place in range(count):
        picture, mask = source.integers(0, 90, (side, side, 3)).astype(np.uint8), np.zeros((side, side), bool)
        mask[2:7, 3:9] = True
        picture[mask] += 120
        items.append(sal.Item(f"{place}", picture, (0,), {} if place % 3 == 0 else {0: mask}))
    return Made(items=tuple(items))


class TestLocalisation:
    @pytest.fixture
    def net(self, conv):
        """Class 0 wins on every picture of `with_objects`."""
        conv.module.head.bias.data[0] += 20
        return conv

    def test_area_at_every_level_of_the_grid(self, net):
        data = with_objects(6)
        found = tune("smoothgrad:samples=3", net, data, draws=2, auc_images=3)
        assert found.basis.auc_images == 3
        assert all(row.auc is not None and row.auc_low <= row.auc <= row.auc_high for row in found.rows)
        pictures = [data[place] for place in (1, 2, 4)]
        images = sal.load_images([item.picture for item in pictures], net)
        e = sal.explain("smoothgrad:samples=3,noise_level=0.2", net, images, 0, seed=[(place * 2**32, 0) for place in range(3)])
        areas = sal.measure("localisation_auc", net, images, 0, e, masks=[item.masks[0] for item in pictures])
        assert found.choices[1].row.auc == pytest.approx(areas.mean().item(), abs=1e-5)

    def test_steps_of_the_bisection_have_no_maps(self, two):
        source = [sal.Item(item.name, item.picture, (0,), {0: np.eye(4, dtype=bool)}) for item in of_ratios(np.linspace(0.6, 0.9, 8), side=4)]
        found = tune("fusiongrad:weight_samples=2,samples=2", two, Made(items=tuple(source)), draws=4, auc_images=2)
        halved, together, _ = found.choices
        for row in found.rows:
            wanted = row.noise_level == 0.1 and (row.weight_sigma in (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0) or row in (halved.row, together.row))
            assert (row.auc is not None) == wanted, row

    def test_none_without_masks_or_if_none_are_asked_for(self, net):
        for found in (tune("noisegrad:weight_samples=2", net, with_objects(1), draws=2), tune("noisegrad:weight_samples=2", net, with_objects(6), draws=2, auc_images=0)):
            assert found.basis.auc_images == 0
            assert all(row.auc is None for row in found.rows)

    def test_masks_outside_the_crop_are_passed_over(self, net):
        net.size, net.crop_fraction = (6, 6), 0.5
        corner, middle = np.zeros((12, 12), bool), np.zeros((12, 12), bool)
        corner[0, 0], middle[5, 5] = True, True
        items = [sal.Item(f"{place}", item.picture, (0,), {0: (corner, middle)[place % 2]}) for place, item in enumerate(with_objects(4))]
        assert tune("smoothgrad:samples=2", net, Made(items=tuple(items)), draws=2).basis.auc_images == 2


def test_several_labels_a_picture(conv):
    """Mean average precision, with labels that the network finds itself."""
    pictures = [np.random.default_rng(place).integers(0, 256, (5, 7, 3), np.uint8) for place in range(12)]
    with conv.frozen():
        scores = conv.outputs(sal.load_images(pictures, conv).as_subclass(torch.Tensor))
    labels = [tuple(int(label) for label in (row > scores.mean(0)).nonzero()[:, 0]) for row in scores]
    data = Made(items=tuple(sal.Item(f"{place}", picture, labels[place]) for place, picture in enumerate(pictures)))
    found = tune("noisegrad", conv, data, draws=5)
    assert (found.basis.measure, found.basis.labels, found.basis.clean) == ("mean average precision", "data set", pytest.approx(1))
    assert found.basis.chance == pytest.approx(np.mean([[label in each for label in range(5)] for each in labels]))
    (choice,) = found.choices
    assert choice.row.drop >= 0.05
    assert choice.row.low < choice.row.drop < choice.row.high
    assert "mean average precision drops by" in found.sentences()[0]


class TestRegistry:
    def test_tunable_methods_are_those_with_such_options(self):
        for name, entry in registry.entries("explainer").items():
            assert (name in tunable()) == bool({"weight_sigma", "noise_level"} & set(entry.cls.__dataclass_fields__))
        assert {"smoothgrad", "uniformgrad", "noisegrad", "fusiongrad"} <= set(tunable())

    @pytest.mark.parametrize("method", tunable())
    def test_each_of_them(self, two, method):
        found = tune(method, two, of_ratios([0.7, 0.8, 0.9]), draws=2)
        assert found.method == method
        assert found.option == ("weight_sigma" if "weight_sigma" in sal.Explainer.from_value(method).options() else "noise_level")
        assert Tuning.from_record(json.loads(json.dumps(found.record()))) == found
        assert len(found.sentences()) == len(found.choices) + 1
        assert found.show()._repr_png_().startswith(b"\x89PNG")


class TestRefused:
    def test_pictures_without_labels(self, conv):
        """A tensor was taken for the name of a folder, too long for one."""
        with pytest.raises(sal.InputError, match=r"^Levels are tuned on a folder of pictures, a data set or its specification, not on type Tensor: "):
            tune("noisegrad", conv, torch.rand(2, 3, 32, 24))

    @pytest.mark.parametrize(
        ("method", "options", "message"),
        [
            ("gradient", {}, r"^gradient has neither weight_sigma nor noise_level, so there is no noise to tune: take one of fusiongrad, .*vargrad\.$"),
            ("smoothgrad:sigma=0.1", {}, r"^smoothgrad: sigma is absolute, but levels are tuned relative to each image's range: leave sigma out\.$"),
            ("noisegrad", {"draws": 1}, r"^Tuning needs a picture, two draws, and no fewer than 0 pictures for maps, but was given limit 40, draws 1 and auc_images 4\.$"),
        ],
    )
    def test_methods_and_options(self, two, method, options, message):
        with pytest.raises(sal.InputError, match=message):
            tune(method, two, of_ratios([0.7, 0.8]), **options)

    def test_a_black_box(self):
        with pytest.raises(sal.InputError, match=r"^box is a black box, so its weights cannot be given noise: tune smoothgrad on a base that works without gradients, .*\.$"):
            tune("noisegrad", sal.BlackBox(lambda images: images.mean((2, 3)), name="box"), of_ratios([0.7]))

    @pytest.mark.parametrize(("method", "option"), [("noisegrad", "weight_sigma"), ("fusiongrad", "weight_sigma"), ("smoothgrad", "noise_level")])
    def test_a_single_output(self, method, option):
        single = sal.Model(nn.Sequential(nn.Flatten(), nn.Linear(3, 1)), name="single")
        with pytest.raises(sal.InputError, match=rf"^single has a single output, so noise can never change the class, which is how a level is found: choose {option} yourself\.$"):
            tune(method, single, of_ratios([0.7, 0.8]))

    def test_data(self, two):
        with pytest.raises(sal.InputError, match=r"^/nowhere is neither a folder of pictures nor a data set: give a folder, or for example folder:root=photos,labels=labels\.csv\.$"):
            tune("noisegrad", two, "/nowhere")


def test_sentences():
    basis = Basis("photos", 40, 20, 0, "data set", "accuracy", 0.9, 0.1, 0)
    row = Row(0.0075, 0.0, 0.0, 0.0512, 0.042, 0.0591, 0.05)
    found = Tuning("noisegrad", "weight_sigma", "net", None, basis, (row,), (Choice("searched", row, 0.0061, 0.0092), Choice("searched", row, 0.0061, None)))
    assert found.sentences() == [
        "the smallest level at which accuracy drops by 5 %: weight_sigma 0.0075, where accuracy drops by 5.1 % [4.2, 5.9]; the drop may be 5 % from weight_sigma 0.0061 to 0.0092 (95 %).",
        "the smallest level at which accuracy drops by 5 %: weight_sigma 0.0075, where accuracy drops by 5.1 % [4.2, 5.9]; the drop may be 5 % from weight_sigma 0.0061 on.",
        "Accuracy without noise is 0.900, guessing gets 0.100: 40 pictures x 20 draws, with the data set's labels.",
    ]
