"""The quick gradient is the gradient."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

import salience as sal
from salience.core import quick_functions
from salience.core.quick import TOP_HOOKS, Padding, quick

REPLACED = pytest.mark.skipif(TOP_HOOKS is None, reason="this torch does not tell who keeps tensors for the backward pass, so nothing is replaced")


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


def pictures(n: int, height: int, width: int) -> torch.Tensor:
    """Always the same: in bfloat16 a value next to a clamp's edge may fall on either side."""
    return torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(1))


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
    model, images, targets = net(affine), pictures(3, 6, 7), torch.tensor([0, 1, 3])
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
    with quick(model.module):
        found = model.module.norm(model.module.conv(x))
    assert torch.allclose(plain, found, atol=1e-5)


def test_second_derivatives():
    model, images = net(True), pictures(2, 6, 7)
    found = []
    for context in (quick(model.module), torch.enable_grad()):
        inputs = images.clone().requires_grad_(True)
        with context:
            outputs = model.module(inputs).square().sum()
        (gradient,) = torch.autograd.grad(outputs, inputs, create_graph=True)
        found.append(torch.autograd.grad(gradient.square().sum(), inputs)[0])
    assert torch.allclose(found[0], found[1], rtol=1e-3, atol=1e-5)


def test_replacements_of_relu_still_see_the_network():
    """Another mode outside must get the network's own calls."""
    model, images = net(True), pictures(1, 6, 7)
    smooth = sal.BetaSmoothing(beta=1.0)(model, images, targets=1).maps
    plain = sal.Gradient()(model, images, targets=1).maps
    assert (smooth - plain).norm() / plain.norm() > 0.05


def test_another_mode_outside_gets_the_networks_own_calls():
    """All of them, so nothing is folded; the outputs are the same."""
    model, images = net(True), pictures(1, 6, 7)
    expected = model.outputs(images)
    with Watching() as watching:
        assert torch.allclose(model.outputs(images), expected, atol=1e-5)
    assert watching.seen >= {F.batch_norm, F.hardtanh}


