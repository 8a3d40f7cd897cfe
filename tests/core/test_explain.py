"""The call itself: targets, scores, seeds, bad input, what is recorded."""

import json

import numpy as np
import pytest
import torch
from torch import nn

import salience as sal


def test_targets_by_index_name_and_prediction(conv, photos):
    predicted = sal.explain("gradient", conv, photos).targets
    assert predicted.tolist() == sal.explain("gradient", conv, photos).record["images"]["prediction"]
    assert sal.explain("gradient", conv, photos, targets="Cat").targets.tolist() == [2, 2]
    assert sal.explain("gradient", conv, photos, targets=["3", "ant"]).targets.tolist() == [3, 0]
    assert sal.explain("gradient", conv, photos, targets=torch.tensor([4, 1])).targets.tolist() == [4, 1]
    separate = torch.cat([sal.explain("gradient", conv, photos[i : i + 1], targets=t).maps for i, t in ((0, 3), (1, 0))])
    assert torch.allclose(sal.explain("gradient", conv, photos, targets=[3, 0]).maps, separate, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"targets": 5}, r"Target 5 is out of range: conv has classes 0 to 4\."),
        ({"targets": -1}, r"Target -1 is out of range: conv has classes 0 to 4\."),
        ({"targets": "bat"}, r"Unknown class 'bat': did you mean cat, ant\?"),
        ({"targets": [1, 2, 3]}, r"3 targets were given for 2 images: give one, or one per image\."),
        ({"score": "logits"}, r"Unknown score 'logits': did you mean logit\?"),
        ({"seed": [1]}, r"1 seeds were given for 2 images: give one int, or one int per image\."),
        ({"chunk": 0}, r"chunk must be a whole number of at least 1, not 0\."),
        ({"tolerance": 0.0}, r"tolerance must be a number above 0, not 0\.0\."),
        ({"images": torch.rand(2, 3, 4, 4) * 255}, r"images must lie in \[0, 1\]: divide those in 0 to 255 by 255, give others before normalisation \(the model normalises\), without NaN\."),
        ({"images": torch.full((1, 3, 4, 4), float("nan"))}, r"images must lie in \[0, 1\]: divide those in 0 to 255 by 255, give others before normalisation \(the model normalises\), without NaN\."),
        ({"images": torch.zeros(0, 3, 4, 4)}, r"There are no images: give at least one\."),
        ({"images": torch.rand(3, 4, 4)}, r"images must be a float tensor \(n, c, h, w\) with values in \[0, 1\], not torch\.float32 of shape \(3, 4, 4\): give a single image as image\[None\]\."),
        ({"images": torch.zeros(2, 3, 4, 4, dtype=torch.uint8)}, r"images must be a float tensor .*, not torch\.uint8 of shape \(2, 3, 4, 4\): divide whole numbers by 255, images\.float\(\) / 255\."),
        ({"images": [torch.rand(3, 4, 4)] * 2}, r"images must be a float tensor .*, not list: put several into one tensor, torch\.stack\(images\)\."),
        ({"images": np.zeros((2, 3, 5, 7))}, r"images must be a float tensor .*, not ndarray: make one with torch\.from_numpy\."),
        ({"images": np.zeros((2, 5, 7, 3))}, r"images must be a float tensor .*, not ndarray: use sal\.load_images\(list\(arrays\), model\)\."),
        ({"images": np.zeros((5, 7, 3), np.uint8)}, r"images must be a float tensor .*, not ndarray: use sal\.load_images\(array, model\)\."),
        ({"targets": torch.zeros(2, 4, 4, dtype=torch.bool)}, r"targets are one class an image, not an array of shape \(2, 4, 4\): maps and masks have places of their own \(maps=, masks=\)\."),
        ({"targets": 0.5}, r"A target is the index or the name of a class, not 0\.5\."),
        ({"images": "cat.jpg"}, r"images must be a float tensor \(n, c, h, w\) with values in \[0, 1\], not str: use sal\.load_images\(paths, model\)\."),
        ({"images": torch.rand(1, 1, 4, 4)}, r"conv takes images \(n, 3, h, w\), not \(1, 1, 4, 4\): repeat the grey one, images\.expand\(-1, 3, -1, -1\)\."),
        ({"images": torch.rand(1, 4, 5, 3)}, r"conv takes images \(n, 3, h, w\), not \(1, 4, 5, 3\): put the channels first, images\.permute\(0, 3, 1, 2\)\."),
        ({"images": torch.rand(1, 4, 5, 7)}, r"conv takes images \(n, 3, h, w\), not \(1, 4, 5, 7\): let sal\.load_images\(paths, model\) make them\."),
        ({"method": "smoothgard"}, r"Unknown method 'smoothgard': did you mean smoothgrad, .*\?"),
        ({"method": "smoothgrad:sample=3"}, r"Unknown option of smoothgrad: 'sample': did you mean samples\?"),
        ({"method": "smoothgrad:samples=0"}, r"smoothgrad: samples must be at least 1, not 0\."),
        ({"method": "smoothgrad:samples=2.5"}, r"smoothgrad: samples must be a whole number, not '2\.5'\."),
        ({"method": "smoothgrad:absolute=maybe"}, r"smoothgrad: absolute must be true or false, not 'maybe'\."),
        ({"method": "smoothgrad:samples"}, r"'smoothgrad:samples': options are written key=value, not 'samples'\."),
        ({"method": "smoothgrad:base=(gradient"}, r"Brackets do not match in 'base=\(gradient'\."),
        (
            {"method": "fusiongrad:samples=3,base=integrated_gradients:steps=4,samples=5"},
            r"'fusiongrad:samples=3,base=integrated_gradients:steps=4,samples=5': samples is given twice; options of a base stand in brackets, base=\(NAME:key=value\)\.",
        ),
        ({"method": "gradient:samples=3"}, r"gradient has no options, so 'samples' cannot be set\."),
        ({"method": "smoothgrad:noise_level=0.1,sigma=0.1"}, r"smoothgrad: give noise_level \(relative to the image's range\) or sigma \(absolute, in \[0, 1\] units\), not both\."),
        ({"method": "integrated_gradients:baseline=pink"}, r"Unknown value for integrated_gradients: baseline: 'pink': .*"),
        ({"method": "noisegrad:weight_sigma=lots"}, r"noisegrad: weight_sigma must be a number, not 'lots'\."),
        ({"method": "noisegrad:weight_sigma=nan"}, r"noisegrad: weight_sigma is not a number; give one\."),
        ({"method": "noisegrad:weight_sigma=inf"}, r"noisegrad: weight_sigma must be finite, not inf\."),
        ({"method": 7}, r"A method is a name such as 'gradient', an explainer, or a function fn\(model, images, targets\) -> maps, not int\."),
        ({"model": "net"}, r"The model must be a sal\.Model or sal\.BlackBox, not str: wrap a network as sal\.Model\(module\) and a function as sal\.BlackBox\(fn\)\."),
        (
            {"method": lambda model, images, targets: images[:1]},
            r"<lambda> returned shape \(1, 3, 5, 7\) for images \(2, 3, 5, 7\): it must return one map per image, of the image's height and width\.",
        ),
        ({"method": lambda model, images, targets: None}, r"<lambda> returned NoneType: it must return one map per image, a tensor or an array\."),
    ],
)
def test_bad_input_gets_one_sentence(conv, photos, options, message):
    arguments = {"method": "gradient", "model": conv, "images": photos} | options
    with pytest.raises(sal.InputError, match=rf"^{message}$"):
        sal.explain(**arguments)


