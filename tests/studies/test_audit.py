"""The report card: what it says of methods whose answers are known, and that its figures are those of the parts it is made of."""

import math
import warnings

import numpy as np
import pytest
import torch
from scipy import stats

import salience as sal
from salience.core.draws import streams
from salience.core.registry import entries
from salience.explainers import _weight_noise
from salience.studies import audit as card
from salience.studies.audit import audit
from salience.studies.report_card import QUESTIONS
from salience.studies.verdicts import TOLD_APART, Card, Controls, Seen


@pytest.fixture
def photos():
    """Three smooth random images, so that noise, blur and flip mean something."""
    coarse = torch.rand(3, 3, 6, 8, generator=torch.Generator().manual_seed(1))
    return torch.nn.functional.interpolate(coarse, (24, 32), mode="bilinear")


def asked(*arguments, **options):
    """The findings of one method, by question."""
    return {finding.question: finding for finding in audit(*arguments, **options)}


def constant():
    """A network whose scores do not depend on the image."""
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(4, 3))
    torch.nn.init.zeros_(net[4].weight)
    return sal.Model(net)


def seed_of(place, seed=0):
    """The seed of an image's own draws and of the weights."""
    return [(seed + place * 2**32, seed)]


class TestAll:
    def test_every_question_of_every_method_has_one_finding(self, conv, photos):
        found = audit(conv, photos, ["gradient", "smoothgrad:samples=4", "gradient"])
        assert [(each.method, each.question) for each in found] == [(method, question) for method in ("gradient", "smoothgrad:samples=4") for question in QUESTIONS]
        for each in found:
            assert each.image == "all images"
            assert each.sentence.endswith(".")
            assert (each.verdict == "not asked") == (each.figure is None) == (each.threshold is None)
            assert each.low is None or each.low <= each.figure <= each.high
        assert found == audit(conv, photos, ["gradient", "smoothgrad:samples=4"])
        shown = found._repr_mimebundle_((), ())
        assert all(finding.question in shown["text/plain"] and f"{finding.threshold:.3g}" in shown["text/html"] for finding in found if finding.threshold is not None)
        assert all(shown["text/plain"].count(f"{method}, all images") == 1 for method in ("gradient", "smoothgrad:samples=4"))

    def test_nothing_of_the_users_changes(self, conv, photos):
        before, state = conv.weights_hash(), torch.get_rng_state()
        audit(conv, photos[:1], ["noisegrad:weight_samples=2"])
        assert conv.weights_hash() == before
        assert torch.equal(torch.get_rng_state(), state)

    def test_targets(self, conv, photos):
        """Another class has other areas; the predicted one is that of None."""
        predicted = sal.explain("gradient", conv, photos).targets
        assert audit(conv, photos, ["gradient"], predicted) == audit(conv, photos, ["gradient"])
        other = asked(conv, photos, ["gradient"], (predicted + 1) % 5)
        assert other["deletion"].figure != asked(conv, photos, ["gradient"])["deletion"].figure

    def test_a_black_box(self, conv, photos):
        box = sal.BlackBox(lambda images: conv.module(images).softmax(1).detach(), size=(24, 32), name="box")
        found = asked(box, photos[:1], ["rise:samples=20"])
        assert found["random weights"].sentence == "A black box shows no weights, so they cannot be randomised."
        assert (found["random weights"].verdict, found["class kept"].verdict) == ("not asked", "not asked")
        assert found["deletion"].figure is not None

    def test_the_level_of_weight_noise_is_found_once(self, conv, photos, monkeypatch):
        calls = []
        monkeypatch.setattr(_weight_noise, "tuned_weight_sigma", lambda model, images: model.weight_sigma or calls.append(len(images)) or 0.01)
        conv.weight_sigma = None
        audit(conv, photos, ["vargrad:samples=2,base=(noisegrad:weight_samples=2)", "gradient"])
        assert calls == [3]
        assert conv.weight_sigma is None
        audit(conv, photos[:1], ["gradient", "noisegrad:weight_samples=2,weight_sigma=0.1"])
        assert calls == [3]

    def test_progress(self, conv, photos):
        told = []
        audit(conv, photos[:2], ["gradient"], progress=lambda *each: told.append(each))
        assert told[0] == ("preparing gradient", 0, None)
        assert told[1 : card.MAPS + 2] == [("gradient, image 1 of 2", done, card.MAPS) for done in range(card.MAPS + 1)]
        assert told[-1][0] == "the controls, image 2 of 2"

    def test_a_picture_given_twice_is_refused(self, conv, photos):
        """It counted as two, so intervals came out too narrow."""
        with pytest.raises(sal.InputError, match=r"^image 1 and image 3 are the same picture: give it once, because intervals count pictures\.$"):
            audit(conv, photos[[0, 1, 0]], ["gradient"])

    def test_no_method(self, conv, photos):
        with pytest.raises(sal.InputError, match=r"^There is nothing to audit: name at least one method\.$"):
            audit(conv, photos, [])