class Watching(TorchFunctionMode):
    """Notes what is called."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = set()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.seen.add(func)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("kernel", "stride", "padding", "size"), [(3, 1, 1, (8, 9)), (3, 2, 0, (9, 11)), (5, 2, 2, (10, 7)), (5, (2, 1), (0, 2), (11, 8)), (3, 3, 1, (9, 8)), (1, 1, 0, (4, 4))])
@REPLACED
def test_depthwise_gradient_in_bfloat16(kernel, stride, padding, size):
    """Whole-number weights and gradients are exact in bfloat16, so the flipped kernel must give the very same numbers."""
    draw = torch.Generator().manual_seed(0)
    weight = torch.randint(-2, 3, (4, 1, kernel, kernel), generator=draw).float()
    x = torch.randint(-2, 3, (2, 4, *size), generator=draw).float()
    found = []
    for context in (quick(nn.Identity()), torch.enable_grad()):
        inputs = x.clone().requires_grad_(True)
        with context, torch.autocast("cpu", torch.bfloat16):
            outputs = torch.atleast_3d(F.conv2d(inputs, weight, None, stride, padding, 1, 4))  # a next call, which returns its input
        upstream = torch.randint(-2, 3, outputs.shape, generator=torch.Generator().manual_seed(1)).to(outputs)
        found.append((outputs, torch.autograd.grad(outputs, inputs, upstream)[0]))
    assert "Convolved" in type(found[0][0].grad_fn).__name__
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize(
    "how", [((0, 1, 0, 1),), ((2, 0, 1, 3), "constant", 0.0), ((1, 1), "constant", 0), ((1, 1, 2, 0), "constant", 0.5), ((-1, 2, 0, 1),), ((1, 1, 1, 1), "reflect"), ((0, 0, 0, 0),)], ids=str
)
def test_padding(how, form):
    """The same numbers, gradient and second derivative, whatever the padding."""
    x = torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(0)).contiguous(memory_format=form)
    found = []
    for context in (quick(nn.Identity()), torch.enable_grad()):
        inputs = x.clone().requires_grad_(True)
        with context:
            padded = F.pad(inputs, *how)
        (gradient,) = torch.autograd.grad(padded.pow(3).sum(), inputs, create_graph=True)
        found.append((padded, gradient, torch.autograd.grad(gradient.square().sum(), inputs)[0]))
    assert found[0][0].stride() == found[1][0].stride()
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_bfloat16_batch_norm_has_the_same_outputs_and_gradient():
    model, images, targets = net(True), pictures(3, 6, 7), torch.tensor([0, 1, 3])
    model.precision = "bfloat16"
    gradient, outputs = model.gradient_and_outputs(images, targets)
    inputs = images.clone().requires_grad_(True)
    with torch.autocast("cpu", torch.bfloat16):
        plain = model.module(inputs).float()
    (expected,) = torch.autograd.grad(plain.gather(1, targets[:, None]).sum(), inputs)
    assert torch.allclose(outputs, plain, atol=0.02)
    assert (gradient - expected).norm() < 0.02 * expected.norm()


class Chain(nn.Module):
    """One convolution, what is done with it given as a function of the convolution, the norm and the input."""

    def __init__(self, use, **how) -> None:
        super().__init__()
        self.use = use
        self.conv = nn.Conv2d(4, 6, 3, **how)
        self.norm = nn.BatchNorm2d(6)

    def forward(self, x):
        return self.use(self.conv, self.norm, torch.cat([x, x[:, :1]], 1)).mean((2, 3))


def detached(conv, norm, x):
    with torch.no_grad():
        y = conv(x)
    return norm(y) * x[:, :1, 1:-1, 1:-1]


def exact(conv, norm, x):
    with torch.autocast("cpu", enabled=False):
        y = conv(x.float())
    return norm(y)


def stored(conv, norm, x):
    y = conv(x)
    z = norm(y)
    return z + y.square()


def changed_before(conv, norm, x):
    y = conv(x)
    x.add_(1)
    return norm(y)


def changed_after(conv, norm, x):
    y = conv(x)
    z = norm(y)
    x.add_(1)
    return y + z


def clamped_by_name(conv, norm, x):
    y = norm(conv(x))
    F.relu6(y, inplace=True)
    return y * 2


def clamped_with_a_view(conv, norm, x):
    y = norm(conv(x))
    z = y.flatten(2)
    F.relu6(y, inplace=True)
    return y + z.mean(2, keepdim=True)[..., None]


def clamped_before(conv, norm, x):
    y = conv(x)
    return norm(F.hardtanh(y, -0.5, 0.5, inplace=True)) + y


def clamped_without_graph(conv, norm, x):
    y = norm(conv(x))
    z = y + 0
    with torch.no_grad():
        F.relu6(y, inplace=True)
    return y + z


def clamped_and_changed(conv, norm, x):
    y = F.relu6(norm(conv(x)), inplace=True).add_(1)
    return F.hardtanh(conv(y[:, :4]), 0, 1, inplace=True)


USES = {
    "clamped": lambda conv, norm, x: F.relu6(norm(conv(x)), inplace=True),
    "clamped by name": clamped_by_name,
    "clamped with a view": clamped_with_a_view,
    "clamped before": clamped_before,
    "clamped without graph": clamped_without_graph,
    "clamped and changed": clamped_and_changed,
    "clamped twice": lambda conv, norm, x: F.hardtanh(F.relu6(norm(conv(x)), inplace=True), 0.25, 0.75, inplace=True),
    "not in place": lambda conv, norm, x: (lambda y: F.relu6(y) + y)(norm(conv(x))),
    "folded": lambda conv, norm, x: norm(conv(x)),
    "twice": lambda conv, norm, x: norm(conv(x)) + conv(x).exp(),
    "alone": lambda conv, norm, x: conv(x),
    "in place": lambda conv, norm, x: norm(conv(x).relu_()),
    "shape": lambda conv, norm, x: norm(conv(x)[:, :, : conv(x).shape[2] - 1]),
    "operator": lambda conv, norm, x: norm(torch.ops.aten.sigmoid(conv(x))),
    "keyword": lambda conv, norm, x: F.batch_norm(input=conv(x), running_mean=norm.running_mean, running_var=norm.running_var),
    "list": lambda conv, norm, x: torch.cat([conv(x), conv(x)], 1),
    "detached": detached,
    "exact": exact,
    "stored": stored,
    "changed before": changed_before,
    "changed after": changed_after,
}


@pytest.fixture(params=[0, 2**20], ids=["fused", "unfused"])
def least_fused(request, monkeypatch):
    """Clamps in the same pass as the convolution, and not."""
    monkeypatch.setattr("salience.core.quick_functions.LEAST_FUSED", request.param)


@pytest.mark.usefixtures("least_fused")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("how", [{}, {"bias": False, "padding": 1}, {"groups": 2, "stride": 2}, {"dilation": 2, "padding": "same"}, {"padding": (0, 1), "padding_mode": "reflect"}], ids=str)
@pytest.mark.parametrize("use", USES)
def test_whatever_a_network_does_with_a_convolution(use, how, precision):
    if use == "detached" and (how.get("stride") or how.get("padding")):
        how = {}  # the product needs the plain shape
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = Chain(USES[use], **how).eval().requires_grad_(False)
        module.norm.running_mean.normal_()
        module.norm.running_var.uniform_(0.5, 2)
        nn.init.normal_(module.norm.weight)
        nn.init.normal_(module.norm.bias)
    model, images, targets = sal.Model(module, precision=precision), pictures(2, 8, 9), torch.tensor([1, 5])
    tolerance = 1e-5 if precision == "float32" or use == "exact" else 0.03
    with torch.no_grad():
        plain = model(images)
    assert (model.outputs(images) - plain).norm() <= tolerance * plain.norm()
    assert type(model.outputs(images)) is torch.Tensor
    if use.startswith("changed"):
        return  # torch itself has no gradient of a convolution whose input was changed
    inputs = images.clone().requires_grad_(True)
    (expected,) = torch.autograd.grad(model(inputs).gather(1, targets[:, None]).sum(), inputs)
    gradient, outputs = model.gradient_and_outputs(images, targets)
    assert (outputs - plain).norm() <= tolerance * plain.norm()
    assert (gradient - expected).norm() <= tolerance * expected.norm()
    assert type(outputs) is type(gradient) is torch.Tensor


def count_calls(model, images):
    """Functions of torch that a pass of gradients runs, by name."""
    with torch.profiler.profile() as profile:
        model.gradient(images, torch.zeros(len(images), dtype=torch.int64))
    return {event.key: event.count for event in profile.key_averages()}


def test_folding_happens_and_hooks_prevent_it():
    model, images = net(True), pictures(2, 6, 7)
    assert "Affine" not in count_calls(model, images)
    seen = []
    handle = model.module.norm.register_forward_hook(lambda module, args, output: seen.append(args[0]))
    calls = count_calls(model, images)
    handle.remove()
    assert "aten::batch_norm" in calls
    assert type(seen[0]) is torch.Tensor


def blocks():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU6(inplace=True), nn.Conv2d(8, 8, 3, groups=8, stride=2), nn.BatchNorm2d(8), nn.ReLU6(inplace=True), nn.Conv2d(8, 4, 1)
        ).eval()


FUSED = pytest.mark.skipif(TOP_HOOKS is None or quick_functions.FUSED is None, reason="this torch replaces nothing, or has no oneDNN")


@FUSED
def test_a_clamp_is_made_with_the_convolution_where_there_is_much_to_clamp(monkeypatch):
    network, x = blocks(), torch.rand(2, 3, 17, 21)
    for least, fused in ((0, 2), (2 * 8 * 15 * 19, 1), (2**20, 0)):
        monkeypatch.setattr(quick_functions, "LEAST_FUSED", least)
        inputs = x.clone().requires_grad_(True)
        with torch.profiler.profile() as profile, quick(network):
            outputs = network(inputs)
        calls = {event.key: event.count for event in profile.key_averages()}
        assert calls.get("mkldnn::_convolution_pointwise", 0) == fused
        assert calls.get("aten::clamp_", 0) == 2 - fused
        other = x.clone().requires_grad_(True)
        expected = network(other)
        assert torch.allclose(outputs, expected, atol=1e-5)
        first, second = (torch.autograd.grad((each.square() * each.detach().cos()).sum(), on, create_graph=True)[0] for each, on in ((outputs, inputs), (expected, other)))
        assert torch.allclose(first, second, atol=1e-5)
        first, second = (torch.autograd.grad(each.square().sum(), on)[0] for each, on in ((first, inputs), (second, other)))
        assert torch.allclose(first, second, atol=1e-5)
        assert second.abs().max() > 0.001


@FUSED
@pytest.mark.parametrize("where", ["image", "weight", "bias", "infinite"])
def test_a_number_that_is_none_stays_visible(where, monkeypatch):
    """oneDNN's clamp makes a bound of NaN, and would hide that a network is broken."""
    monkeypatch.setattr(quick_functions, "LEAST_FUSED", 0)
    network, x = blocks(), torch.rand(2, 3, 17, 21)
    if where in ("image", "infinite"):
        x[0, 0, 5, 5] = float("nan" if where == "image" else "inf")
        network[0].weight.data[0, 0, 0, 0] = 0  # infinity times this is NaN
    else:
        getattr(network[3], where).data[2] = float("nan")
    with torch.no_grad():
        expected = network(x)
        with quick(network):
            outputs = network(x)
    assert expected.isnan().any()
    assert torch.equal(outputs.isnan(), expected.isnan())