def test_nested_specifications():
    text = "noisegrad:base=(smoothgrad:base=(integrated_gradients:steps=4),samples=3),weight_samples=2"
    method = sal.Explainer.from_value(text)
    assert str(method) == text
    assert method.base.base == sal.IntegratedGradients(steps=4)
    assert repr(sal.SmoothGrad()) == "smoothgrad"
    assert sal.SmoothGrad(base="input_x_gradient") == sal.SmoothGrad(base=sal.InputXGradient())


def test_blanks_in_a_specification_mean_nothing(conv, photos):
    """The first call took the name, and what looked it up again did not."""
    e = sal.explain(" smoothgrad : samples = 3 ", conv, photos, targets=0)
    assert e.method == "smoothgrad:samples=3"
    assert sal.Explainer.from_value("smoothgrad : samples=3") == sal.SmoothGrad(samples=3)


def test_pictures_that_are_changed_later_stay_as_they_were(conv, photos):
    given = photos.clone()
    e = sal.explain("gradient", conv, given, targets=0)
    given.zero_()
    assert torch.equal(e.images, photos)


def test_a_function_is_a_method_and_a_base(conv, photos):
    def doubled(model, images, targets):
        return 2 * model.gradient(images, targets)

    plain = sal.explain("gradient", conv, photos, targets=0).maps
    assert torch.allclose(sal.explain(doubled, conv, photos, targets=0).maps, 2 * plain)
    e = sal.explain(sal.SmoothGrad(base=doubled, samples=3), conv, photos, targets=0)
    assert torch.allclose(e.maps, 2 * sal.explain("smoothgrad:samples=3", conv, photos, targets=0).maps, atol=1e-5)
    assert e.method == "smoothgrad:base=doubled,samples=3"


