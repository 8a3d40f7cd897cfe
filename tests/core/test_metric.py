"""What every metric does with the maps and masks that it is given."""

import numpy as np
import pytest
import torch

import salience as sal


@pytest.fixture
def maps(photos):
    return torch.randn(photos.shape, generator=torch.Generator().manual_seed(3))


def measured(conv, photos, maps, metric="gini", **options):
    return sal.measure(metric, conv, photos, 1, maps, **options)


def said(*given, **options):
    with pytest.raises(sal.InputError) as caught:
        measured(*given, **options)
    return str(caught.value)


def test_maps_of_any_layout_and_kind_of_number(conv, photos, maps):
    wanted = measured(conv, photos, maps)
    assert (measured(conv, photos, maps.numpy()) == wanted).all()
    assert (measured(conv, photos, maps.numpy().tolist()) == wanted).all()
    assert (measured(conv, photos, maps.double().requires_grad_()) == wanted).all()
    assert (measured(conv, photos, maps.numpy().astype(">f8")) == wanted).all()
    flipped = maps.numpy()[:, :, ::-1]
    assert (measured(conv, photos, flipped) == measured(conv, photos, maps.flip(2))).all()
    whole = (maps * 9).round()
    assert (measured(conv, photos, whole.numpy().astype(np.int64)) == measured(conv, photos, whole)).all()


def test_maps_in_double_precision_keep_their_digits(conv, photos, maps):
    masks = torch.zeros(len(photos), *photos.shape[-2:], dtype=torch.bool)
    masks[:, 1:4, 2:5] = True
    maps = maps[:, :1]
    for same in (maps.double() * 1e-60, maps.double() * 1e60, maps.double().numpy() * 1e-12 + 1):
        for metric in ("localisation_auc", "relevance_rank_accuracy", "top_k_in_mask", "pointing_game", "deletion", "insertion", "road"):
            given = {"masks": masks} if metric[0] in "lrtp" and metric != "road" else {}
            assert (measured(conv, photos, same, metric, **given) == measured(conv, photos, maps, metric, **given)).all()
    for metric in ("gini", "entropy", "faithfulness_correlation", "sensitivity_n", "infidelity"):
        assert torch.allclose(measured(conv, photos, maps.double() * 1e-60, metric), measured(conv, photos, maps, metric), rtol=1e-4)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (lambda maps: maps + 1j, "maps must be an Explanation, a tensor or an array of real numbers, not of complex64."),
        (lambda maps: maps.numpy() + 1j, "maps must be an Explanation, a tensor or an array of real numbers, not of complex64."),
        (lambda maps: "abc", "maps must be an Explanation, a tensor or an array, not str."),
        (lambda maps: [[1.0], [1.0, 2.0]], "maps must be an Explanation, a tensor or an array of real numbers, not list."),
        (lambda maps: 3, "maps of shape () do not fit images of shape"),
    ],
)
def test_maps_that_are_none(conv, photos, maps, wrong, sentence):
    assert said(conv, photos, wrong(maps)).startswith(sentence)


@pytest.mark.parametrize("chunk", [0, -3])
def test_a_chunk_that_is_none(conv, photos, maps, chunk):
    assert said(conv, photos, maps, "deletion", chunk=chunk) == f"chunk must be a whole number of at least 1, not {chunk!r}."