@REPLACED
def test_small_passes_are_plain(monkeypatch):
    """The quick functions cost time of their own."""
    model, images = net(True), pictures(2, 6, 7)
    monkeypatch.setattr("salience.core.model.LEAST_GRADIENT", 2 * 6 * 7 + 1)
    assert "aten::batch_norm" in count_calls(model, images)
    monkeypatch.setattr("salience.core.model.LEAST_GRADIENT", 2 * 6 * 7)
    assert "aten::batch_norm" not in count_calls(model, images)
    for least, name in ((2 * 6 * 7 + 1, "aten::batch_norm"), (2 * 6 * 7, "aten::addcmul")):
        monkeypatch.setattr("salience.core.model.LEAST_FORWARD", least)
        with torch.profiler.profile() as profile:
            model.outputs(images)
        assert {"aten::batch_norm", "aten::addcmul"} & {event.key for event in profile.key_averages()} == {name}


def padded_and_convolved(x, weight, pad, how, then):
    return then(F.conv2d(F.pad(x, pad), weight, None, *how))


PADS = [(0, 1, 0, 1), (1, 2, 1, 2), (2, 1, 0, 3), (1, 1, 1, 1), (0, 0, 2, 0), (3, 0, 0, 0)]


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
@pytest.mark.parametrize("pad", PADS, ids=str)
@pytest.mark.parametrize(
    ("shape", "how", "folded"),
    [
        ((4, 1, 3, 3), (2, 0, 1, 4), True),
        ((4, 1, 5, 4), (1, 0, 1, 4), True),
        ((8, 1, 3, 3), (3, 0, 1, 4), True),
        ((4, 1, 3, 3), (2, 1, 1, 4), False),
        ((4, 1, 3, 3), (1, 0, 2, 4), False),
        ((5, 4, 3, 3), (2, 0, 1, 1), False),
        ((4, 2, 3, 3), (2, 0, 1, 2), False),
    ],
    ids=str,
)
@REPLACED
def test_padding_before_a_convolution(shape, how, folded, pad, kind):
    """A depthwise convolution takes the zeros into its kernels, others do not; whole numbers must come out the very same."""
    draw = torch.Generator().manual_seed(0)
    weight = torch.randint(-2, 3, shape, generator=draw).float()
    x = torch.randint(-2, 3, (2, 4, 9, 8), generator=draw).float()
    found = []
    for context in (quick(nn.Identity()), torch.enable_grad()):
        inputs = x.clone().requires_grad_(True)
        with context, torch.autocast("cpu", torch.bfloat16, kind == "bfloat16"):
            outputs = padded_and_convolved(inputs, weight, pad, how, torch.atleast_3d)
        upstream = torch.randint(-2, 3, outputs.shape, generator=torch.Generator().manual_seed(1)).to(outputs)
        found.append((outputs, torch.autograd.grad(outputs, inputs, upstream)[0]))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
    assert ("Padded" in names_of(found[0][0])) is not folded


