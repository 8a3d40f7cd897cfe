import copy
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
import torch.nn.functional as F
from layered_nets import Functional, Plain, Residual, distance, model, pictures, seeded, vit
from PIL import Image
from torch import nn

import salience as sal
from salience.explainers.lrp import LRP

SQUEEZENET = Path(__file__).parents[3] / "shared/data/imagenet_models/squeezenet1_0.npz"
RULES = [{"rule": "gamma"}, {"rule": "gamma", "biases": "zero"}, {"rule": "epsilon", "epsilon": 1e-9, "biases": "zero"}, {"rule": "epsilon", "biases": "spread"}]


class Linear(nn.Module):
    def __init__(self, bias: bool = False):
        super().__init__()
        self.head = nn.Linear(18, 4, bias=bias)

    def forward(self, x):
        return self.head(x.flatten(1))


def test_a_linear_network_without_bias_gives_input_times_weight():
    net = seeded(Linear)
    x = pictures(2, 2, 3)
    network = sal.Model(net)
    right = x * net.head.weight[1].view(3, 2, 3)
    assert distance(LRP(rule="epsilon", first="rule")(network, x, targets=1).maps, right) < 1e-4


def test_the_gamma_rule_by_hand():
    """One unit, contributions 2, 3 and -1: with gamma 0.5 they count 3, 4.5 and -1."""
    net = sal.Model(OneUnit())
    x = torch.tensor([0.5, 1, 1]).view(1, 3, 1, 1)
    maps = LRP(gamma=0.5, first="rule")(net, x, targets=0).maps.flatten()
    assert torch.allclose(maps, 4 * torch.tensor([3, 4.5, -1]) / 6.5)
    opposite = LRP(gamma=0.5, first="rule")(net, x, targets=1).maps.flatten()  # the sum is negative: now -2 and -3 count more
    assert torch.allclose(opposite, -4 * torch.tensor([3, 4.5, -1]) / 6.5)


def test_the_box_rule_by_hand():
    """x w - l max(w, 0) - h min(w, 0) with l = 0, h = 1: contributions 2, 3 and -1 + 1."""
    maps = LRP()(sal.Model(OneUnit()), torch.tensor([0.5, 1, 1]).view(1, 3, 1, 1), targets=0).maps.flatten()
    assert torch.allclose(maps, 4 * torch.tensor([2.0, 3, 0]) / 5)


@pytest.mark.parametrize(("biases", "right"), [("zero", [4.0, 6, -2]), ("keep", [2.0, 3, -1]), ("spread", [2 + 8 / 6, 3 + 12 / 6, -1 + 4 / 6])])
def test_what_becomes_of_biases(biases, right):
    """Contributions 2, 3, -1 and a bias of 4."""
    net = sal.Model(OneUnit(bias=4.0))
    e = LRP(rule="epsilon", biases=biases, first="rule")(net, torch.tensor([0.5, 1, 1]).view(1, 3, 1, 1), targets=0)
    assert torch.allclose(e.maps.flatten(), torch.tensor(right))
    assert e.record["images"]["bias_share"][0] == pytest.approx(0.5 if biases == "keep" else 0, abs=1e-5)


class OneUnit(nn.Module):
    def __init__(self, bias: float = 0.0):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[4.0, 3, -1], [-4, -3, 1]]))
        self.bias = nn.Parameter(torch.tensor([bias, -bias]))

    def forward(self, x):
        return F.linear(x.flatten(1), self.weight, self.bias)


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("make", [Plain, Residual])
def test_the_sum_is_the_score(rule, make):
    network, x = model(seeded(make)), pictures(3)
    e = LRP(**rule)(network, x, targets=2)
    scores = network(x)[:, 2]
    assert torch.allclose(e.maps.sum((1, 2, 3)), scores, rtol=0.01)
    assert max(map(abs, e.record["images"]["bias_share"])) < 0.01


def composite(conv_rule, dense_rule, first_rule):
    from zennit.composites import LayerMapComposite
    from zennit.core import Composite
    from zennit.rules import Norm, Pass
    from zennit.types import Activation, AvgPool

    layers = LayerMapComposite(layer_map=[(Activation, Pass()), (AvgPool, Norm()), (nn.Conv2d, conv_rule), (nn.Linear, dense_rule)])

    def module_map(ctx, name, module):
        return first_rule if name.endswith("conv1") else layers.module_map(ctx, name, module)

    return Composite(module_map=module_map)


