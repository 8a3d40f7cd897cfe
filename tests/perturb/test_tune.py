"""The search for a level of noise: closed forms, common draws, and what is kept in files."""

import copy
import json
import math

import pytest
import torch
from scipy.stats import norm
from torch import nn

import salience as sal
from salience.core.draws import Stream
from salience.perturb import tune
from salience.perturb.tune import WEIGHT_LEVELS, CacheWarning, Noisy, accuracy_drop, cache_folder, keep, keep_weight_sigma, kept, predictions, smallest_crossing, tuned_weight_sigma


class TwoScores(nn.Module):
    """Scores w0 x0 and w1 x1 of the first two channels' mean, w = 1."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.ones(2))

    def forward(self, x):
        return self.w * x.mean((2, 3))[:, :2]


def two_images(ratios, size=1):
    """Images whose clean scores are 1 and the ratio."""
    first = torch.tensor([[1.0, ratio, 0.0] for ratio in ratios])
    return first[:, :, None, None].expand(-1, -1, size, size).contiguous()


def exact(ratio, sigma):
    """Relative drop of `TwoScores` at 2 classes: w0 - r w1 is normal with mean 1 - r and sd sigma sqrt(1 + r²)."""
    return 2 * norm.cdf(-(1 - ratio) / (sigma * math.sqrt(1 + ratio**2)))


class TestSearch:
    def test_a_growing_drop(self):
        asked = []

        def drop(level):
            asked.append(level)
            return level

        found = smallest_crossing(drop, WEIGHT_LEVELS)
        assert 0.05 <= found <= 0.05 / 0.95
        assert asked[:6] == list(WEIGHT_LEVELS[:6])
        assert max(asked) == 0.05
        assert len(asked) <= 6 + 4

    def test_the_smallest_of_several_crossings(self):
        """Up at 0.012, down again at 0.1, up at 0.7: bisection of 0 to 1 would find 0.7."""
        found = smallest_crossing(lambda level: 0.3 if 0.012 <= level < 0.1 or level > 0.7 else 0.01, WEIGHT_LEVELS)
        assert 0.012 <= found <= 0.012 / 0.95

    def test_a_drop_that_comes_back(self):
        """At the largest level there is none, which would stop a search from both ends."""
        assert smallest_crossing(lambda level: 0.3 if 0.012 <= level < 0.1 else 0.0, WEIGHT_LEVELS) == pytest.approx(0.012, rel=0.06)

    def test_a_drop_of_exactly_the_target_reaches_it(self):
        """Of 160 predictions 130 are right and 136 were: 5 %, but for the last digit."""
        exactly = 1 - (130 / 160 - 0.1) / (136 / 160 - 0.1)
        assert exactly < 0.05
        assert smallest_crossing(lambda level: exactly if level >= 0.02 else 0.0, WEIGHT_LEVELS) == pytest.approx(0.02, rel=0.05)
        assert smallest_crossing(lambda level: exactly if level >= 0.011 else 0.0, WEIGHT_LEVELS) == pytest.approx(0.011, rel=0.06)

    def test_no_crossing(self):
        assert smallest_crossing(lambda level: 0.049, WEIGHT_LEVELS) is None

    def test_a_network_that_bears_nothing_ends_the_search(self):
        assert 0 < smallest_crossing(lambda level: 1.0, WEIGHT_LEVELS) <= tune.SMALLEST


class TestNoisy:
    def test_closed_form(self):
        """The mean drop over many draws of weights, at 5 standard errors."""
        model, draws = sal.Model(TwoScores()), 300
        for ratio, sigma in ((0.5, 0.3), (0.9, 0.05), (0.9, 0.5)):
            truth = exact(ratio, sigma)
            assert abs(accuracy_drop(model, two_images([ratio]), sigma, draws=draws) - truth) < 5 * math.sqrt(truth * (2 - truth) / draws)

    def test_the_same_draw_at_every_strength(self):
        model = sal.Model(TwoScores())
        images = two_images([0.5], 4)
        clean = model.outputs(images)
        noisy = Noisy(model, images, seed=3)
        moved = {level: noisy.outputs(7, 0.0, level) - clean for level in (0.2, 0.1)}
        assert torch.allclose(moved[0.2], 2 * moved[0.1], atol=1e-6)
        moved = {sigma: noisy.outputs(7, sigma) - clean for sigma in (0.2, 0.1)}
        assert torch.allclose(moved[0.2], 2 * moved[0.1], atol=1e-6)
        assert not torch.allclose(moved[0.1], Noisy(model, images, seed=3).outputs(8, 0.1) - clean)
        assert torch.equal(moved[0.1], Noisy(model, images, seed=3).outputs(7, 0.1) - clean)

    def test_weights_are_shared_and_pixels_are_not(self):
        model = sal.Model(TwoScores())
        images = two_images([0.5, 0.5], 4)
        of_weights, of_pixels = Noisy(model, images).outputs(0, 0.3), Noisy(model, images).outputs(0, 0.0, 0.3)
        assert torch.equal(of_weights[0], of_weights[1])
        assert not torch.equal(of_pixels[0], of_pixels[1])
        assert torch.equal(of_pixels[:1], Noisy(model, images[:1]).outputs(0, 0.0, 0.3))

    def test_input_noise_is_relative_to_the_range(self):
        """Half the range, half the noise; and it is the noise that was asked for."""
        model = sal.Model(TwoScores())
        images = two_images([0.5], 1)
        ones = Noisy(model, images, noise=lambda stream, shape, draw: torch.ones(shape))
        assert torch.allclose(ones.outputs(0, 0.0, 0.2), torch.tensor([[1.2, 0.7]]))
        assert torch.allclose(Noisy(model, images / 2, noise=ones.noise).outputs(0, 0.0, 0.2), torch.tensor([[0.6, 0.35]]))

    def test_both_kinds_together(self):
        model = sal.Model(TwoScores())
        images = two_images([0.5], 1)
        noisy = Noisy(model, images, noise=lambda stream, shape, draw: torch.ones(shape))
        factors = noisy.outputs(0, 0.1) / model.outputs(images)
        assert torch.allclose(noisy.outputs(0, 0.1, 0.2), factors * torch.tensor([[1.2, 0.7]]))
        assert torch.equal(model.module.w.data, torch.ones(2))

    def test_a_black_box_may_have_noisy_images(self):
        box = sal.BlackBox(lambda images: images.mean((2, 3)), name="box")
        assert Noisy(box, torch.rand(2, 3, 4, 4)).outputs(0, 0.0, 0.1).shape == (2, 3)
        with pytest.raises(sal.InputError, match=r"^box is a black box, so its weights cannot be given noise"):
            Noisy(box, torch.rand(2, 3, 4, 4)).outputs(0, 0.1)

    def test_overflow_predicts_nothing(self):
        assert predictions(torch.tensor([[1.0, 2.0], [float("nan"), 0.0], [float("inf"), 0.0]])).tolist() == [1, -1, -1]


def test_gaussian_noise_is_that_of_smoothgrad():
    """SmoothGrad's own draws: the same stream and number give the same noise."""
    stream = Stream((4,), (4,))
    assert torch.equal(tune.gaussian(stream, (3, 5, 7), 2), sal.SmoothGrad().noise(stream, (3, 5, 7), 2))