def test_zeros_that_a_convolution_takes_in_are_never_written(monkeypatch):
    computed = []
    monkeypatch.setattr(Padding, "compute", lambda padding: computed.append(padding) or F.pad(padding.x, padding.pad))
    with quick(nn.Identity()):
        padded_and_convolved(torch.rand(1, 4, 9, 8, requires_grad=True), torch.rand(4, 1, 3, 3), (0, 1, 0, 1), ((2, 2), (0, 0), (1, 1), 4), torch.atleast_3d)
    assert computed == []


def names_of(outputs):
    """Names of the functions that made a tensor."""
    names, waiting = "", [outputs.grad_fn]
    while waiting:
        function = waiting.pop()
        names += type(function).__name__ + " "
        waiting += [each for each, _ in function.next_functions if each is not None]
    return names


def pad_used_twice(conv, x):
    y = F.pad(x, (0, 1, 0, 1))
    return conv(y) + y[:, :, ::2, ::2][:, :, : conv(y).shape[2], : conv(y).shape[3]]


def pad_then_changed(conv, x):
    x = x * 1
    y = F.pad(x, (0, 1, 0, 1))
    x.mul_(3)
    return conv(y)


def pad_without_gradient(conv, x):
    with torch.no_grad():
        y = F.pad(x, (0, 1, 0, 1))
    return conv(y) * x.mean()