class TestRandomWeights:
    def test_it_is_the_metric(self, conv, photos, monkeypatch):
        """With one draw of weights, the metric's own, the figure is the metric's of a single step."""
        monkeypatch.setattr(card, "WEIGHT_DRAWS", 1)
        monkeypatch.setattr(card, "Stream", lambda *_: streams(7, 1)[0].at("metric", "parameter_randomisation"))
        found = asked(conv, photos[:1], ["gradient"], seed=7)["random weights"]
        assert found.figure == pytest.approx(sal.measure("parameter_randomisation:steps=1", conv, photos[:1], explainer="gradient", seed=7).item(), abs=1e-6)

    def test_the_controls_fail_and_the_floor_is_that_of_fresh_draws(self, conv, photos):
        edges, random = (asked(conv, photos, [name])["random weights"] for name in ("edges", "random"))
        assert (edges.figure, edges.threshold, edges.verdict) == (pytest.approx(1), 0.5, "fail")
        assert (random.figure, random.threshold, random.verdict) == (pytest.approx(1), pytest.approx(0, abs=0.05), "fail")

    @pytest.mark.parametrize("seed", range(4))
    def test_no_luck_decides_of_the_random_map(self, conv, photos, seed):
        """Whether two random maps correlated by 0.01 or by -0.01 decided what was asked, and it passed the flip."""
        found = asked(conv, photos[:1], ["random"], seed=seed)
        assert (found["random weights"].figure, found["random weights"].verdict) == (pytest.approx(1), "fail")
        assert {found[name].verdict for name in ("noise", "blur", "flip")} == {"not asked"}

    @pytest.mark.parametrize("seed", range(6))
    def test_no_luck_decides_of_a_map_that_is_another_in_every_call(self, conv, seed):
        """Of nine such maps three passed and one failed: the threshold was half of what two of them have in common by chance."""
        generator = torch.Generator().manual_seed(seed)
        photos = torch.rand(1, 3, 16, 20, generator=generator)
        noise = lambda model, images, targets: torch.randn(len(images), 16, 20, generator=generator)  # noqa: E731
        found = asked(conv, photos, [noise], seed=seed)["random weights"]
        assert (found.verdict, found.sentence.endswith("so there is nothing to measure it by.")) == ("not asked", True)

    def test_one_image_has_the_interval_of_its_draws_of_weights(self, conv, photos):
        found = asked(conv, photos[:1], ["gradient"])["random weights"]
        assert found.low < found.figure < found.high
        assert found.sentence.endswith(" From 3 random networks, so the interval is too narrow.")

    def test_the_interval_is_one_of_correlations(self, conv, photos):
        """It was -1.3 to 0.04 for some."""
        areas = {"deletion": -0.1, "insertion": 0.6}
        seen = [Seen(1.0, kept, areas, {}, None, None, 0) for kept in ([-0.9, -0.9, 0.2], [-0.95, -0.8, -0.9])]
        found = Card("all", "made up", seen, []).random_weights()
        assert found.low == -1
        assert found.figure < found.high <= 1