@pytest.mark.parametrize("rule", ["gamma", "epsilon"])
@pytest.mark.parametrize("biases", ["keep", "zero"])
def test_equals_zennit_on_a_plain_network(rule, biases):
    rules = pytest.importorskip("zennit.rules")
    from zennit.attribution import Gradient

    net = seeded(Plain)
    if biases == "zero":  # zennit takes the unit's sign with the bias, we without it: the sign must not depend on it
        for module in net.modules():
            if getattr(module, "bias", None) is not None:
                nn.init.zeros_(module.bias)
    network, x = model(net), pictures()
    normalised = network.normalise(x)
    zero = {"zero_params": "bias"} if biases == "zero" else {}
    inner = rules.Gamma(0.25, **zero) if rule == "gamma" else rules.Epsilon(1e-6, **zero)
    dense = rules.Gamma(0.25, **zero) if rule == "gamma" else rules.Epsilon(1e-6, **zero)
    low, high = network.normalise(torch.zeros(1, 3, 1, 1)), network.normalise(torch.ones(1, 3, 1, 1))
    first = rules.ZBox(low, high, zero_params="bias")
    with Gradient(model=net, composite=composite(inner, dense, first)) as attributor:
        _, theirs = attributor(normalised, lambda outputs: outputs * torch.eye(4)[[2, 2]])
    ours = LRP(rule=rule, biases=biases)(network, x, targets=2).maps
    assert distance(ours, theirs.detach()) < 1e-3


def test_functions_and_modules_are_alike():
    net = seeded(Plain)
    x = pictures()
    for options in RULES:
        assert distance(LRP(**options)(model(Functional(net)), x, targets=1).maps, LRP(**options)(model(net), x, targets=1).maps) < 1e-4


class Around(nn.Module):
    """A plain network with something done to its image, and to its first map with a map or a constant."""

    def __init__(self, image, inner):
        super().__init__()
        self.plain, self.image, self.inner = seeded(Plain), image, inner

    def forward(self, x):
        net, c = self.plain, torch.linspace(-1, 1, 6).view(1, 6, 1, 1)
        x = torch.relu(net.conv1(self.image(x)))
        return net.head(net.pool(torch.relu(net.conv2(self.inner(x.clone(), x.roll(1, 1), c)))).mean((2, 3)))


def same(x, *_):
    return x


@pytest.mark.parametrize("options", ["lrp", "lrp:rule=epsilon", "lrp:first=rule", "excitation_backprop:layer=plain.conv1"])
@pytest.mark.parametrize(
    ("here", "copied"),
    [
        ((lambda x: x.sub_(0.5).div_(0.2), same), (lambda x: (x - 0.5) / 0.2, same)),
        ((lambda x: x.neg_().add_(1), same), (lambda x: -x + 1, same)),
        ((same, lambda x, y, _: x.__iadd__(y)), (same, lambda x, y, _: x + y)),
        ((same, lambda x, y, _: x.sub_(y, alpha=0.5)), (same, lambda x, y, _: x - 0.5 * y)),
        ((same, lambda x, _, c: x.add_(c)), (same, lambda x, _, c: x + c)),
        ((same, lambda x, _, c: x.mul_(2).sub_(c)), (same, lambda x, _, c: x * 2 - c)),
        ((same, lambda x, y, _: torch.rsub(x, y, alpha=0.5)), (same, lambda x, y, _: y - 0.5 * x)),
    ],
    ids=["normalised", "inverted", "iadd", "sub", "constant", "scaled", "rsub"],
)
def test_sums_are_alike_in_place_and_not(options, here, copied):
    maps = [sal.explain(options, sal.Model(Around(*each)), pictures(), targets=1).maps for each in (here, copied)]
    assert distance(*maps) < 1e-4


class Between(nn.Module):
    """A network with something done to its image, and to the map between a convolution and its batch norm, which gets the convolution's input too."""

    def __init__(self, image, inner):
        super().__init__()
        self.source, self.image, self.inner = seeded(Residual), image, inner

    def forward(self, x):
        net = self.source
        x = torch.relu(net.conv1(self.image(x)))
        return net.head(torch.relu(net.bn1(self.inner(net.conv1(x[:, :3]), x))).mean((2, 3)).repeat(1, 2)[:, : net.head.in_features])


def changed(view):
    """In place, through a view: the tensor that it is of, which the network goes on with."""

    def change(x, *rest):
        view(x, *rest)
        return x

    return change


@pytest.mark.parametrize("options", ["lrp", "lrp:rule=epsilon", "lrp:first=rule", "excitation_backprop:layer=source.conv1"])
@pytest.mark.parametrize(
    ("here", "copied"),
    [
        (lambda y, x: y.flatten(2).add_(x.flatten(2)), lambda y, x: y + x),
        (lambda y, _: y[:, :3].mul_(-2), lambda y, _: torch.cat([y[:, :3] * -2, y[:, 3:]], 1)),
        (lambda y, _: torch.relu_(y.view(y.shape)), lambda y, _: torch.relu(y)),
    ],
    ids=["add", "part", "relu"],
)
def test_a_batch_norm_is_not_merged_into_a_layer_whose_output_a_view_has_changed(options, here, copied):
    maps = [sal.explain(options, sal.Model(Between(same, each)), pictures(), targets=1).maps for each in (changed(here), copied)]
    assert distance(*maps) < 1e-5