@pytest.mark.parametrize("use", [pad_used_twice, pad_then_changed, pad_without_gradient, lambda conv, x: conv(F.pad(x, (0, 1, 0, 1))), lambda conv, x: conv(input=F.pad(x, (0, 1, 0, 1)))])
def test_whatever_a_network_does_with_a_padded_picture(use):
    x, conv = pictures(2, 8, 8), nn.Conv2d(3, 3, 3, 2, groups=3)
    found = []
    for context in (quick(nn.Identity()), torch.enable_grad()):
        inputs = x.clone().requires_grad_(True)
        with context:
            outputs = torch.atleast_3d(use(conv, inputs))
        found.append((outputs, torch.autograd.grad(outputs.square().sum(), inputs)[0]))
    assert all(torch.allclose(one, other, rtol=1e-5, atol=1e-6) for one, other in zip(*found, strict=True))


def two_branches(y, conv):
    """What a convolution returns as a gradient goes to a clamp and past it."""
    return conv(2 * y + F.relu6(y - 1, inplace=True)) + conv(F.relu6(y + 1, inplace=True)) + y


CLAMPED = {
    "convolution": lambda y, conv: conv(y),
    "two": lambda y, conv: conv(y) + conv(2 * y),
    "sum": lambda y, conv: conv(y) + 2 * y,
    "changed in place": lambda y, conv: conv((y * 1).add_(1)),
    "clamped again": lambda y, conv: conv(F.hardtanh(y * 2, 0.5, 1.5, inplace=True)),
    "branches": two_branches,
    "chain": lambda y, conv: conv(F.relu6(conv(F.relu6(conv(y), inplace=True)) - 1, inplace=True)),
    "nobody": lambda y, conv: conv(y.detach()) + y,
    "sum with what came before": lambda y, conv: (lambda before: conv(F.relu6(F.relu6(conv(y), inplace=True) + before, inplace=True)))(2 * y),
}


