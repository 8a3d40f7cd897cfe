"""Every way to write a ReLU is seen, and nothing else is."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from salience.core.quick import inside_network
from salience.perturb.relu import ReplaceReLU, softplus

X = torch.linspace(-9, 9, 19)

RELUS = {
    "module": nn.ReLU(),
    "in place": nn.ReLU(inplace=True),
    "F.relu": F.relu,
    "F.relu inplace": lambda x: F.relu(x, inplace=True),
    "torch.relu": torch.relu,
    "method": lambda x: x.relu(),
    "method_": lambda x: x.relu_(),
    "clamp": lambda x: x.clamp(min=0),
    "clamp positional": lambda x: torch.clamp(x, 0),
    "clamp_min": lambda x: x.clamp_min(0),
    "clip": lambda x: torch.clip(x, 0.0),
    "threshold": nn.Threshold(0.0, 0.0),
    "threshold in place": nn.Threshold(0, 0, inplace=True),
    "F.threshold words": lambda x: F.threshold(x, threshold=0, value=0),
    "F.threshold_": lambda x: F.threshold_(x, 0, 0),
    "torch.threshold": lambda x: torch.threshold(x, 0, 0),
    "hardtanh without a ceiling": lambda x: F.hardtanh(x, 0.0, float("inf")),
    "clamp without a ceiling": lambda x: x.clamp_(0, float("inf")),
    "clamp number in a tensor": lambda x: torch.clamp(x, min=torch.tensor(0.0)),
    "clamp_min number in a tensor": lambda x: x.clamp_min(torch.tensor(0.0)),
    "leaky_relu": lambda x: F.leaky_relu(x, 0.0),
    "leaky_relu in place": nn.LeakyReLU(0, inplace=True),
    "aten": torch.ops.aten.relu,
    "aten words": lambda x: torch.ops.aten.relu.default(self=x),
    "aten in place": torch.ops.aten.relu_,
    "aten clamp_min": lambda x: torch.ops.aten.clamp_min.default(x, 0),
    "aten hardtanh": lambda x: torch.ops.aten.hardtanh_(x, 0, float("inf")),
}
RELU6S = {
    "module": nn.ReLU6(),
    "in place": nn.ReLU6(inplace=True),
    "F.relu6": F.relu6,
    "hardtanh": lambda x: F.hardtanh(x, 0.0, 6.0),
    "clamp": lambda x: x.clamp(0, 6),
    "clamp words": lambda x: torch.clamp(x, min=0, max=6),
    "clamp tensors": lambda x: torch.clamp(x, torch.tensor(0.0), torch.tensor(6.0)),
    "aten": torch.ops.aten.relu6,
    "aten clamp": lambda x: torch.ops.aten.clamp(x, max=6, min=0),
}
LEAKY = {
    "module": nn.LeakyReLU(),
    "aten": lambda x: torch.ops.aten.leaky_relu_.default(x, 0.2),
    "in place": nn.LeakyReLU(0.2, inplace=True),
    "F.leaky_relu": F.leaky_relu,
    "F.leaky_relu words": lambda x: F.leaky_relu(x, negative_slope=1.5),
    "F.leaky_relu in place": lambda x: F.leaky_relu(x, 0.3, True),
    "F.leaky_relu_": lambda x: F.leaky_relu_(x, 0.1),
    "PReLU": nn.PReLU(),
    "F.prelu": lambda x: F.prelu(x, weight=torch.tensor([0.3])),
    "torch.prelu": lambda x: torch.prelu(x, torch.tensor([-0.1])),
    "method": lambda x: x.prelu(torch.tensor([0.1])),
}
OTHERS = {
    "gelu": F.gelu,
    "hardtanh": F.hardtanh,
    "clamp(1)": lambda x: x.clamp(min=1),
    "clamp(max)": lambda x: x.clamp(max=0),
    "clamp(0, 1)": lambda x: x.clamp(0, 1),
    "aten leaky_relu": torch.ops.aten.leaky_relu,
    "aten clamp(1)": lambda x: torch.ops.aten.clamp(x, 1),
    "clamp(0, 8)": lambda x: x.clamp(0, 8),
    "clamp tensor": lambda x: torch.clamp(x, min=torch.zeros_like(x)),
    "threshold(1)": nn.Threshold(1.0, 0.0),
    "threshold to 1": nn.Threshold(0.0, 1.0),
    "leaky_relu": F.leaky_relu,
    "prelu": nn.PReLU(),
    "maximum": lambda x: torch.maximum(x, torch.ones(())),
}


@pytest.mark.parametrize(("functions", "ceiling"), [(RELUS, float("inf")), (RELU6S, 6.0)], ids=["relu", "relu6"])
def test_every_relu_is_replaced(functions, ceiling):
    for name, function in functions.items():
        seen = []

        def replacement(x, top, seen=seen):
            seen.append(top)
            return x + 1

        with inside_network(), ReplaceReLU(replacement) as mode:
            out = function(X.clone())
        assert seen == [ceiling], name
        assert mode.replaced == 1
        assert torch.equal(out, X + 1), name


@pytest.mark.parametrize("name", OTHERS)
def test_nothing_else_is_replaced(name):
    with inside_network(), ReplaceReLU(lambda x, top: x + 1) as mode:
        out = OTHERS[name](X.clone())
    assert mode.replaced == 0
    assert torch.equal(out, OTHERS[name](X.clone()))


def test_reused_modules_and_afterwards():
    relu = nn.ReLU()
    with inside_network(), ReplaceReLU(lambda x, top: x - 1) as mode:
        assert torch.equal(relu(relu(X.clone())), X - 2)
    assert mode.replaced == 2
    assert torch.equal(relu(X.clone()), X.clamp(min=0))


@pytest.mark.parametrize("function", [nn.ReLU(inplace=True), nn.ReLU6(inplace=True), F.relu_, torch.relu_, lambda x: F.relu(x, True), lambda x: x.clamp_(min=0)])
def test_in_place_calls_change_their_input(function):
    """A network may call an in-place ReLU and go on with the tensor it passed in."""

    def net(x):
        y = 2 * x
        function(y)
        return y

    x = X.clone().requires_grad_(True)
    with inside_network(), ReplaceReLU(lambda x, top: x.square()):
        out = net(x)
    assert torch.equal(out, (2 * X).square())
    assert torch.equal(torch.autograd.grad(out.sum(), x)[0], 8 * X)


@pytest.mark.parametrize("name", LEAKY)
def test_leaky_relus_are_replaced_where_that_is_asked_for(name):
    """By a line and a replaced ReLU; with a ReLU as the replacement nothing changes."""
    seen = []

    def relu(x, top):
        seen.append(top)
        return x.clamp(0, top)

    x, y = X.clone(), X.clone()
    with inside_network(), ReplaceReLU(relu, leaky=True) as mode:
        out = LEAKY[name](x)
    assert (seen, mode.replaced) == ([float("inf")], 1)
    assert torch.allclose(out, LEAKY[name](y), atol=1e-6)
    assert torch.allclose(x, y, atol=1e-6)  # in place or not
    with inside_network(), ReplaceReLU(lambda x, top: 0 * x, leaky=True):
        line = LEAKY[name](X.clone())
    assert torch.allclose(line[:9], LEAKY[name](X.clone())[:9], atol=1e-6)
    assert torch.allclose(line, -line.flip(0), atol=1e-6)


def test_every_channel_has_its_own_slope():
    prelu, x = nn.PReLU(3), torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        prelu.weight.copy_(torch.tensor([0.1, 0.5, -0.3]))
    with inside_network(), ReplaceReLU(lambda x, top: x.clamp_min(0), leaky=True):
        assert torch.allclose(prelu(x), F.prelu(x, prelu.weight), atol=1e-6)
    assert torch.allclose(prelu(x)[:, 1], F.leaky_relu(x[:, 1], 0.5))


@pytest.mark.parametrize("ceiling", [float("inf"), 6.0])
def test_softplus_and_its_derivatives(ceiling):
    """Values by torch's own, both derivatives by differences; the ceiling bends it back at 6."""
    x = torch.tensor([-3.0, -0.4, 0.0, 0.3, 2.0, 5.6, 6.0, 6.5, 9.0], dtype=torch.float64, requires_grad=True)
    top = F.softplus((x - 6) * 2.5) / 2.5 if ceiling == 6 else 0
    assert torch.allclose(softplus(x, ceiling, 2.5), F.softplus(x * 2.5) / 2.5 - top)
    assert torch.autograd.gradcheck(lambda x: softplus(x, ceiling, 2.5), x)
    assert torch.autograd.gradgradcheck(lambda x: softplus(x, ceiling, 2.5), x)