class TestBetter:
    def test_differences_are_to_the_best_control_on_average(self, conv, photos):
        found = asked(conv, photos, ["gradient"], seed=3)
        for metric, sign in (("deletion", -1), ("insertion", 1)):

            def area(name, place, draw, metric=metric):
                image, (own, weights) = photos[place : place + 1], seed_of(place, 3)[0]
                maps = sal.explain(name, conv, image, seed=[(own + draw, weights)])
                return sal.measure(metric, conv, image, None, maps, seed=[(own, weights)]).item()

            def areas(name, draws, sign=sign):
                return sign * np.array([np.mean([area(name, place, draw) for draw in range(draws)]) for place in range(3)])

            controls = {name: areas(name, 5 if entry.facts.get("seeded") else 1) for name, entry in entries("explainer").items() if entry.facts.get("control")}
            assert sorted(controls) == ["centre", "edges", "random"]
            best = max(controls, key=lambda name: controls[name].mean())
            assert found[metric].figure == pytest.approx((areas("gradient", 1) - controls[best]).mean(), abs=1e-6)
            assert (found[metric].threshold, f"that of the best one, {best}." in found[metric].sentence) == (0, True)

    def test_a_map_of_what_the_network_looks_at_beats_them_and_its_opposite_does_not(self):
        class Corner(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.weight = torch.nn.Parameter(torch.tensor(40.0))

            def forward(self, x):
                score = x[:, 0, :6, :6].mean((1, 2)) * self.weight
                return torch.stack([score, torch.full_like(score, 8.0)], 1)

        def corner(model, images, targets):
            found = torch.zeros(len(images), 1, *images.shape[-2:])
            found[:, :, :6, :6] = 1
            return found

        def elsewhere(model, images, targets):
            return 1 - corner(model, images, targets)

        model = sal.Model(Corner(), mean=(0.0,) * 3, std=(1.0,) * 3)
        coarse = torch.rand(4, 3, 5, 6, generator=torch.Generator().manual_seed(0))  # smooth: a blur must not be the whole image
        images = torch.nn.functional.interpolate(coarse, (20, 23), mode="bilinear") * 0.5 + 0.4
        good, bad = (asked(model, images, [method], 0)["deletion"] for method in (corner, elsewhere))
        assert (good.verdict, bad.verdict) == ("pass", "fail")
        assert good.sentence.startswith("It beats the controls: the area under the curve is 0.")
        assert bad.figure < 0 < good.low

    def test_one_map_drawn_at_random_does_not_beat_maps_drawn_at_random(self, conv, photos):
        """The interval of one image is that of luck: nearly all hold 0, or random is not the best control."""
        verdicts = [found.verdict for seed in range(10) for found in asked(conv, photos[:1], ["random"], seed=seed * 10).values() if found.question in ("deletion", "insertion")]
        assert verdicts.count("pass") <= 2


class TestConverged:
    def test_more_draws_converge(self, conv, photos):
        few, many = (asked(conv, photos, [f"smoothgrad:samples={n},sigma=3"])["converged"] for n in (2, 60))
        assert (few.verdict, many.verdict) == ("fail", "pass")
        assert "times the draws" in few.sentence
        assert "times the draws" not in many.sentence

    def test_the_error_is_that_of_the_pattern(self, conv, photos):
        """Two maps correlate as that error says, 1 / (1 + error²); the error of all values is larger, as most of it is the level's."""
        made = [sal.explain("rise:samples=100,estimator=centred,keep=0.2", conv, photos[:1], seed=seed) for seed in range(8)]
        pattern, every = (np.mean([error(e) for e in made]) for error in (card._pattern_error, lambda e: e.relative_error.item()))
        correlations = np.corrcoef([e.maps.flatten().numpy() for e in made])
        assert 1 / (1 + pattern**2) == pytest.approx(correlations[np.triu_indices(8, 1)].mean(), abs=0.1)
        assert pattern < every

    def test_where_draws_share_no_error_it_is_the_relative_error(self, conv, photos):
        e = sal.explain("smoothgrad:samples=20,sigma=3", conv, photos[:1])
        assert card._pattern_error(e) == pytest.approx(e.relative_error.item(), rel=0.05)

    def test_the_threshold_tells_typical_pixels_apart(self):
        """Two pixels N(0, 1) with errors of that size: their typical difference is 1.96 of its own errors."""
        generator = np.random.default_rng(0)
        typical = np.diff(generator.standard_normal((200_000, 2)), axis=1).std()
        error = np.diff(TOLD_APART * generator.standard_normal((200_000, 2)), axis=1).std()
        assert typical / error == pytest.approx(stats.norm.ppf(0.975), rel=0.01)

    def test_methods_without_an_error(self, conv, photos):
        assert asked(conv, photos, ["gradient"])["converged"].sentence == "It draws nothing at random, so there is nothing to converge."
        assert asked(conv, photos, ["random"])["converged"].sentence.startswith("It draws at random but does not know its error; two maps with other draws")

    def test_a_map_of_noise_alone(self):
        found = findings(pattern_error=[0.1, math.inf])["converged"]
        assert (found.figure, found.low, found.verdict) == (math.inf, None, "fail")
        assert found.sentence == "It has not converged: in 1 of 2 image(s) nothing stands out of the sampling noise; take many more draws."


class TestSurvives:
    def test_the_edges_themselves_do(self, conv, photos):
        found = asked(conv, photos, ["edges"])
        for name in ("noise", "blur", "flip"):
            assert found[name].verdict == "pass"
            assert found[name].threshold == pytest.approx(found[name].figure / 2)

    def test_a_map_that_has_nothing_to_do_with_the_picture_does_not(self, conv, photos):
        def scrambled(model, images, targets):
            return torch.rand(images.shape[0], 1, *images.shape[-2:], generator=torch.Generator().manual_seed(int(images.sum() * 1e4)))

        assert {asked(conv, photos, [scrambled])[name].verdict for name in ("noise", "blur")} == {"fail"}

    def test_images_with_another_prediction_are_left_out(self):
        found = findings(survived=[0.6, math.nan, 0.8])["blur"]
        assert (found.figure, found.threshold) == (pytest.approx(0.7), pytest.approx(0.4))
        assert found.sentence.endswith("1 of 3 images are left out: their prediction changed. From 2 images, so the interval is too narrow.")
        assert findings(survived=[math.nan, math.nan])["blur"].sentence == "The prediction changes with the picture, so the map may change too."

    @pytest.mark.parametrize("method", ["gradient", "smoothgrad:samples=4", "noisegrad:weight_samples=2,weight_sigma=0.1"])
    def test_a_map_that_is_the_same_everywhere_is_not_asked(self, method):
        """It passed everything, and was told to take many more draws."""
        found = asked(constant(), torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)), [method])
        for question in ("random weights", "noise", "blur", "flip"):
            assert (found[question].verdict, found[question].sentence) == ("not asked", "In 2 of 2 image(s) the map is the same everywhere, so there is nothing to ask.")
        assert found["converged"].verdict == "not asked"

    def test_so_is_one_that_is_the_same_up_to_rounding(self):
        """It was said to have converged."""
        images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        e = sal.explain("rise:samples=30", constant(), images[:1])
        assert e.maps.amin() < e.maps.amax()
        found = asked(constant(), images, ["rise:samples=30"])
        assert {found[name].sentence for name in ("random weights", "converged", "noise")} == {"In 2 of 2 image(s) the map is the same everywhere, so there is nothing to ask."}

    def test_a_map_of_noise_is_not_asked(self):
        """Where not even the edges keep anything everything survived: the threshold was 0, or less."""
        found = asked(constant(), torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)), ["rise:samples=40"])
        assert {found[name].verdict for name in ("random weights", "noise", "blur", "flip")} == {"not asked"}
        assert "nothing but sampling noise" in found["noise"].sentence or "the same everywhere" in found["noise"].sentence
        assert findings(survived=[0.0, 0.0], floor=-0.1)["blur"].sentence.endswith(" and drawing anew leaves -0.10, so there is nothing to measure it by.")

    def test_the_noise_floor_takes_part(self):
        assert findings(survived=[0.3, 0.3], floor=0.5)["blur"].threshold == 0.25
        assert findings(survived=[0.3, 0.3], floor=0.9)["blur"].threshold == 0.4


