import pytest
import torch
import torch.nn.functional as F
from layered_nets import Plain, Residual, distance, model, pictures, seeded
from torch import nn

import salience as sal
from salience.explainers.contrastive_excitation_backprop import ContrastiveExcitationBackprop
from salience.explainers.excitation_backprop import ExcitationBackprop


def test_equals_the_definition():
    """At the pooled features: a w+ and a w- of the target, each with sum 1, subtracted; then down through the mean."""
    net = seeded(Plain)
    network, x = model(net), pictures()
    features = F.relu(net.conv3(net.mean(net.relu2(net.conv2(net.pool(net.relu1(net.conv1(network.normalise(x)))))))))
    pooled, weight = features.mean((2, 3)), net.head.weight[1]
    own, opposite = pooled * weight.clamp(min=0), pooled * (-weight).clamp(min=0)
    contrast = own / own.sum(1, keepdim=True) - opposite / opposite.sum(1, keepdim=True)
    down = (contrast[:, :, None, None] * features / features.sum((2, 3), keepdim=True).clamp(min=1e-30)).sum(1, keepdim=True)
    maps = ContrastiveExcitationBackprop(layer="relu3")(network, x, targets=1).maps
    assert distance(maps, F.interpolate(down.detach().clamp(min=0), x.shape[-2:], mode="bilinear")) < 1e-4


def test_a_convolution_to_the_classes_is_a_linear_layer():
    """Convolution 1 x 1 then mean is mean then linear: the same map either way."""
    net = seeded(lambda: Plain(bias=False))
    x = pictures()
    ours = ContrastiveExcitationBackprop(layer="plain.relu3")(model(ConvolutionHead(net)), x, targets=1).maps
    assert distance(ours, ContrastiveExcitationBackprop(layer="relu3")(model(net), x, targets=1).maps) < 1e-4


class ConvolutionHead(nn.Module):
    def __init__(self, plain: Plain):
        super().__init__()
        self.plain, self.head = plain, nn.Conv2d(8, 4, 1, bias=False)
        self.head.weight.data.copy_(plain.head.weight[:, :, None, None])

    def forward(self, x):
        net = self.plain
        x = net.relu3(net.conv3(net.mean(net.relu2(net.conv2(net.pool(net.relu1(net.conv1(x))))))))
        return self.head(x).mean((2, 3))


def test_a_named_contrast_layer_is_the_found_one():
    network, x = model(seeded(Plain)), pictures()
    found = ContrastiveExcitationBackprop(layer="relu2")(network, x, targets=1).maps
    assert distance(ContrastiveExcitationBackprop(layer="relu2", contrast="average")(network, x, targets=1).maps, found) < 1e-5


def test_the_opposite_classes_get_opposite_maps():
    """Where class 1 has the weights of class 0 negated, their differences are each other's negative."""
    net = seeded(Plain)
    net.head.weight.data[1] = -net.head.weight.data[0]
    network, x = model(net), pictures()
    first, second = (ContrastiveExcitationBackprop(layer="relu3")(network, x, targets=target).maps for target in (0, 1))
    assert first.sum() > 0
    assert second.sum() > 0
    assert (first[..., 2::4, 2::4] * second[..., 2::4, 2::4]).sum() < 0.05 * (first.norm() * second.norm())


def test_it_tells_classes_apart_where_the_plain_form_does_not():
    network, x = model(seeded(Residual)), pictures(4)

    def overlap(method):
        maps = [method(network, x, targets=target).maps.flatten(1) for target in (0, 1)]
        return torch.cosine_similarity(*maps).mean()

    assert overlap(ContrastiveExcitationBackprop()) < overlap(ExcitationBackprop())


def test_wrong_layers_are_refused():
    network, x = model(seeded(Plain)), pictures()
    with pytest.raises(sal.InputError, match=r"Unknown layer 'avg': did you mean"):
        ContrastiveExcitationBackprop(contrast="avg")(network, x)
    with pytest.raises(sal.InputError, match=r"do not depend on its layer 'relu3', or it lies above the contrast layer: name another layer\."):
        ContrastiveExcitationBackprop(layer="relu3", contrast="relu2")(network, x)
