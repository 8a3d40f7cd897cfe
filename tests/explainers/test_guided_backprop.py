import pytest
import torch
from layered_nets import Functional, Plain, distance, model, pictures, seeded, vit
from torch import nn

import salience as sal
from salience.explainers.guided_backprop import GuidedBackprop


@pytest.fixture
def plain():
    return model(seeded(Plain))


def test_equals_captum_where_captum_is_right(plain):
    captum = pytest.importorskip("captum.attr")
    x = pictures()
    with pytest.warns(UserWarning, match="backward hooks"):
        theirs = captum.GuidedBackprop(plain).attribute(x.clone().requires_grad_(True), target=2).detach()
    assert distance(GuidedBackprop()(plain, x, targets=2).maps, theirs) < 1e-5


def test_functional_relus_are_guided_too(plain):
    """captum silently returns the plain gradient for these."""
    x = pictures()
    ours = GuidedBackprop()(model(Functional(plain.module)), x, targets=2).maps
    assert distance(ours, GuidedBackprop()(plain, x, targets=2).maps) < 1e-5
    assert distance(ours, sal.Gradient()(plain, x, targets=2).maps) > 0.1


class OneUnit(nn.Module):
    """f = -ReLU6(2 x1) + ReLU6(3 x2): a negative and a positive gradient."""

    def forward(self, x):
        flat = x.flatten(1)
        value = nn.functional.relu6(3 * flat[:, 1:2]) - nn.functional.relu6(2 * flat[:, :1])
        return torch.cat([value, -value], 1)


def test_closed_form_of_one_unit():
    network = sal.Model(OneUnit())
    x = torch.full((1, 3, 1, 1), 0.5)
    assert GuidedBackprop()(network, x, targets=0).maps.flatten().tolist() == [0, 3, 0]
    assert GuidedBackprop()(network, x, targets=1).maps.flatten().tolist() == [2, 0, 0]
    assert GuidedBackprop()(network, 0 * x, targets=0).maps.flatten().tolist() == [0, 0, 0]


def test_composes_with_a_base(plain):
    x = pictures()
    guided = GuidedBackprop(base=sal.IntegratedGradients(steps=3))(plain, x, targets=1).maps
    assert distance(guided, sal.IntegratedGradients(steps=3)(plain, x, targets=1).maps) > 0.1


@pytest.mark.parametrize("method", [sal.BetaSmoothing, GuidedBackprop, sal.DeconvNet])
def test_what_a_base_makes_of_its_maps_is_its_own(plain, method):
    """A method of the user's, or of another library, may clip what it has found; the network is what is replaced."""

    def clipped(network, images, targets):
        return network.gradient(images, targets).clamp(min=0)

    x = pictures()
    whole = method(base=sal.Gradient())(plain, x, targets=1).maps
    assert (whole < 0).any()
    assert torch.equal(method(base=clipped)(plain, x, targets=1).maps, whole.clamp(min=0))
    pytest.importorskip("captum.attr")
    assert (method(base="captum:LayerGradCam:arguments=(relu_attributions=true)")(plain, x, targets=1).maps == 0).any()


def test_a_network_without_relu_is_refused():
    network = model(vit(), size=(16, 24))
    with pytest.raises(sal.InputError, match=r"visiontransformer has no ReLU or ReLU6, so guided_backprop would be the plain gradient: choose another method\."):
        GuidedBackprop()(network, pictures(1, 16, 24))


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
@pytest.mark.parametrize("method", ["guided_backprop", "deconvnet", "beta_smoothing"])
def test_relus_in_a_script_are_refused(method):
    """They stayed as they were, next to others that were replaced."""
    script = torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()))
    network = sal.Model(nn.Sequential(script, nn.Conv2d(4, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)))
    with pytest.raises(
        sal.InputError, match=r"^Sequential has ReLUs in TorchScript, which cannot be replaced: give the network as plain modules, or choose another method, such as integrated_gradients or rise\.$"
    ):
        sal.explain(method, network, pictures())


def relu_and_more(x: torch.Tensor) -> torch.Tensor:
    return torch.relu(x) * 2


def tanh_and_more(x: torch.Tensor) -> torch.Tensor:
    return torch.tanh(x) * 2


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
@pytest.mark.parametrize("place", ["attribute", "closure"])
def test_relus_in_a_scripted_function_are_refused(place):
    def network(function):
        class Owns(nn.Module):
            def __init__(self):
                super().__init__()
                self.function = function

            def forward(self, x):
                return self.function(x)

        class Names(nn.Module):
            def forward(self, x):
                return function(x)

        calls = Owns() if place == "attribute" else Names()
        return sal.Model(nn.Sequential(nn.Conv2d(3, 4, 3), calls, nn.Conv2d(4, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)))

    with pytest.raises(sal.InputError, match=r"^Sequential has ReLUs in TorchScript, which cannot be replaced"):
        sal.explain("guided_backprop", network(torch.jit.script(relu_and_more)), pictures())
    sal.explain("guided_backprop", network(torch.jit.script(tanh_and_more)), pictures(), targets=1)


def test_a_name_without_a_value_yet_is_no_trouble():
    """A forward that names a variable of the function around it, which that has not set: it was a ValueError."""

    class Names(nn.Module):
        def forward(self, x):
            return x if x.ndim == 4 else later(x)

    network = sal.Model(nn.Sequential(nn.Conv2d(3, 4, 3), Names(), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)))
    sal.explain("guided_backprop", network, pictures(), targets=1)
    later = torch.flatten