def test_seed_per_image(conv, photos):
    method = sal.SmoothGrad(samples=3)
    e = method(conv, photos, targets=1, seed=[8, 9])
    assert torch.allclose(e.maps[1:], method(conv, photos[1:], targets=1, seed=9).maps, atol=1e-6)
    same = photos[:1].expand(2, -1, -1, -1)
    shared, own = method(conv, same, targets=1, seed=8).maps, method(conv, same, targets=1, seed=[8, 9]).maps
    assert torch.allclose(shared[0], shared[1], atol=1e-6)
    assert not torch.allclose(own[0], own[1], atol=1e-3)


def test_weight_draws_can_be_shared_by_images_with_seeds_of_their_own(conv, photos):
    same = photos[:1].expand(2, -1, -1, -1)
    method = sal.NoiseGrad(weight_samples=2, weight_sigma=0.05)
    shared = method(conv, same, targets=1, seed=[(8, 3), (9, 3)]).maps
    assert torch.allclose(shared[0], shared[1], atol=1e-6)
    own = method(conv, same, targets=1, seed=[8, 9]).maps
    assert not torch.allclose(own[0], own[1], atol=1e-3)
    assert torch.allclose(own[1:], method(conv, same[1:], targets=1, seed=9).maps, atol=1e-5)


def test_record_is_json_and_complete(conv, photos):
    e = sal.explain("noisegrad:weight_samples=2,weight_sigma=0.01", conv, photos, seed=[4, 5])
    record = json.loads(json.dumps(e.record, allow_nan=False))
    assert record["model"]["name"] == "conv"
    assert len(record["model"]["weights"]) == 64
    assert record["options"]["weight_samples"] == "2"
    assert record["options"]["absolute"] == "false"
    assert record["images"]["seed"] == [[4, 4], [5, 5]]
    assert record["images"]["label"] == [conv.label(target) for target in e.targets.tolist()]
    assert set(record["images"]) == {"seed", "prediction", "pixels", "label", "score", "probability", "noisy_score", "class_kept", "weight_sigma"}
    assert {"salience", "torch", "python"} <= set(record["versions"])


def test_model_hash_follows_the_weights(conv, photos):
    first = sal.explain("gradient", conv, photos).record["model"]["weights"]
    conv.module.head.weight.data[0, 0] += 1
    assert sal.explain("gradient", conv, photos).record["model"]["weights"] != first


def test_probabilities_stay_probabilities(photos):
    box = sal.BlackBox(lambda x: torch.stack([x.mean((1, 2, 3)), 1 - x.mean((1, 2, 3))], 1), name="box")
    e = sal.explain(lambda model, images, targets: model.scores(images)[:, :1, None, None].expand(-1, 1, *images.shape[2:]), box, photos)
    assert e.score == "probability"
    assert torch.allclose(e.maps[:, 0, 0, 0], photos.mean((1, 2, 3)))
    with pytest.raises(
        sal.InputError,
        match=r"The score 'logit' needs a model that returns logits; this one returns probabilities: use score='probability', or make the model return logits and say outputs='logits'\.",
    ):
        sal.explain("gradient", box, photos, score="logit")