@pytest.mark.parametrize(
    ("image", "inner"),
    [
        (changed(lambda x: x[:, 0].sub_(0.5)), same),
        (changed(lambda x: x[:, 0].relu_()), same),
        (same, changed(lambda _, x: x.mul_(0.5))),
    ],
    ids=["image", "without bounds", "input of the layer"],
)
def test_what_is_no_longer_known_after_a_change_in_place_is_refused(image, inner):
    with pytest.raises(sal.InputError, match="changes in place"):
        sal.explain("lrp", sal.Model(Between(image, inner)), pictures(), targets=1)


class Folded(nn.Module):
    """A residual network's first layers, with batch norm as a layer or folded into the convolution."""

    def __init__(self, fold: bool):
        super().__init__()
        source = seeded(Residual)
        self.conv, self.norm, self.head = nn.Conv2d(3, 6, 3, padding=1), source.bn1, nn.Linear(6, 4)
        self.conv.weight.data.copy_(source.conv1.weight)
        self.head.weight.data.copy_(source.head.weight[:, :6])
        if fold:
            scale = self.norm.weight / (self.norm.running_var + self.norm.eps).sqrt()
            self.conv.bias.data.copy_(self.norm.bias + (self.conv.bias - self.norm.running_mean) * scale)
            self.conv.weight.data.mul_(scale[:, None, None, None])
            self.norm = nn.Identity()
        self.norm.eval()

    def forward(self, x):
        return self.head(torch.relu(self.norm(self.conv(x))).mean((2, 3)))


def test_batch_norm_is_merged_whatever_the_sign_of_its_scale():
    torch.manual_seed(0)
    layered = Folded(fold=False)
    torch.manual_seed(0)
    folded = Folded(fold=True)
    assert layered.norm.weight.min() < 0
    x = pictures()
    for options in RULES:
        options = options | {"first": "rule"}
        assert distance(LRP(**options)(model(layered), x, targets=1).maps, LRP(**options)(model(folded), x, targets=1).maps) < 1e-3


def test_resnet18_does_not_blow_up():
    """captum's sum is 5e12 there for a score of 0.8, zennit's without canonizer 252 times the score."""
    import torchvision

    network, x = model(seeded(lambda: torchvision.models.resnet18(num_classes=4))), pictures(1, 48, 64)
    e = LRP()(network, x, targets=0)
    assert e.maps.sum().item() == pytest.approx(network(x)[0, 0].item(), rel=0.01)


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "densenet121", "regnety_002", "resnetv2_50"])
def test_other_architectures_conserve(name):
    import timm

    network, x = model(seeded(lambda: timm.create_model(name, num_classes=4))), pictures(1, 64, 64)
    e = LRP()(network, x, targets=1)
    assert e.record["images"]["bias_share"][0] == pytest.approx(0, abs=0.01)


def test_half_precision_models_are_explained_in_full():
    net, x = seeded(Residual), pictures()
    assert torch.equal(LRP()(model(net, precision="bfloat16"), x, targets=1).maps, LRP()(model(net), x, targets=1).maps)


def test_beta_smoothing_can_wrap_it():
    network, x = model(seeded(Plain)), pictures()
    e = sal.BetaSmoothing(base=LRP(), beta=5)(network, x, targets=1)
    assert distance(e.maps, LRP()(network, x, targets=1).maps) > 0.01
    assert torch.allclose(e.maps.sum((1, 2, 3)), torch.tensor(e.record["images"]["smoothed_score"]), rtol=0.2)


def test_an_operation_without_rule_is_refused_by_name():
    with pytest.raises(sal.InputError, match=r"lrp has no rule for the operation 'layer_norm' in visiontransformer: choose another method, such as gradcam, integrated_gradients or rise\."):
        LRP()(model(vit(), size=(16, 24)), pictures(1, 16, 24))


class Squares(Plain):
    def forward(self, x):
        return super().forward(x) ** 2


class InPlace(Plain):
    def forward(self, x):
        x = self.conv1(x)
        x[:, 0] = x[:, 1]
        return self.head(self.pool(x).mean((2, 3)).repeat(1, 2)[:, :8])


class OfTheBatch(Residual):
    def forward(self, x):
        return super().forward(F.batch_norm(x, None, None, training=True))


