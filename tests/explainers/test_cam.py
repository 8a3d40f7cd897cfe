import copy

import pytest
import torch
import torch.nn.functional as F
from layered_nets import Functional, Plain, Residual, distance, model, pictures, seeded, vit

import salience as sal
from salience.explainers.cam import CAM
from salience.explainers.gradcam import GradCAM


def test_mean_of_the_map_and_bias_is_the_logit():
    net = seeded(Residual)
    network, x = model(net), pictures(2, 16, 20)
    maps = CAM()(network, x, targets=3).maps
    features = F.interpolate(maps, (8, 10), mode="bilinear", antialias=False)
    assert maps.shape == (2, 1, 16, 20)
    assert torch.allclose(features.mean((1, 2, 3)) + net.head.bias[3], network(x)[:, 3], atol=0.05)


def test_is_gradcam_times_the_number_of_places():
    """On such a network Grad-CAM is the class activation map divided by the positions."""
    net = seeded(Plain)
    for network in (model(net), model(Functional(net))):
        x = pictures()
        assert distance(CAM()(network, x, targets=1).maps, GradCAM(relu=False)(model(net), x, targets=1).maps * 20) < 1e-4


def test_relu_keeps_what_speaks_for_the_target():
    network, x = model(seeded(Plain)), pictures()
    assert CAM(relu=True)(network, x).maps.min() >= 0


def test_channels_may_come_last():
    """Swin was told that it does not end in global average pooling."""
    import timm

    net = seeded(lambda: timm.create_model("swin_tiny_patch4_window7_224", img_size=(64, 96), window_size=2, embed_dim=12, depths=(1, 1), num_heads=(1, 1), num_classes=4))
    network, x = model(net), pictures(2, 64, 96)
    maps = CAM()(network, x, targets=1).maps
    assert maps.flatten(1).std(1).min() > 0
    assert distance(maps, GradCAM(relu=False)(network, x, targets=1).maps * 8 * 12) < 1e-4


class TwoLayers(Plain):
    def forward(self, x):
        return torch.tanh(super().forward(x))


@pytest.mark.parametrize("net", [seeded(TwoLayers), vit()])
def test_other_networks_are_refused(net):
    network = model(net)
    with pytest.raises(sal.InputError, match=rf"{network.name} does not end in global average pooling and one linear layer, so it has no class activation map: use gradcam\."):
        CAM()(network, pictures(1, 16, 24))


def test_a_network_in_bfloat16_ends_in_pooling_as_well():
    """Its rounding was taken for another network's end."""
    net, x = seeded(Plain), pictures()
    assert distance(CAM()(model(copy.deepcopy(net).bfloat16()), x, targets=1).maps, CAM()(model(net), x, targets=1).maps) < 0.05
