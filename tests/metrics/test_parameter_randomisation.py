"""Parameter randomisation, against a loop over copies of the network, and on methods that do not look at it."""

import copy

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

import salience as sal
from salience.core.draws import streams
from salience.core.errors import CollapseWarning, InputError
from salience.perturb.randomise import parts_of, randomised

NAMES = ["first", "norm", "second", "head"]
SHARE = {"first": 3 * 6 * 9 + 6, "norm": 12, "second": 6 * 8 * 9 + 8, "head": 45}


def random_copy(conv, names, seed):
    """A network of its own with the random parameters of some modules; the rest as trained."""
    other = copy.deepcopy(conv.module)
    stream = streams(seed, 1)[0].at("metric", "parameter_randomisation")
    with randomised([part for part in parts_of(sal.Model(other)) if part.name in names], stream):
        state = copy.deepcopy(other.state_dict())
    other.load_state_dict(state)
    return sal.Model(other, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))


def saliency(method, model, images, targets, seed, absolute=True):
    maps = sal.explain(method, model, images, targets, seed=seed).maps
    maps = maps[:, 0] if maps.shape[1] == 1 else maps.abs().sum(1)
    return maps.abs() if absolute else maps


@pytest.mark.parametrize(
    ("options", "stages"),
    [
        ("steps=none", [["head"], ["head", "second"], ["head", "second", "norm"], NAMES]),
        ("", [["head"], ["head", "second"], ["head", "second", "norm"], NAMES]),
        ("steps=2", [["head", "second"], NAMES]),
        ("from_input=true", [["first"], ["first", "norm"], ["first", "norm", "second"], NAMES]),
        ("independent=true", [["head"], ["second"], ["norm"], ["first"]]),
    ],
)
@pytest.mark.parametrize("method", ["gradient", "rise:samples=20,grid=3,estimator=original"])
def test_same_as_a_loop_over_copies(conv, photos, method, options, stages):
    found = sal.measure(f"parameter_randomisation:{options}".rstrip(":"), conv, photos, [2, 1], explainer=method, seed=3, details=True)
    clean = saliency(method, conv, photos, [2, 1], 3)
    expected = torch.tensor(
        [[spearmanr(a.flatten(), b.flatten()).statistic for a, b in zip(clean, saliency(method, random_copy(conv, names, 3), photos, [2, 1], 3), strict=True)] for names in stages]
    ).T
    curve = found.curves["similarity"]
    assert (curve.y[:, 0] == 1).all()
    assert torch.allclose(curve.y[:, 1:].double(), expected, atol=1e-3)
    assert torch.allclose(found.values.double(), expected.mean(1), atol=1e-3)  # the network itself, 1, is not in the mean
    if "independent" not in options:
        total = sum(SHARE.values())
        assert torch.allclose(curve.x, torch.tensor([0, *(sum(SHARE[name] for name in names) / total for names in stages)]))
    assert curve.x[-1] == 1


def test_signed_maps(conv, photos):
    method, options = "gradcam:relu=false", "steps=1,absolute="
    found = {each: sal.measure(f"parameter_randomisation:{options}{each}", conv, photos, [2, 1], explainer=method, seed=3) for each in ("true", "false")}
    for absolute in (True, False):
        a, b = (saliency(method, model, photos, [2, 1], 3, absolute) for model in (conv, random_copy(conv, NAMES, 3)))
        expected = [spearmanr(x.flatten(), y.flatten()).statistic for x, y in zip(a, b, strict=True)]
        assert np.allclose(found[str(absolute).lower()], expected, atol=1e-3)


def test_methods_that_do_not_look_at_the_network(conv, photos):
    """They keep their map; noise does not help them to pass."""
    for method in ("edges", "centre", "random"):
        found = sal.measure("parameter_randomisation", conv, photos, explainer=method, details=True)
        assert torch.allclose(found.values, torch.ones(2))
    assert found.curves["noise floor"].y.abs().max() < 0.6  # of random: other draws, another map


def test_a_constant_map(conv, photos):
    def vanishing(model, images, targets):
        return images[:, :1] * float(torch.equal(model.module.head.weight, trained))

    trained = conv.module.head.weight.clone()
    assert sal.measure("parameter_randomisation:absolute=false", conv, photos, 0, explainer=vanishing).tolist() == [0, 0]


def test_the_noise_floor(conv, photos):
    floors = {
        method: sal.measure("parameter_randomisation:steps=1", conv, photos, 2, explainer=method, details=True).curves["noise floor"] for method in ("gradient", "smoothgrad:samples=2,noise_level=0.5")
    }
    assert torch.allclose(floors["gradient"].y, torch.ones(2, 2))
    noisy = floors["smoothgrad:samples=2,noise_level=0.5"].y
    assert (noisy < 0.999).all()
    assert torch.equal(noisy[:, 0], noisy[:, 1])


