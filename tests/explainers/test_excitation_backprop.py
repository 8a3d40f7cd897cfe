import copy

import pytest
import torch
import torch.nn.functional as F
from layered_nets import Functional, Plain, Residual, distance, model, pictures, seeded, vit
from torch import nn

import salience as sal
from salience.explainers.excitation_backprop import ExcitationBackprop


def one_step(a, weights, probability):
    """One step of the definition: P_i = sum_j P_j a_i w+_ij / sum_i a_i w+_ij."""
    contributions = a[:, None] * weights.clamp(min=0)
    return (probability[..., None] * contributions / contributions.sum(2, keepdim=True)).sum(1)


def test_equals_the_definition():
    net = seeded(Plain)
    network, x = model(net), pictures()
    features = F.relu(net.conv3(net.mean(net.relu2(net.conv2(net.pool(net.relu1(net.conv1(network.normalise(x)))))))))
    channel = one_step(features.mean((2, 3)), net.head.weight[None].expand(2, -1, -1), torch.eye(4)[[1, 1]])
    right = (channel[:, :, None, None] * features / features.sum((2, 3), keepdim=True).clamp(min=1e-30)).sum(1, keepdim=True)
    maps = ExcitationBackprop(layer="relu3")(network, x, targets=1).maps
    assert distance(maps, F.interpolate(right.detach(), x.shape[-2:], mode="bilinear")) < 1e-4


def test_equals_zennits_composite():
    pytest.importorskip("zennit")
    from zennit.attribution import Gradient
    from zennit.composites import ExcitationBackprop as Theirs

    net = seeded(lambda: Plain(bias=False))
    network, x = model(net), pictures()
    kept = []
    handle = net.pool.register_forward_hook(lambda *call: kept.append(call[2]))
    with Gradient(model=net, composite=Theirs()) as attributor:
        outputs = attributor.model(network.normalise(x).requires_grad_(True))
        (theirs,) = torch.autograd.grad(outputs, kept[0], torch.eye(4)[[1, 1]])
    handle.remove()
    ours = ExcitationBackprop(layer="pool")(network, x, targets=1).maps
    assert distance(ours, F.interpolate(theirs.sum(1, keepdim=True), x.shape[-2:], mode="bilinear")) < 1e-3


@pytest.mark.parametrize("make", [Plain, Residual])
def test_probabilities_sum_to_one(make):
    net = seeded(make)
    x = pictures(2, 8, 12)
    network = model(net)
    layer = "conv1" if make is Residual else "relu1"  # the whole picture's resolution: nothing is enlarged
    maps = ExcitationBackprop(layer=layer)(network, x, targets=1).maps
    assert maps.min() >= 0
    assert torch.allclose(maps.sum((1, 2, 3)), torch.ones(2), atol=1e-3)


def test_what_comes_from_nothing_positive_is_lost():
    """The unit's value is its bias, or a negative activation times a negative weight: no input wins, as in the source, where the share of such units is zero."""
    conv, body = nn.Conv2d(3, 2, 1, bias=False), nn.Conv2d(2, 2, 1, groups=2)
    for weight, values in ((conv.weight, torch.tensor([[1.0, 0, 0], [-1.0, 0, 0]])), (body.weight, torch.tensor([[1.0], [-1.0]])), (body.bias, torch.tensor([0.0, 0.0]))):
        weight.data = values.view(weight.shape)
    head = nn.Linear(2, 2, bias=False)
    head.weight.data = torch.tensor([[1.0, 0], [1.0, 1.0]])
    network = sal.Model(nn.Sequential(conv, body, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head))
    maps = ExcitationBackprop(layer="0")(network, pictures(2, 4, 5), targets=[0, 1]).maps
    assert torch.allclose(maps.sum((1, 2, 3)), torch.tensor([1, 0.5]), atol=1e-4)


def test_a_network_of_functions_has_no_layers_to_find():
    with pytest.raises(sal.InputError, match=r"functional has no layer with a map of the image: choose a method that needs none, such as gradient or rise\."):
        ExcitationBackprop()(model(Functional(seeded(Plain))), pictures())


def test_the_default_layer():
    import torchvision

    from salience.explainers._excitation import COARSEST
    from salience.explainers._layers import find_layer

    resnet = model(seeded(lambda: torchvision.models.resnet50(num_classes=4)))
    assert find_layer(resnet, pictures(1, 224, 224), None, coarsest=COARSEST, below_top=True).name == "layer3"
    vgg = model(seeded(lambda: torchvision.models.vgg16(num_classes=4)))
    assert find_layer(vgg, pictures(1, 224, 224), None, coarsest=COARSEST, below_top=True).name == "features.23"
    squeezenet = model(seeded(lambda: torchvision.models.squeezenet1_0(num_classes=4)))
    assert find_layer(squeezenet, pictures(1, 227, 227), None, coarsest=COARSEST, below_top=True).grid == (13, 13)


def test_half_precision_models_are_explained_in_full():
    net, x = seeded(Residual), pictures()
    assert torch.equal(ExcitationBackprop()(model(net, precision="bfloat16"), x, targets=1).maps, ExcitationBackprop()(model(net), x, targets=1).maps)


def test_refused_by_name():
    with pytest.raises(sal.InputError, match=r"excitation_backprop has no rule for the operation 'layer_norm' in visiontransformer"):
        ExcitationBackprop()(model(vit(), size=(16, 24)), pictures(1, 16, 24))


def test_a_network_in_double_precision_has_the_same_map():
    """The smallest double, rounded to 0 on the way, made it NaN."""
    net, x = seeded(Plain), pictures()
    x[:, :, 8:] = 0  # places where nothing is active
    maps = ExcitationBackprop()(model(net), x, targets=1).maps
    assert distance(ExcitationBackprop()(model(copy.deepcopy(net).double()), x, targets=1).maps, maps) < 1e-4