@pytest.mark.usefixtures("least_fused")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", CLAMPED)
def test_whatever_a_network_does_with_a_clamped_tensor(name, precision):
    """Whole numbers, many of them at the bounds, must come out the very same."""
    draw = torch.Generator().manual_seed(0)
    conv = nn.Conv2d(4, 4, 3, padding=1, bias=False)
    conv.weight.data = torch.randint(-1, 2, conv.weight.shape, generator=draw).float()
    x = torch.randint(-2, 9, (2, 4, 5, 5), generator=draw).float()
    found = []
    for context in (quick(nn.Identity()), torch.enable_grad()):
        inputs = x.clone().requires_grad_(True)
        with context, torch.autocast("cpu", torch.bfloat16, precision == "bfloat16"):
            outputs = torch.atleast_3d(CLAMPED[name](F.relu6((inputs * 1).to(getattr(torch, precision)), inplace=True), conv))
        found.append((outputs, *torch.autograd.grad(outputs.float().mul(torch.tensor([1.0, 2, -1, 3])[:, None, None]).sum(), inputs)))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.parametrize(("past", "again", "changed"), [(False, False, True), (False, True, False), (True, False, False)])
@REPLACED
def test_a_gradient_that_nobody_else_reads_is_changed_in_place(past, again, changed):
    """Where a convolution follows a clamp: not if it is to be differentiated again, not what another function returned."""
    x, seen = torch.rand(1, 4, 5, 5).sub(0.5).requires_grad_(True), []
    with quick(nn.Identity()):
        y = F.relu6(x * 2, inplace=True)
        z = torch.atleast_3d(F.conv2d(y * 1 if past else y, torch.ones(4, 4, 1, 1)))
    y.register_hook(lambda gradient: seen.extend((gradient, gradient.detach().clone())))
    torch.autograd.grad(z.sum(), x, create_graph=again)
    assert torch.equal(*seen) is not changed


class Looking(nn.Module):
    """A network that looks at gradients within itself."""

    def __init__(self, look) -> None:
        super().__init__()
        self.conv, self.last, self.look, self.seen = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), look, []

    def forward(self, x):
        y = F.relu6(8 * self.conv(x), inplace=True)
        return (self.last(y) * self.look(self, y)).mean((2, 3))


def by_differentiating(net, y):
    return torch.autograd.grad(net.last(y).sum(), y, retain_graph=True)[0].mean() if y.requires_grad else 1


def by_a_hook(net, y):
    y.register_hook(lambda gradient: net.seen.append(gradient))
    return 1


def by_keeping_it(net, y):
    y.retain_grad()
    net.seen.append(y)
    return 1


def by_its_function(net, y):
    y.grad_fn.register_prehook(lambda gradients: net.seen.extend(gradients))
    return 1


@pytest.mark.parametrize("look", [by_differentiating, by_a_hook, by_keeping_it, by_its_function])
@REPLACED
def test_gradients_that_a_network_looks_at_are_the_networks_own(look):
    model, images, targets = sal.Model(Looking(look)), pictures(2, 9, 9), torch.tensor([0, 3])
    found = []
    for quickly in (True, False):
        model.found.quick = quickly
        gradient = model.gradient(images, targets)
        seen = [getattr(each, "grad", each) if look is by_keeping_it else each for each in model.module.seen]
        model.module.seen.clear()
        assert not model.found.quick
        found.append((gradient, *seen))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
    assert len(found[0]) == 1 + (look is not by_differentiating)