def test_any_batch_any_chunk_any_seed(conv, photos):
    method = "smoothgrad:samples=2"
    whole = sal.measure("parameter_randomisation", conv, photos, [2, 1], explainer=method, seed=[3, 4])
    assert torch.allclose(whole, sal.measure("parameter_randomisation", conv, photos, [2, 1], explainer=method, seed=[3, 4], chunk=1), atol=1e-3)
    alone = [sal.measure("parameter_randomisation", conv, photos[i : i + 1], target, explainer=method, seed=3 + i) for i, target in enumerate((2, 1))]
    assert torch.allclose(whole, torch.cat(alone), atol=1e-3)
    shared = sal.measure("parameter_randomisation", conv, photos, [2, 1], explainer=method, seed=[(3, 3), (4, 3)])
    assert torch.allclose(shared[0], whole[0], atol=1e-3)  # the second image has the weights of the first
    assert not torch.allclose(shared[1], whole[1], atol=1e-2)


def test_weight_noise_comes_on_top(conv, photos):
    method = "noisegrad:weight_samples=2,weight_sigma=0.01"
    noisy, plain = (sal.measure("parameter_randomisation", conv, photos, [2, 1], explainer=each) for each in (method, "gradient"))
    assert torch.allclose(noisy, plain, atol=0.2)
    assert not torch.equal(noisy, plain)


def test_random_networks_that_lose_the_class_are_no_reason_to_warn(conv, photos):
    """Warnings are errors here; of the network itself one would be right."""
    predicted = sal.explain("gradient", conv, photos).targets
    sal.measure("parameter_randomisation:steps=2", conv, photos, predicted, explainer="noisegrad:weight_samples=3,weight_sigma=1e-6")
    with pytest.warns(CollapseWarning):
        sal.measure("parameter_randomisation:steps=2", conv, photos, predicted, explainer="noisegrad:weight_samples=3,weight_sigma=50")


def test_nothing_of_the_users_changes_also_after_an_exception(conv, photos):
    net = conv.module.train()
    net.head.bias.requires_grad_(False)
    before = {key: (value, value.data_ptr(), value.clone()) for key, value in [*net.named_parameters(), *net.named_buffers()]}
    calls = []

    def failing(model, images, targets):
        calls.append(torch.equal(model.module.first.weight, before["first.weight"][2]))
        if len(calls) == 6:
            raise KeyboardInterrupt
        return images

    with pytest.raises(KeyboardInterrupt):
        sal.measure("parameter_randomisation", conv, photos, 0, photos, explainer=failing)
    assert calls == [True] * 5 + [False]
    sal.measure("parameter_randomisation", conv, photos, 0, explainer="gradient")
    now = dict([*net.named_parameters(), *net.named_buffers()])
    assert all(now[key] is old and now[key].data_ptr() == place and torch.equal(now[key], value) for key, (old, place, value) in before.items())
    assert [parameter.requires_grad for parameter in net.parameters()].count(False) == 1
    assert all(module.training for module in net.modules())


def test_messages(conv, photos):
    box = sal.BlackBox(lambda x: torch.ones(len(x), 2) / 2, name="box")
    with pytest.raises(InputError, match=r"^box is a black box, so its parameters cannot be randomised: give the network itself as sal.Model\(module\).$"):
        sal.measure("parameter_randomisation", box, photos, 0, photos, explainer="edges")
    with pytest.raises(InputError, match=r"^parameter_randomisation makes new maps: give the explainer, for example explainer='gradient'.$"):
        sal.measure("parameter_randomisation", conv, photos, 0, photos)
    with pytest.raises(InputError, match="not mse"):
        sal.Metric.from_value("parameter_randomisation:similarity=mse")


def test_a_transformer(vit):
    found = sal.measure("parameter_randomisation:steps=none", vit, torch.rand(1, 3, 16, 24), explainer="gradient", details=True)
    assert found.curves["similarity"].y.shape[1] == len(parts_of(vit)) + 1
    assert parts_of(vit)[0].name == ""
    assert set(parts_of(vit)[0].parameters) == {"cls_token", "pos_embed"}
    assert isinstance(vit.module, nn.Module)


def test_maps_that_are_constant(conv, photos):
    """A constant map that stays constant has not changed, as that of a method which ignores the network."""
    assert sal.measure("parameter_randomisation:steps=2", conv, photos, 0, explainer=lambda model, images, targets: 0 * images).tolist() == [1, 1]