def test_custom_score(conv, photos):
    def margin(outputs, targets):
        return outputs.gather(1, targets[:, None])[:, 0] - outputs.mean(1)

    e = sal.explain("gradient", conv, photos, targets=2, score=margin)
    assert e.score == "margin"
    every = torch.stack([sal.explain("gradient", conv, photos, targets=k).maps for k in range(5)])
    assert torch.allclose(e.maps, every[2] - every.mean(0), atol=1e-5)


def test_progress_reaches_the_end(conv, photos):
    seen = []
    sal.explain("smoothgrad:samples=10", conv, photos, chunk=4, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (10, 10)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})


def test_exception_inside_leaves_the_model_as_it_was(conv, photos):
    conv.module.train()
    before = {key: value.clone() for key, value in conv.module.state_dict().items()}
    calls = []

    def breaks(model, images, targets):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return model.gradient(images, targets)

    with pytest.raises(KeyboardInterrupt):
        sal.explain(sal.NoiseGrad(base=breaks, weight_sigma=0.3), conv, photos)
    assert conv.module.training
    assert all(torch.equal(value, before[key]) for key, value in conv.module.state_dict().items())


def test_numpy_integers_are_seeds_and_targets(conv, photos):
    e = sal.explain("smoothgrad:samples=2", conv, photos, targets=list(np.array([1, 2])), seed=np.int64(3))
    assert torch.equal(e.maps, sal.explain("smoothgrad:samples=2", conv, photos, targets=[1, 2], seed=3).maps)


def test_another_class_without_a_forward_pass(photos):
    """The record of the other class is its own, not that of the first."""
    passes = []

    def fn(x):
        passes.append(len(x))
        return torch.stack([x[:, 0].mean((1, 2)), 1 - x[:, 0].mean((1, 2))], 1)

    box = sal.BlackBox(fn, name="box")
    for method in ("rise:samples=30", "occlusion", "lime:samples=30"):
        e = sal.explain(method, box, photos, targets=0)
        before = len(passes)
        other = e.for_target(1)
        assert len(passes) == before, method
        direct = sal.explain(method, box, photos, targets=1)
        assert torch.allclose(other.maps, direct.maps, atol=1e-6), method
        assert other.record["images"] == direct.record["images"]
        assert other.targets.tolist() == [1, 1]


def test_probabilities_taken_for_logits_are_warned_of(conv, photos):
    """Another softmax would flatten them."""
    softened = nn.Sequential(conv.module, nn.Softmax(1))
    with pytest.warns(UserWarning, match=r"^The outputs of Sequential are positive and add up to 1, as probabilities do: if it ends in a softmax, make the model with outputs='probabilities'\.$"):
        sal.explain("gradient", sal.Model(softened), photos)
    sal.explain("gradient", sal.Model(softened, outputs="probabilities"), photos)  # warnings are errors


def test_targets_as_tensors_of_one_number(conv, photos):
    assert sal.explain("gradient", conv, photos, targets=[torch.tensor(1), torch.tensor(2)]).targets.tolist() == [1, 2]


@pytest.mark.parametrize("shape", [(1, 1, 5, 7), (2, 1, 5, 5)])
def test_a_method_that_returns_no_map_of_each_image_is_refused(shape, conv, monkeypatch):
    monkeypatch.setattr(sal.Gradient, "attribute", lambda *_: sal.Attribution(torch.zeros(shape)))
    with pytest.raises(sal.InputError) as caught:
        sal.explain("gradient", conv, torch.rand(2, 3, 5, 7))
    assert str(caught.value) == f"gradient returned maps of shape {shape} for images (2, 3, 5, 7): a method returns one map an image, (n, c, h, w) or (n, 1, h, w)."
