"""What an explanation says of its own sampling error, and what it refuses to say."""

import pytest
import torch
from torch import nn

import salience as sal
from salience.core.classifier import PIXELS_AT_ONCE


@pytest.mark.parametrize("outer", ["guided_backprop", "beta_smoothing"])
def test_a_random_base_keeps_its_error_under_other_relus(conv, photos, outer):
    e = sal.explain(f"{outer}:base=(smoothgrad:samples=30)", conv, photos, 1)
    again = sal.explain(f"{outer}:base=(smoothgrad:samples=30)", conv, photos, 1, seed=1)
    assert e.samples.tolist() == [30, 30]
    assert e.stderr is not None
    z = (e.maps - again.maps) / (e.stderr.square() + again.stderr.square()).sqrt()
    assert 0.7 < z[z.isfinite()].square().mean().sqrt() < 1.4
    stopped = sal.explain(f"{outer}:base=(smoothgrad:samples=400)", conv, photos, 1, tolerance=5.0)
    assert stopped.converged.all()
    assert stopped.samples.max() < 400


def test_draws_of_other_libraries_are_not_called_deterministic(conv, photos):
    drawn = sal.explain("captum:GradientShap", conv, photos, 1)
    assert drawn.stderr is None
    assert drawn.certainty == "random, with an error that is not known"
    assert "random" in repr(drawn)
    with pytest.raises(sal.InputError, match=r"^captum:GradientShap is random, with an error that is not known, so its map has no confidence interval\.$"):
        drawn.interval()
    with pytest.raises(sal.InputError, match=r"^captum:GradientShap draws at random but does not know its error, so it cannot stop at a tolerance: leave tolerance out\.$"):
        sal.explain("captum:GradientShap", conv, photos, 1, tolerance=0.1)
    assert sal.explain("captum:Saliency", conv, photos, 1).certainty == "deterministic"
    assert sal.explain("random", conv, photos, 1).certainty == "random, with an error that is not known"
    assert sal.explain("smoothgrad:samples=4,base=(captum:GradientShap)", conv, photos, 1).certainty == "random, with a known error"


@pytest.mark.parametrize("method", ["rise:samples=400,grid=4", "lime:samples=400,segmentation=grid"])
def test_another_class_has_converged_by_its_own_error(method):
    def two(x):
        bright = x[:, :, :2].mean((1, 2, 3))
        return torch.stack([bright, 0.5 + 1e-6 * x.mean((1, 2, 3)), 1 - bright], 1)

    image = torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    e = sal.explain(method, sal.BlackBox(two, name="two"), image, 0, tolerance=0.9)
    other = e.for_target(1)
    assert e.converged.all()
    assert other.converged.tolist() == (other.relative_error <= 0.9).tolist()
    assert not other.converged.all()


def test_a_map_that_is_not_finite_is_refused():
    class Rooted(nn.Module):
        def forward(self, x):
            return x.sum((2, 3)).sqrt()

    with pytest.raises(sal.InputError, match=r"^The map of image 2 by gradient has NaN or infinite values, though the outputs of rooted are finite"):
        sal.explain("gradient", sal.Model(Rooted(), name="rooted"), torch.stack([torch.ones(3, 4, 4), torch.zeros(3, 4, 4)]), 1)


@pytest.mark.parametrize("method", ["cam", "excitation_backprop", "contrastive_excitation_backprop", "edges", "centre", "random", "smoothgrad:samples=2,base=(cam)"])
def test_a_score_that_would_change_nothing_is_refused(conv, photos, method):
    with pytest.raises(sal.InputError, match=r"does not depend on a score, so choosing one would change nothing: leave score out\.$"):
        sal.explain(method, conv, photos, 1, score="probability")


def test_colour_maps_are_greyed_by_the_freedom_of_their_blocks(conv, photos):
    from scipy.stats import t

    from salience.show.colour import shown

    e = sal.explain("smoothgrad:samples=200", conv, photos, 1)
    assert e.df.tolist() == [199, 199]
    assert e.saliency_df.tolist() == [19, 19]
    view = shown(e)[0]
    expected = abs(view.values) <= t.ppf(0.975, 19) * view.stderr
    assert (view.undecided == expected).all()


def test_the_level_of_weight_noise_is_found_once_a_call(conv, photos, monkeypatch):
    from salience.explainers import _weight_noise

    conv.weight_sigma, asked = None, []
    monkeypatch.setattr(_weight_noise, "tuned_weight_sigma", lambda model, images: model.weight_sigma or asked.append(images) or 0.03)
    method = "smoothgrad:samples=6,base=(noisegrad:weight_samples=2)"
    maps = [sal.explain(method, conv, photos, 1, chunk=chunk).maps for chunk in (1, 4, 64)]
    assert len(asked) == 3
    assert all(torch.equal(images, photos) for images in asked)
    assert torch.allclose(maps[0], maps[1], atol=1e-6)
    assert torch.allclose(maps[0], maps[2], atol=1e-6)
    sal.measure("max_sensitivity:samples=3", conv, photos, 1, explainer="noisegrad:weight_samples=2")
    assert len(asked) == 5  # one for the maps, one for the metric


def test_one_output_and_labels_that_do_not_exclude_each_other(photos):
    one = sal.Model(nn.Sequential(nn.Flatten(), nn.Linear(105, 1)), name="one")
    logit = one.outputs(photos)
    assert torch.allclose(one.as_probabilities(logit), logit.sigmoid())
    assert torch.allclose(one.named_score("log_probability").every(logit), logit.sigmoid().log())
    assert sal.explain("rise:samples=60,grid=3", one, photos).maps.std() > 0
    many = sal.Model(nn.Sequential(nn.Flatten(), nn.Linear(105, 4)), name="many", outputs="multilabel")
    outputs = many.outputs(photos)
    assert torch.allclose(many.as_probabilities(outputs), outputs.sigmoid())
    e = sal.explain("rise:samples=60,grid=3", many, photos, 2)
    assert e.score == "sigmoid"
    assert e.record["images"]["probability"] == pytest.approx(outputs.sigmoid()[:, 2].tolist(), rel=1e-5)
    assert torch.equal(e.maps, sal.explain("rise:samples=60,grid=3", many, photos, 2, score="probability").maps)
    with pytest.raises(sal.InputError, match=r"^The classes of many do not exclude each other: use score='sigmoid' or 'logit' instead of 'log_probability'\.$"):
        sal.explain("gradient", many, photos, score="log_probability")


def test_the_record_says_what_was_explained(conv, tmp_path, monkeypatch):
    from PIL import Image

    monkeypatch.setitem(PIXELS_AT_ONCE, "cpu", 4 * 9 * 12)
    Image.new("RGB", (9, 12), (200, 30, 60)).save(tmp_path / "red.png")
    images = sal.load_images([tmp_path / "red.png"], conv)
    record = sal.explain("gradient", conv, images).record
    assert record["images"]["file"] == [str(tmp_path / "red.png")]
    assert record["images"]["geometry"][0]["original"] == (12, 9)
    assert len(record["images"]["pixels"][0]) == 64
    assert {"torch", "numpy", "pillow", "scikit-image"} <= set(record["versions"])
    assert record["model"]["device"] == "cpu"
    assert (record["model"]["chunk"], record["model"]["forward_chunk"]) == (4, 8)
    assert sal.explain("gradient", conv, torch.rand(1, 3, 12, 9)).record["images"].keys() == record["images"].keys() - {"file", "geometry"}