class TestClassKept:
    def test_share_of_networks(self, conv, photos):
        method = "noisegrad:weight_samples=6,weight_sigma=3"
        found = asked(conv, photos, [method])["class kept"]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            kept = [sal.explain(method, conv, photos[place : place + 1], seed=seed_of(place)).record["images"]["class_kept"][0] for place in range(3)]
        assert found.figure == pytest.approx(np.mean(kept))
        assert found.threshold == 0.5

    def test_what_broken_networks_survive_does_not_count(self):
        found = findings(class_kept=[0.2, 0.4], survived=[0.9, 0.9])["blur"]
        assert (found.verdict, found.sentence) == ("not asked", "The networks behind it no longer see the class, so what it survives says nothing.")

    @pytest.mark.parametrize(("draws", "verdict"), [(2, "unclear"), (6, "pass")])
    def test_one_image_has_the_interval_of_its_draws(self, conv, photos, draws, verdict):
        found = asked(conv, photos[:1], [f"noisegrad:weight_samples={draws},weight_sigma=0"])["class kept"]
        assert (found.figure, found.verdict) == (1, verdict)
        assert (found.low, found.high) == pytest.approx(tuple(stats.binomtest(draws, draws).proportion_ci()))

    def test_more_images_are_no_more_draws(self, conv, photos):
        """All images share them: 2 of 2 networks kept the class of three images was an interval from 1 to 1."""
        found = asked(conv, photos, ["noisegrad:weight_samples=2,weight_sigma=0"])["class kept"]
        assert (found.low, found.high) == pytest.approx(tuple(stats.binomtest(2, 2).proportion_ci()))
        assert found.verdict == "unclear"

    def test_what_is_drawn_in_a_smoothed_network_is_no_network(self, conv, photos):
        """The one network that five noisy pictures went through was taken for five: from 0.48 to 1, open whether it keeps the class."""
        found = asked(conv, photos, ["beta_smoothing:beta=1000,base=(smoothgrad:samples=5)"])["class kept"]
        assert (found.low, found.high, found.verdict) == (1, 1, "pass")

    def test_draws_of_each_images_own_count_together(self, conv, photos):
        found = asked(conv, photos, ["smoothgrad:samples=5,noise_level=0.001,base=(beta_smoothing:beta=1000)"])["class kept"]
        assert (found.low, found.high) == pytest.approx(tuple(stats.binomtest(15, 15).proportion_ci()))

    def test_smoothed_networks_too_and_no_others(self, conv, photos):
        assert asked(conv, photos, ["beta_smoothing:beta=1000"])["class kept"].verdict == "pass"
        assert asked(conv, photos, ["smoothgrad:samples=3"])["class kept"].sentence == "It explains the network itself, not noisy or smoothed ones."