def other_weights(model):
    """The same model, of which nothing is kept."""
    other = copy.deepcopy(model)
    other.module.head.bias.data += 1
    return other


class TestKept:
    """What ``weight_sigma=auto`` takes, and from where."""

    @pytest.fixture
    def unnamed(self, conv):
        conv.weight_sigma = None
        return conv

    @pytest.fixture
    def searched(self, monkeypatch):
        """A search that finds 0.3 and is counted."""
        calls = []
        monkeypatch.setattr(tune, "smallest_crossing", lambda *_, **__: calls.append(1) or 0.3)
        return calls

    def test_own_level_then_kept_then_carried_then_search(self, unnamed, searched, photos):
        assert tuned_weight_sigma(unnamed, photos) == 0.3
        keep_weight_sigma(unnamed.weights_hash(), 0.07, {"method": "noisegrad"})
        assert tuned_weight_sigma(unnamed, photos) == 0.07
        e = sal.explain("noisegrad:weight_samples=2", unnamed, photos)
        assert e.record["images"]["weight_sigma"] == pytest.approx([0.07] * 2)
        unnamed.carried_weight_sigma = 0.02
        assert tuned_weight_sigma(unnamed, photos) == 0.07
        assert tune.known_weight_sigma(other_weights(unnamed)) == 0.02
        unnamed.weight_sigma = 0.01
        assert tuned_weight_sigma(unnamed, photos) == 0.01
        assert len(searched) == 1

    def test_a_carried_level_of_nothing_is_none(self, unnamed, searched, photos):
        """A card rounded a small level to 0, and noisegrad was the plain gradient."""
        unnamed.carried_weight_sigma = 0.0
        assert tuned_weight_sigma(unnamed, photos) == 0.3

    def test_other_weights_are_not_concerned(self, unnamed, searched, photos):
        keep_weight_sigma(unnamed.weights_hash(), 0.07, {})
        with torch.no_grad():
            unnamed.module.head.bias += 1
        assert tuned_weight_sigma(unnamed, photos) == 0.3

    def test_a_search_is_not_kept(self, unnamed, searched, photos):
        tuned_weight_sigma(unnamed, photos)
        assert not cache_folder().exists() or not any(cache_folder().iterdir())

    def test_nothing_is_hashed_where_nothing_is_kept(self, unnamed, searched, photos, monkeypatch):
        monkeypatch.setattr(type(unnamed), "weights_hash", lambda self: pytest.fail("hashed"))
        assert tuned_weight_sigma(unnamed, photos) == 0.3

    @pytest.mark.parametrize(
        ("text", "fault"),
        [
            ("", "Expecting value: line 1 column 1 (char 0)"),
            ("[1]", "list indices must be integers or slices, not str"),
            ('{"weights": "those of another"}', "it is about other weights"),
            ('{"weights": "OWN", "weight_sigma": "much"}', "weight_sigma is 'much'"),
            ('{"weights": "OWN", "weight_sigma": -1}', "weight_sigma is -1"),
            ('{"weights": "OWN", "weight_sigma": 1.5}', "weight_sigma is 1.5"),
            ('{"weights": "OWN"}', "weight_sigma is None"),
        ],
    )
    def test_a_damaged_file_is_one_warning(self, unnamed, searched, photos, text, fault):
        keep_weight_sigma(unnamed.weights_hash(), 0.07, {})
        (path,) = cache_folder().rglob("weight_sigma.json")
        path.write_text(text.replace("OWN", unnamed.weights_hash()))
        with pytest.warns(CacheWarning) as told:
            assert tuned_weight_sigma(unnamed, photos) == 0.3
        assert [str(each.message) for each in told] == [f"The noise level kept in {path} cannot be used ({fault}), so it is searched anew: delete that file."]

    def test_a_folder_that_cannot_be_written_is_one_warning(self, tmp_path, monkeypatch):
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("SALIENCE_CACHE", str(tmp_path / "file"))
        with pytest.warns(CacheWarning, match=r"^The noise level found is not kept for next time: Cannot write .*\.$") as told:
            keep("0" * 64, "weight_sigma", {})
        assert len(told) == 1

    def test_records(self):
        assert kept("a" * 64, "some") is None
        keep("a" * 64, "some", {"figure": 1})
        assert kept("a" * 64, "some") == {"weights": "a" * 64, "figure": 1}
        keep("a" * 64, "some", {"figure": 2})
        assert kept("a" * 64, "some")["figure"] == 2
        (path,) = cache_folder().rglob("*.json")
        assert json.loads(path.read_text())["figure"] == 2

    def test_where(self, monkeypatch, tmp_path):
        monkeypatch.setenv("SALIENCE_CACHE", str(tmp_path / "own"))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        assert cache_folder() == tmp_path / "own"
        monkeypatch.delenv("SALIENCE_CACHE")
        assert cache_folder() == tmp_path / "xdg" / "salience"
        monkeypatch.delenv("XDG_CACHE_HOME")
        assert cache_folder() == tmp_path / "home" / ".cache" / "salience"