@pytest.mark.filterwarnings("ignore:Using a non-full backward hook")
def test_a_modules_hooks_on_gradients_get_the_networks_own():
    model, images, seen = net(True), pictures(2, 6, 7), []
    model.module.act.register_backward_hook(lambda _module, _inputs, gradients: seen.append(gradients[0]))
    found = []
    for quickly in (True, False):
        model.found.quick = quickly
        found.append((model.gradient(images, torch.tensor([0, 1])), seen.pop()))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


class Swish(torch.autograd.Function):
    """A function with its own gradient, as older networks have for their activations."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        s = torch.sigmoid(x)
        return gradient * s * (1 + x * (1 - s))


def kernels_of_the_image(net, x):
    return F.conv2d(x, net.conv.weight * x.mean())


def scale_of_the_image(net, x):
    return F.batch_norm(net.conv(x), net.norm.running_mean, net.norm.running_var, net.norm.weight * x.mean(), net.norm.bias)


def inference_inside(net, x):
    with torch.inference_mode():
        factor = net.norm(net.conv(F.pad(x, (1, 1, 1, 1)))).mean().item()
    return net.conv(x) * factor


def swish(x: torch.Tensor) -> torch.Tensor:
    return x * torch.sigmoid(x)


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # scripting is deprecated, but networks that use it are about
    scripted = torch.jit.script(swish)


ODD = {
    "a scripted function beside another path": lambda net, x: scripted(net.conv(x)) + x.mean(),
    "a scripted function and no other path": lambda net, x: scripted(net.conv(x)),
    "own gradient of a convolution": lambda net, x: Swish.apply(net.conv(x)) + net.conv(x),
    "own gradient of a padding": lambda net, x: Swish.apply(F.pad(x, (1, 0, 0, 1))) * F.pad(x, (1, 0, 0, 1)),
    "kernels of the image": kernels_of_the_image,
    "scale of the image": scale_of_the_image,
    "keywords": lambda net, x: F.conv2d(input=x, weight=net.conv.weight, bias=net.conv.bias),
    "vmap": lambda net, x: torch.func.vmap(lambda one: F.conv2d(F.pad(one[None], (1, 1, 1, 1)), net.conv.weight)[0])(x),
    "grad": lambda net, x: x * torch.func.grad(lambda y: net.norm(net.conv(y)).square().sum())(x),
    "inference mode": inference_inside,
    "reads without a gradient": lambda net, x: (lambda y: y * y.detach().mean())(net.conv(x)),
}


class Odd(nn.Module):
    def __init__(self, use):
        super().__init__()
        self.use, self.conv, self.norm = use, nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x):
        return self.use(self, x).mean((2, 3)) * 3


@pytest.mark.parametrize("name", ODD)
def test_odd_networks_have_their_own_gradient(name):
    images, targets = pictures(2, 8, 9), torch.tensor([1, 2])
    model = sal.Model(Odd(ODD[name]).eval())
    inputs = images.clone().requires_grad_(True)
    outputs = model(inputs)
    (expected,) = torch.autograd.grad(outputs.gather(1, targets[:, None]).sum(), inputs)
    gradient, found = model.gradient_and_outputs(images, targets)
    assert torch.allclose(found, outputs, rtol=1e-4, atol=1e-6)
    assert torch.allclose(gradient, expected, rtol=1e-4, atol=1e-6)
    assert expected.abs().max() > 1e-4


@pytest.mark.filterwarnings("ignore:The outputs")
def test_a_convolution_in_bfloat16_before_a_batch_norm_in_float32():
    """Such networks, as mixed precision leaves them, were not taken at all."""
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    module[0].bfloat16()
    images, targets = pictures(2, 8, 9), torch.tensor([1, 2])
    inputs = images.clone().requires_grad_(True)
    (expected,) = torch.autograd.grad(module(inputs.bfloat16()).gather(1, targets[:, None]).sum(), inputs)
    assert torch.allclose(sal.Model(module).gradient(images, targets), expected, rtol=0.05, atol=1e-3)
