"""Gradient methods against closed forms and against captum."""

import pytest
import torch
from quadratic import quadratic
from torch import nn

import salience as sal


def test_captum_agrees_on_gradients(conv, photos):
    attr = pytest.importorskip("captum.attr")
    conv.module.eval()
    targets = torch.tensor([1, 3])
    inputs = photos.clone().requires_grad_(True)
    baseline = conv.mean_colour.view(1, 3, 1, 1).expand_as(photos)
    expected = {
        "gradient": attr.Saliency(conv).attribute(inputs, targets, abs=False),
        "input_x_gradient:baseline=black": attr.InputXGradient(conv).attribute(inputs, targets),
        "integrated_gradients:steps=20": attr.IntegratedGradients(conv).attribute(photos, baseline, targets, n_steps=20, method="gausslegendre"),
    }
    for method, values in expected.items():
        ours = sal.explain(method, conv, photos, targets=targets).maps
        assert torch.allclose(ours, values.detach().float(), rtol=1e-3, atol=1e-5), method


def test_captum_agrees_on_smoothgrad_with_the_same_noise(conv, photos):
    """Our draws, fed to captum's saliency one by one."""
    attr = pytest.importorskip("captum.attr")
    conv.module.eval()
    seen = []

    def spy(model, images, targets):
        seen.append(images.clone())
        return model.gradient(images, targets)

    ours = sal.SmoothGrad(base=spy, samples=6)(conv, photos[:1], targets=2).maps
    theirs = attr.Saliency(conv).attribute(torch.cat(seen).requires_grad_(True), 2, abs=False).mean(0, keepdim=True)
    assert torch.allclose(ours, theirs.detach(), rtol=1e-3, atol=1e-5)


def test_integrated_gradients_sum_to_the_difference():
    model = quadratic((3, 4, 5))
    image = torch.rand(1, 3, 4, 5)
    for fill, value in (("black", 0.0), ("white", 1.0), ("grey", 0.5)):
        e = sal.IntegratedGradients(steps=2, baseline=fill)(model, image, targets=0)
        difference = model(image)[0, 0] - model(torch.full_like(image, value))[0, 0]
        assert e.maps.sum().item() == pytest.approx(difference.item(), rel=1e-4)


@pytest.mark.parametrize("beta", [1.0, 10.0])
def test_beta_smoothing_is_the_gradient_of_the_softplus_net(beta):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    soft6 = lambda x: nn.functional.softplus(x, beta) - nn.functional.softplus(x - 6, beta)  # noqa: E731  # a one-word function
    image = torch.rand(1, 3, 7, 8)
    inputs = image.clone().requires_grad_(True)
    out = soft6(net[2](nn.functional.softplus(net[0](inputs), beta))).mean((2, 3))
    expected = torch.autograd.grad(out[0, 1], inputs)[0]
    e = sal.BetaSmoothing(beta=beta)(sal.Model(net), image, targets=1)
    assert torch.allclose(e.maps, expected, atol=1e-5)
    assert e.record["images"]["smoothed_score"] == pytest.approx([out[0, 1].item()], rel=1e-4)


def test_beta_smoothing_of_the_backward_pass_only(conv, photos):
    e = sal.BetaSmoothing(beta=2.0, forward="relu")(conv, photos, targets=1)
    assert e.record["images"]["smoothed_score"] == pytest.approx(e.record["images"]["score"], rel=1e-4)
    assert e.record["images"]["class_kept"] == [1, 1]
    both = sal.BetaSmoothing(beta=2.0)(conv, photos, targets=1)
    assert not torch.allclose(e.maps, both.maps, atol=1e-4)


def test_beta_smoothing_tends_to_the_gradient(conv, photos):
    plain = sal.explain("gradient", conv, photos, targets=1).maps
    distance = [(sal.BetaSmoothing(beta=beta)(conv, photos, targets=1).maps - plain).norm() / plain.norm() for beta in (1.0, 30.0, 1e6)]
    assert distance[0] > distance[1] > distance[2]
    assert distance[2] < 1e-3


def test_relative_beta_does_not_depend_on_the_scale_of_activations(photos):
    """Scaling one layer up and the next down leaves a ReLU net as it was; so must relative beta."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    before = {relative: sal.BetaSmoothing(relative=relative)(sal.Model(net), photos, targets=1).maps for relative in (True, False)}
    net[0].weight.data *= 50
    net[0].bias.data *= 50
    net[2].weight.data /= 50
    after = {relative: sal.BetaSmoothing(relative=relative)(sal.Model(net), photos, targets=1).maps for relative in (True, False)}
    assert torch.allclose(before[True], after[True], rtol=1e-3, atol=1e-6)
    assert not torch.allclose(before[False], after[False], rtol=1e-2, atol=1e-5)


def test_a_net_without_relu_is_refused(vit):
    with pytest.raises(sal.InputError, match=r"^vit has no ReLU or ReLU6, so beta_smoothing would be the plain gradient: choose another method\.$"):
        sal.explain("beta_smoothing", vit, torch.rand(1, 3, 16, 24))