@pytest.mark.parametrize(("net", "message"), [(Squares, "no rule for the operation 'pow'"), (InPlace, "no rule for the operation 'setitem'"), (OfTheBatch, "uses the statistics of the batch")])
def test_nothing_is_guessed(net, message):
    network = model(seeded(net))
    before = copy.deepcopy(network.module.state_dict())
    with pytest.raises(sal.InputError, match=message):
        LRP()(network, pictures())
    assert all(torch.equal(value, before[key]) for key, value in network.module.state_dict().items())
    assert all(not module._forward_hooks and not module._backward_hooks for module in network.modules())


def test_overflow_is_an_error_not_a_map():
    network = sal.load_model()
    image = sal.load_images([Image.fromarray(skimage.data.rocket())], network)
    with pytest.raises(sal.InputError, match=r"The epsilon rule overflows on efficientnet-lite0 with biases=zero: use rule=gamma, or biases=keep\."):
        LRP(rule="epsilon", biases="zero")(network, image)


@pytest.mark.parametrize("biases", ["spread", "zero"])
def test_conservation_on_the_default_model(biases):
    network = sal.load_model()
    images = sal.load_images([Image.fromarray(skimage.data.chelsea()), Image.fromarray(skimage.data.coffee())], network)
    e = LRP(biases=biases)(network, images)
    assert torch.allclose(e.maps.sum((1, 2, 3)), torch.tensor(e.record["images"]["score"]), rtol=0.01)


@pytest.mark.skipif(not SQUEEZENET.exists(), reason="needs the SqueezeNet weights beside the repository (shared/data)")
@pytest.mark.parametrize("options", RULES, ids=str)
def test_conservation_on_squeezenet(options):
    import torchvision

    net = torchvision.models.squeezenet1_0()
    stored = np.load(SQUEEZENET)
    net.load_state_dict({key: torch.from_numpy(stored[key]) for key in stored.files})
    network = sal.Model(net.eval(), mean=(104, 117, 123), channels="BGR", value_range=255, size=227, name="squeezenet")
    image = sal.load_images([Image.fromarray(skimage.data.coffee())], network)
    e = LRP(**options)(network, image, targets=967)
    assert e.maps.sum().item() == pytest.approx(e.record["images"]["score"][0], rel=0.01)


class SumBeforeNorm(nn.Module):
    """A residual sum of two rectified maps that a batch norm follows."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.c, self.d, self.bn, self.fc = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Linear(6, 3, bias=False)
            nn.init.uniform_(self.bn.bias, 0.2, 0.8)
            nn.init.normal_(self.bn.running_mean, std=0.1)

    def forward(self, x):
        a = self.c(x).relu()
        return self.fc(self.bn(a + self.d(a).relu()).relu().mean((2, 3)))


@pytest.mark.parametrize("biases", ["spread", "zero"])
def test_nothing_is_lost_where_both_terms_of_a_sum_are_zero(biases):
    """What the batch norm made of it was taken for the sum's, and vanished there."""
    model = sal.Model(SumBeforeNorm().eval())
    images = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    e = sal.explain(f"lrp:biases={biases}", model, images, 1)
    torch.testing.assert_close(e.maps.sum((1, 2, 3)), model.outputs(images)[:, 1], rtol=1e-3, atol=1e-4)
    shares = sal.explain("excitation_backprop:layer=c", model, images, 1)
    assert shares.maps.std() > 0


class Square(torch.autograd.Function):
    """x² / 2, with a backward pass of its own."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x / 2

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.saved_tensors[0]


class Unseen(nn.Module):
    """A network with an operation in its middle that no function mode sees."""

    def __init__(self, middle):
        super().__init__()
        self.conv, self.middle, self.head = nn.Conv2d(3, 4, 3), middle, nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.middle(self.conv(x)).relu().mean((2, 3)))


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
@pytest.mark.parametrize("method", ["lrp", "excitation_backprop", "contrastive_excitation_backprop"])
def test_what_cannot_be_seen_is_refused(method):
    """It was handed down as a gradient."""
    for middle in (Square.apply, torch.jit.script(nn.Sequential(nn.ReLU(), nn.Conv2d(4, 4, 3)))):
        model = sal.Model(Unseen(middle))
        with pytest.raises(
            sal.InputError, match=rf"^{method} cannot see all operations of Unseen: .* own\. Give the network as plain modules, or choose another method, such as integrated_gradients or rise\.$"
        ):
            sal.explain(method, model, torch.rand(1, 3, 12, 12), 1)


def test_hooks_on_gradients_are_no_operations():
    module = Unseen(nn.Conv2d(4, 4, 3))
    images = torch.rand(1, 3, 12, 12)
    expected = sal.explain("lrp", sal.Model(module), images, 1).maps
    module.middle.register_full_backward_hook(lambda *_: None)
    torch.testing.assert_close(sal.explain("lrp", sal.Model(module), images, 1).maps, expected)
