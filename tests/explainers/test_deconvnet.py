import pytest
import torch
from layered_nets import Functional, Plain, distance, model, pictures, seeded, vit
from torch import nn

import salience as sal
from salience.explainers.deconvnet import DeconvNet


def test_equals_captum_where_captum_is_right():
    captum = pytest.importorskip("captum.attr")
    plain, x = model(seeded(Plain)), pictures()
    with pytest.warns(UserWarning, match="backward hooks"):
        theirs = captum.Deconvolution(plain).attribute(x.clone().requires_grad_(True), target=2).detach()
    assert distance(DeconvNet()(plain, x, targets=2).maps, theirs) < 1e-5
    assert distance(DeconvNet()(model(Functional(plain.module)), x, targets=2).maps, theirs) < 1e-5


class OneUnit(nn.Module):
    """f = ReLU(3 (x1 - 1)) - ReLU(2 x2)."""

    def forward(self, x):
        flat = x.flatten(1)
        value = torch.relu(3 * (flat[:, :1] - 1)) - torch.relu(2 * flat[:, 1:2])
        return torch.cat([value, -value], 1)


def test_the_forward_sign_does_not_matter():
    x = torch.full((1, 3, 1, 1), 0.5)
    assert DeconvNet()(sal.Model(OneUnit()), x, targets=0).maps.flatten().tolist() == [3, 0, 0]
    assert DeconvNet()(sal.Model(OneUnit()), x, targets=1).maps.flatten().tolist() == [0, 2, 0]


def test_a_network_without_relu_is_refused():
    with pytest.raises(sal.InputError, match=r"visiontransformer has no ReLU or ReLU6, so deconvnet would be the plain gradient: choose another method\."):
        DeconvNet()(model(vit(), size=(16, 24)), pictures(1, 16, 24))