def test_intervals_of_few_images_are_said_to_be_too_narrow():
    for question, made in (("converged", "pattern_error"), ("class kept", "class_kept"), ("noise", "survived")):
        assert findings(**{made: [0.6, 0.7]})[question].sentence.endswith(" From 2 images, so the interval is too narrow.")
        assert "too narrow" not in findings(**{made: [0.6]})[question].sentence + findings(**{made: [0.6, 0.7] * 3})[question].sentence
    assert "too narrow" not in findings(survived=[0.6, 0.7])["random weights"].sentence  # Student's


def test_what_is_barely_not_converged_needs_more_draws():
    assert "it needs about 1.1 times the draws" in findings(pattern_error=[0.515])["converged"].sentence


def test_an_interval_that_holds_the_threshold_is_unclear():
    assert findings(class_kept=[0.2, 0.9, 0.4])["class kept"].verdict == "unclear"
    assert findings(class_kept=[0.6, 0.9, 0.7])["class kept"].verdict == "pass"
    assert findings(class_kept=[0.5, 0.5])["class kept"].verdict == "pass"
    assert findings(class_kept=[0.2, 0.3])["class kept"].verdict == "fail"


def test_one_image_without_an_interval_says_so():
    found = findings(survived=[0.6])["blur"]
    assert (found.low, found.high, found.verdict) == (None, None, "pass")
    assert found.sentence.endswith(" From one image, so without an interval.")


def findings(pattern_error=(), survived=(), class_kept=(), floor=1.0):
    """The card of made-up numbers, one an image; the edges keep 0.8."""
    n = max(map(len, (pattern_error, survived, class_kept)))

    def at(values, place):
        return values[place] if values else None

    areas = {"deletion": -0.1, "insertion": 0.6}
    seen = [Seen(floor, [0.1, 0.1, 0.1], areas, dict.fromkeys(("noise", "blur", "flip"), at(survived, place) or 0.6), at(pattern_error, place), at(class_kept, place), 0) for place in range(n)]
    controls = [Controls({"edges": areas}, dict.fromkeys(areas, 0.0), dict.fromkeys(("noise", "blur", "flip"), 0.8))] * n
    return {finding.question: finding for finding in Card("some", "made up", seen, controls).findings()}
