"""The quick gradient is the gradient."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import salience as sal
from salience.core.quick import quick_gradients


class Net(nn.Module):
    """Batch norm with and without affine part, ReLU6 in place in several spellings."""

    def __init__(self, affine: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3, padding=1)
        self.norm = nn.BatchNorm2d(5, affine=affine, eps=0.01)
        self.act = nn.ReLU6(inplace=True)
        self.last = nn.Conv2d(5, 4, 3)

    def forward(self, x):
        y = 5 * self.norm(self.conv(x))
        self.act(y)  # in place: the result is read from y
        return F.hardtanh(self.last(y), -0.5, 0.5, inplace=True).mean((2, 3))


def net(affine: bool) -> sal.Model:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = sal.Model(Net(affine))
        model.module.norm.running_mean.normal_()
        model.module.norm.running_var.uniform_(0.5, 2)
        if affine:
            nn.init.normal_(model.module.norm.weight)
            nn.init.normal_(model.module.norm.bias)
    model.module.eval()
    return model


@pytest.mark.parametrize("affine", [True, False])
def test_same_gradient_and_outputs(affine):
    model, images, targets = net(affine), torch.rand(3, 3, 6, 7), torch.tensor([0, 1, 3])
    inputs = images.clone().requires_grad_(True)
    outputs = model.module(inputs)
    (expected,) = torch.autograd.grad(outputs.gather(1, targets[:, None]).sum(), inputs)
    gradient, found = model.gradient_and_outputs(images, targets)
    assert torch.allclose(found, outputs, atol=1e-5)
    assert torch.allclose(gradient, expected, atol=1e-5)
    assert expected.abs().max() > 0


def test_training_mode_is_left_alone():
    model = net(True)
    model.module.train()
    x = torch.rand(4, 3, 6, 7, requires_grad=True)
    plain = model.module.norm(model.module.conv(x))
    with quick_gradients():
        quick = model.module.norm(model.module.conv(x))
    assert torch.allclose(plain, quick, atol=1e-5)


def test_second_derivatives():
    model, images = net(True), torch.rand(2, 3, 6, 7)
    found = []
    for context in (quick_gradients(), torch.enable_grad()):
        inputs = images.clone().requires_grad_(True)
        with context:
            outputs = model.module(inputs).square().sum()
        (gradient,) = torch.autograd.grad(outputs, inputs, create_graph=True)
        found.append(torch.autograd.grad(gradient.square().sum(), inputs)[0])
    assert torch.allclose(found[0], found[1], rtol=1e-3, atol=1e-5)


def test_replacements_of_relu_still_see_the_network():
    """Another mode outside must get the network's own calls."""
    model, images = net(True), torch.rand(1, 3, 6, 7)
    smooth = sal.BetaSmoothing(beta=1.0)(model, images, targets=1).maps
    plain = sal.Gradient()(model, images, targets=1).maps
    assert (smooth - plain).norm() / plain.norm() > 0.05


@pytest.mark.parametrize(("kernel", "stride", "padding", "size"), [(3, 1, 1, (8, 9)), (3, 2, 0, (9, 11)), (5, 2, 2, (10, 7)), (5, (2, 1), (0, 2), (11, 8)), (3, 3, 1, (9, 8)), (1, 1, 0, (4, 4))])
def test_depthwise_gradient_in_bfloat16(kernel, stride, padding, size):
    """Whole-number weights and gradients are exact in bfloat16, so the flipped kernel must give the very same numbers."""
    draw = torch.Generator().manual_seed(0)
    weight = torch.randint(-2, 3, (4, 1, kernel, kernel), generator=draw).float()
    x = torch.randint(-2, 3, (2, 4, *size), generator=draw).float()
    found = []
    for context in (quick_gradients(), torch.enable_grad()):
        inputs = x.clone().requires_grad_(True)
        with context, torch.autocast("cpu", torch.bfloat16):
            outputs = F.conv2d(inputs, weight, None, stride, padding, 1, 4)
        upstream = torch.randint(-2, 3, outputs.shape, generator=torch.Generator().manual_seed(1)).to(outputs)
        found.append((outputs, torch.autograd.grad(outputs, inputs, upstream)[0]))
    assert "Depthwise" in type(found[0][0].grad_fn).__name__
    assert all(torch.equal(quick, plain) for quick, plain in zip(*found, strict=True))


def test_bfloat16_batch_norm_has_the_same_outputs_and_gradient():
    model, images, targets = net(True), torch.rand(3, 3, 6, 7), torch.tensor([0, 1, 3])
    model.precision = "bfloat16"
    gradient, outputs = model.gradient_and_outputs(images, targets)
    inputs = images.clone().requires_grad_(True)
    with torch.autocast("cpu", torch.bfloat16):
        plain = model.module(inputs).float()
    (expected,) = torch.autograd.grad(plain.gather(1, targets[:, None]).sum(), inputs)
    assert torch.allclose(outputs, plain, atol=0.02)
    assert (gradient - expected).norm() < 0.02 * expected.norm()
