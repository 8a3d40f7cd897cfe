"""Random parameters: every one of them, each with its own numbers, and everything put back."""

import math

import pytest
import torch
from torch import nn

import salience as sal
from salience.core.draws import streams
from salience.core.errors import InputError
from salience.perturb.randomise import parts_of, randomised

(STREAM,) = streams(0, 1)


def resnet():
    import timm

    return timm.models.ResNet(timm.models.resnet.BasicBlock, (2, 2, 1, 1), num_classes=5, channels=(8, 8, 16, 16)), (32, 32)


def convnext():
    import timm

    return timm.models.ConvNeXt(depths=(1, 1, 1, 1), dims=(8, 8, 16, 16), num_classes=5, ls_init_value=1e-6), (32, 32)


def timm_vit():
    import timm

    return timm.models.VisionTransformer(img_size=16, patch_size=8, embed_dim=16, depth=2, num_heads=2, num_classes=5, init_values=1e-5), (16, 16)


def torchvision_vit():
    from torchvision.models import VisionTransformer

    return VisionTransformer(image_size=16, patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=16, num_classes=5), (16, 16)


def snapshot(net):
    """The tensors themselves and copies of their values."""
    return {key: (value, value.data_ptr(), value.clone()) for key, value in [*net.named_parameters(), *net.named_buffers()]}


def same(net, before):
    now = dict([*net.named_parameters(), *net.named_buffers()])
    return now.keys() == before.keys() and all(now[key] is old and now[key].data_ptr() == place and torch.equal(now[key], value) for key, (old, place, value) in before.items())


@pytest.mark.parametrize("make", [resnet, convnext, timm_vit, torchvision_vit])
def test_every_parameter_changes(make):
    """Shortcut convolutions, class and position tokens, in_proj, layer-scale gamma: those that other libraries leave as trained."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net, size = make()
        for parameter in net.parameters():
            nn.init.normal_(parameter, 0.1, 0.3)
    model, before = sal.Model(net.eval()), snapshot(net)
    image = torch.rand(1, 3, *size)
    with torch.no_grad(), randomised(parts_of(model), STREAM):
        left = [key for key, parameter in net.named_parameters() if (parameter == before[key][2]).any()]
        assert torch.isfinite(model(image)).all()
        assert all(torch.isfinite(parameter).all() and parameter.requires_grad for parameter in net.parameters())
        drawn = {key: parameter.flatten() for key, parameter in net.named_parameters() if parameter.flatten().unique().numel() > 1}
        repeated = [(a, b) for a, first in drawn.items() for b, second in drawn.items() if a < b and first.shape == second.shape and torch.equal(first, second)]
    assert left == []
    assert repeated == []  # layers of the same shape differ
    assert same(net, before)


def test_ranges_and_normalisation():
    net = nn.ModuleDict(
        {
            "wide": nn.Conv2d(4, 40, 5),
            "depthwise": nn.Conv2d(300, 300, 3, groups=300),
            "linear": nn.Linear(60, 30),
            "norm": nn.BatchNorm2d(7),
            "layer": nn.LayerNorm(9),
        }
    )
    for parameter in net["norm"].parameters():
        nn.init.normal_(parameter)
    nn.init.uniform_(net["norm"].running_var, 2, 3)
    nn.init.uniform_(net["norm"].running_mean, 2, 3)
    model = sal.Model(net)
    with randomised(parts_of(model), STREAM):
        for name, bound in {"wide.weight": math.sqrt(6 / (44 * 25)), "depthwise.weight": math.sqrt(6 / 18), "linear.weight": math.sqrt(6 / 90), "linear.bias": math.sqrt(6 / 31)}.items():
            values = net.get_parameter(name).detach()
            assert bound * 0.85 < values.abs().max() <= bound
            assert values.std() == pytest.approx(bound / math.sqrt(3), rel=0.3 if values.ndim == 1 else 0.05)
        assert net["wide"].weight.abs().max() <= nn.init.xavier_uniform_(torch.empty(40, 4, 5, 5)).abs().max() * 1.01
        for norm in (net["norm"], net["layer"]):
            assert (norm.weight == 1).all()
            assert (norm.bias == 0).all()
        assert (net["norm"].running_mean == 0).all()
        assert (net["norm"].running_var == 1).all()


def test_numbers_depend_on_seed_and_name_only():
    def numbers(net, stream):
        with randomised(parts_of(sal.Model(net)), stream):
            return net[-1].weight.clone()

    one, other = nn.Sequential(nn.Identity(), nn.Linear(3, 4)), nn.Sequential(nn.Conv2d(3, 3, 1), nn.Linear(3, 4))
    assert torch.equal(numbers(one, STREAM), numbers(other, STREAM))
    assert not torch.equal(numbers(one, STREAM), numbers(one, streams(1, 1)[0]))
    state = torch.get_rng_state()
    numbers(one, STREAM)
    assert torch.equal(state, torch.get_rng_state())


def test_tied_weights_once_and_restored_after_an_exception():
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4), nn.Linear(4, 4))
    net[3].weight = net[0].weight
    net[2].weight.requires_grad_(False)
    model, before = sal.Model(net), snapshot(net)
    parts = parts_of(model)
    assert [(part.name, list(part.parameters)) for part in parts] == [("0", ["weight", "bias"]), ("1", ["weight", "bias"]), ("2", ["weight", "bias"]), ("3", ["bias"])]
    assert sum(part.size for part in parts) == sum(parameter.numel() for parameter in net.parameters())

    def interrupted():
        with randomised(parts, STREAM):
            assert net[3].weight is net[0].weight
            assert not torch.equal(net[0].weight, before["0.weight"][2])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert same(net, before)
    assert not net[2].weight.requires_grad


def test_restored_if_the_draws_fail(monkeypatch):
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    before = snapshot(net)
    real = type(STREAM).weight_generator
    monkeypatch.setattr(type(STREAM), "weight_generator", lambda self, *name: real(self, *name) if "0." in name[1] else 1 / 0)
    with pytest.raises(ZeroDivisionError), randomised(parts_of(sal.Model(net)), STREAM):
        pass
    assert same(net, before)


def test_what_cannot_be_randomised():
    with pytest.raises(InputError, match=r"^box is a black box, so its parameters cannot be randomised: give the network itself as sal.Model\(module\).$"):
        parts_of(sal.BlackBox(lambda x: x, name="box"))
    with pytest.raises(InputError, match=r"^Identity has no parameters, so there is nothing to randomise.$"):
        parts_of(sal.Model(nn.Identity()))


def test_the_slopes_of_a_prelu_are_drawn_as_any_other_weights():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.PReLU(4), nn.BatchNorm2d(4))
    parts = parts_of(sal.Model(net))
    with randomised(parts, STREAM):
        assert len(set(net[1].weight.tolist())) == 4
        assert net[1].weight.abs().max() <= (6 / 5) ** 0.5
        assert net[2].weight.tolist() == [1] * 4
    assert net[1].weight.tolist() == [0.25] * 4


def test_statistics_of_a_normalisation_without_parameters():
    """They stayed as trained."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    net[1].running_mean.fill_(1.5)
    model = sal.Model(net)
    with randomised(parts_of(model), streams(0, 1)[0]):
        assert net[1].running_mean.tolist() == [0.0] * 4
    assert net[1].running_mean.tolist() == [1.5] * 4