def test_masks_of_any_kind_of_number(conv, photos, maps):
    masks = torch.zeros(len(photos), *photos.shape[-2:], dtype=torch.bool)
    masks[:, 1:4, 2:5] = True
    wanted = measured(conv, photos, maps, "relevance_mass_accuracy", masks=masks)
    for same in (masks.numpy(), list(masks.float() * 0.5), masks.numpy().astype(np.uint16) * 700, masks.flip(1).numpy()[:, ::-1]):
        assert (measured(conv, photos, maps, "relevance_mass_accuracy", masks=same) == wanted).all()


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (lambda masks: torch.where(torch.arange(len(masks))[:, None, None] == 1, torch.nan, masks), "The mask of image 2 holds NaN: give 0 off the object and another number on it."),
        (lambda masks: masks + 1j, "The mask of image 1 must be a tensor or an array of real numbers, not of complex64."),
        (lambda masks: ["a"] * len(masks), "The mask of image 1 must be a tensor or an array, not str."),
        (lambda masks: [[["a"]]] * len(masks), "The mask of image 1 must be a tensor or an array of real numbers, not of str32."),
        (lambda masks: 3, "masks must be a list, a tensor or an array with one mask per image, not int."),
    ],
)
def test_masks_that_are_none(conv, photos, maps, wrong, sentence):
    masks = torch.ones(len(photos), *photos.shape[-2:])
    assert said(conv, photos, maps, "pointing_game", masks=wrong(masks)) == sentence


def test_maps_of_a_function_need_the_function_again(conv, photos):
    def mine(model, images, targets):
        return images

    e = sal.explain(mine, conv, photos)
    with pytest.raises(sal.InputError, match=r"^This metric makes new maps, but these are by mine, which is no method's name: give the explainer itself, explainer=mine\.$"):
        sal.measure("max_sensitivity:samples=2", conv, photos, None, e)
    assert torch.isfinite(sal.measure("max_sensitivity:samples=2", conv, photos, None, e, explainer=mine)).all()


def test_maps_in_the_place_of_targets(conv, photos):
    e = sal.explain("gradient", conv, photos)
    for maps in (e, e.maps):
        with pytest.raises(sal.InputError, match=r"^There is nothing to judge: give maps, which come after the targets \(None: their own\), or the explainer that makes them\.$"):
            sal.measure("gini", conv, photos, maps)
    with pytest.raises(sal.InputError, match=r"^There is nothing to judge: give maps, or the explainer"):
        sal.measure("gini", conv, photos, 1)


def test_maps_of_another_class_are_warned_of(conv, photos):
    """A map of one class was judged by another without a word."""
    e = sal.explain("gradient", conv, photos, targets=[1, 2])
    with pytest.warns(UserWarning, match=r"^The map of image 2 explains cat but is judged by ant: leave the targets out to judge it by its own\.$"):
        sal.measure("deletion:steps=2", conv, photos, [1, 0], e)
    sal.measure("deletion:steps=2", conv, photos, [1, 2], e)


def test_maps_of_other_pictures_are_warned_of(conv, photos):
    """A file of maps in another order gave numbers without a word."""
    e = sal.explain("gradient", conv, photos)
    with pytest.warns(UserWarning, match=r"^The map of image 1 was made of other pixels than it is judged on: another picture, order or preprocessing\?$"):
        sal.measure("deletion:steps=2", conv, photos.flip(0), None, e)
    sal.measure("deletion:steps=2", conv, photos[1:], None, e[1:])


@pytest.mark.parametrize(("returned", "what"), [(sal.Judgement(torch.zeros(3)), "values of shape (3,)"), (torch.zeros(2), "Tensor"), (0.5, "float")])
def test_a_metric_that_returns_no_number_of_each_image_is_refused(returned, what, conv, photos, maps, monkeypatch):
    monkeypatch.setattr(sal.Gini, "judge", lambda *_: returned)
    assert said(conv, photos, maps) == f"gini returned {what} for 2 image(s): a metric returns a Judgement of one number an image, shape (n,)."


def test_a_metric_that_makes_no_maps_searches_no_level_of_noise(conv, photos, monkeypatch):
    monkeypatch.setattr(conv, "weight_sigma", None)
    monkeypatch.setattr("salience.perturb.tune.smallest_crossing", lambda *_: pytest.fail("searched"))
    maps = sal.explain("gradient", conv, photos).maps
    assert torch.equal(sal.measure("gini", conv, photos, None, maps, explainer="noisegrad"), sal.measure("gini", conv, photos, None, maps))
