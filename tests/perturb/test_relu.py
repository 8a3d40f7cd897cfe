"""Every way to write a ReLU is seen, and nothing else is."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from salience.perturb.relu import ReplaceReLU

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
}
RELU6S = {
    "module": nn.ReLU6(),
    "in place": nn.ReLU6(inplace=True),
    "F.relu6": F.relu6,
    "hardtanh": lambda x: F.hardtanh(x, 0.0, 6.0),
    "clamp": lambda x: x.clamp(0, 6),
    "clamp words": lambda x: torch.clamp(x, min=0, max=6),
}
OTHERS = {
    "gelu": F.gelu,
    "hardtanh": F.hardtanh,
    "clamp(1)": lambda x: x.clamp(min=1),
    "clamp(max)": lambda x: x.clamp(max=0),
    "clamp(0, 1)": lambda x: x.clamp(0, 1),
    "clamp tensor": lambda x: torch.clamp(x, min=torch.zeros_like(x)),
    "maximum": lambda x: torch.maximum(x, torch.ones(())),
}


@pytest.mark.parametrize(("functions", "ceiling"), [(RELUS, float("inf")), (RELU6S, 6.0)], ids=["relu", "relu6"])
def test_every_relu_is_replaced(functions, ceiling):
    for name, function in functions.items():
        seen = []

        def replacement(x, top, seen=seen):
            seen.append(top)
            return x + 1

        with ReplaceReLU(replacement) as mode:
            out = function(X.clone())
        assert seen == [ceiling], name
        assert mode.replaced == 1
        assert torch.equal(out, X + 1), name


@pytest.mark.parametrize("name", OTHERS)
def test_nothing_else_is_replaced(name):
    with ReplaceReLU(lambda x, top: x + 1) as mode:
        out = OTHERS[name](X.clone())
    assert mode.replaced == 0
    assert torch.equal(out, OTHERS[name](X.clone()))


def test_reused_modules_and_afterwards():
    relu = nn.ReLU()
    with ReplaceReLU(lambda x, top: x - 1) as mode:
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
    with ReplaceReLU(lambda x, top: x.square()):
        out = net(x)
    assert torch.equal(out, (2 * X).square())
    assert torch.equal(torch.autograd.grad(out.sum(), x)[0], 8 * X)
