"""Other libraries' methods under our names: the same maps as theirs, seeded, and the user's model untouched."""

import copy
import importlib
import random

import numpy as np
import pytest
import torch
from layered_nets import pictures, seeded, vit
from torch import nn

import salience as sal
from salience.explainers._peers import Arguments
from salience.explainers.peers_captum import REFUSED, Captum
from salience.explainers.peers_gradcam import PytorchGradCAM
from salience.explainers.peers_zennit import Zennit

captum = pytest.importorskip("captum.attr")
pytest.importorskip("pytorch_grad_cam")
zennit = pytest.importorskip("zennit.composites")

RANDOM = ["captum:GradientShap", "captum:Lime", "captum:KernelShap", "gradcam:RandomCAM"]
GOOD = ["captum:Saliency", "captum:InputXGradient", "captum:DeepLift", "captum:DeepLiftShap", "captum:IntegratedGradients:arguments=(n_steps=5)", "captum:FeatureAblation"]
GOOD += ["captum:LRP", "captum:GuidedGradCam", "captum:LayerGradCam", "captum:LayerActivation"]
GOOD += ["gradcam:GradCAM", "gradcam:EigenCAM", "gradcam:AblationCAM", "gradcam:ScoreCAM", "gradcam:FullGrad", "gradcam:FinerCAM"]
GOOD += ["zennit:EpsilonPlus", "zennit:EpsilonGammaBox:arguments=(gamma=0.5)", "zennit:GuidedBackprop", *RANDOM]


@pytest.fixture
def photos():
    return torch.rand(2, 3, 11, 13, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", GOOD)
def test_strings_and_shapes(name, conv, photos):
    method = sal.Explainer.from_value(name)
    assert str(method) == name
    assert sal.Explainer.from_value(str(method)) == method
    hash(method)
    e = method(conv, photos, targets=1)
    assert e.method == name
    assert e.maps.shape[0] == 2
    assert e.maps.shape[1] in (1, 3)
    assert e.maps.shape[2:] == (11, 13)
    assert torch.isfinite(e.maps).all()
    assert e.stderr is None
    alone = method(conv, photos[1:], targets=1)
    torch.testing.assert_close(alone.maps, e.maps[1:], rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(method(conv, photos, targets=1, chunk=1).maps, e.maps, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", RANDOM)
def test_random_methods_are_seeded(name, conv, photos):
    method = sal.Explainer.from_value(name)
    first = method(conv, photos, targets=1, seed=3).maps
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002  # the global state must not matter
    random.seed(99)
    assert torch.equal(method(conv, photos, targets=1, seed=3).maps, first)
    assert not torch.equal(method(conv, photos, targets=1, seed=4).maps, first)


@pytest.mark.parametrize("name", [*GOOD, "captum:LRP:arguments=(verbose=true)"])
def test_nothing_of_the_users_changes(name, conv, photos):
    conv.module.train()
    for parameter in conv.parameters():
        parameter.grad = torch.ones_like(parameter)
    next(conv.module.parameters()).requires_grad_(False)
    before = copy.deepcopy(conv.state_dict())
    grads = [parameter.grad for parameter in conv.parameters()]
    wants = [parameter.requires_grad for parameter in conv.parameters()]
    modes = [module.training for module in conv.modules()]
    shown, states = photos.clone(), (torch.get_rng_state(), np.random.get_state()[1].copy())  # noqa: NPY002  # the global state is what is tested
    sal.explain(name, conv, photos, targets=1)
    assert all(torch.equal(value, before[key]) for key, value in conv.state_dict().items())
    assert all(parameter.grad is grad and bool((grad == 1).all()) for parameter, grad in zip(conv.parameters(), grads, strict=True))
    assert wants == [parameter.requires_grad for parameter in conv.parameters()]
    assert modes == [module.training for module in conv.modules()]
    assert all(not module._forward_hooks and not module._forward_pre_hooks and not module._backward_hooks for module in conv.modules())
    assert torch.equal(photos, shown)
    assert torch.equal(states[0], torch.get_rng_state())
    assert np.array_equal(states[1], np.random.get_state()[1])  # noqa: NPY002  # as above


def test_nothing_is_printed(conv, photos, capfd):
    sal.explain("gradcam:FullGrad", conv, photos)
    sal.explain("gradcam:ScoreCAM", conv, photos)
    assert capfd.readouterr() == ("", "")


class TestCaptum:
    def test_is_captums_own_map(self, conv, photos):
        conv.module.eval()
        inputs, targets = photos.clone().requires_grad_(True), torch.tensor([1, 3])
        torch.testing.assert_close(Captum("Saliency")(conv, photos, targets=[1, 3]).maps, captum.Saliency(conv).attribute(inputs, target=targets))
        baseline = conv.mean_colour[None, :, None, None].expand_as(photos).contiguous()
        mine = Captum("IntegratedGradients", arguments={"n_steps": 7, "method": "riemann_trapezoid"})(conv, photos, targets=[1, 3]).maps
        theirs = captum.IntegratedGradients(conv).attribute(inputs, baseline, target=targets, n_steps=7, method="riemann_trapezoid")
        torch.testing.assert_close(mine, theirs.detach().float(), rtol=1e-3, atol=1e-5)

    def test_the_bound_score_is_explained(self, conv, photos):
        mine = Captum("Saliency", arguments={"abs": False})(conv, photos, targets=2, score="log_probability").maps
        torch.testing.assert_close(mine, sal.Gradient()(conv, photos, targets=2, score="log_probability").maps)

    def test_a_class_is_its_name(self):
        assert str(sal.Explainer.from_value(Captum(captum.DeepLift))) == "captum:DeepLift"
        assert Captum(captum.DeepLift) == Captum("DeepLift")
        assert str(sal.SmoothGrad(base=Captum(captum.DeepLift))) == "smoothgrad:base=(captum:DeepLift)"
        nested = "noisegrad:base=(captum:IntegratedGradients:arguments=(n_steps=4,method=gausslegendre)),weight_samples=2"
        assert str(sal.Explainer.from_value(nested)) == nested

    def test_a_class_of_ones_own(self, conv, photos):
        class Doubled(captum.Saliency):
            def attribute(self, inputs, target=None, factor=2.0):
                return factor * super().attribute(inputs, target)

        method = Captum(Doubled, arguments={"factor": 3.0})
        assert method.name == "captum:Doubled"
        torch.testing.assert_close(method(conv, photos, targets=1).maps, 3 * Captum("Saliency")(conv, photos, targets=1).maps)

    def test_weight_noise_reaches_it(self, conv, photos):
        options = {"weight_samples": 3, "weight_sigma": 0.1}
        theirs = sal.NoiseGrad(base=Captum(captum.Saliency), **options)(conv, photos, targets=1).maps
        ours = sal.NoiseGrad(base=sal.Gradient(), absolute=True, **options)(conv, photos, targets=1).maps
        torch.testing.assert_close(theirs, ours, rtol=1e-3, atol=1e-6)

    def test_input_noise_around_it(self, conv, photos):
        theirs = sal.SmoothGrad(base=Captum("Saliency"), samples=4)(conv, photos, targets=1)
        ours = sal.SmoothGrad(samples=4, absolute=True)(conv, photos, targets=1)
        torch.testing.assert_close(theirs.maps, ours.maps, rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(theirs.stderr, ours.stderr, rtol=1e-3, atol=1e-6)

    def test_layer_maps_are_enlarged(self, photos):
        net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.AvgPool2d(2), nn.ReLU(), nn.Conv2d(4, 6, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))
        model = sal.Model(net)
        theirs = Captum("LayerGradCam")(model, photos, targets=1).maps
        small = captum.LayerGradCam(net, net[3]).attribute(photos, target=1).detach()
        assert small.shape[2:] == (5, 6)
        torch.testing.assert_close(theirs, nn.functional.interpolate(small, size=(11, 13), mode="bilinear"), rtol=1e-3, atol=1e-6)
        earlier = Captum("LayerGradCam", layer="0")(model, photos, targets=1).maps
        assert not torch.allclose(earlier, theirs)

    @pytest.mark.parametrize("name", ["LayerGradCam", "GuidedGradCam"])
    def test_channels_that_come_last_are_refused_where_it_sums_over_rows(self, name):
        """The map was one of stripes."""
        import timm

        swin = seeded(lambda: timm.create_model("swin_tiny_patch4_window7_224", img_size=64, window_size=2, embed_dim=12, depths=(1, 1), num_heads=(1, 1), num_classes=4))
        for net in (swin, vit(size=(64, 64))):
            with pytest.raises(
                sal.InputError, match=rf"^captum:{name} takes the second dimension of a layer for its channels, which are the last one of '.*' in .*: use gradcam or gradcam:GradCAM\.$"
            ):
                Captum(name)(sal.Model(net), pictures(2, 64, 64), targets=1)
        maps = Captum("LayerGradientXActivation")(sal.Model(swin), pictures(2, 64, 64), targets=1).maps
        torch.testing.assert_close(maps / maps.abs().max(), (found := sal.explain("gradcam:relu=false", sal.Model(swin), pictures(2, 64, 64), 1).maps) / found.abs().max(), rtol=1e-3, atol=1e-5)

    def test_occlusion_has_our_windows(self, conv, photos):
        theirs = sal.explain("captum:Occlusion:arguments=(sliding_window_shapes=(3,3,3),strides=(3,2,2))", conv, photos, targets=1).maps
        ours = sal.explain("occlusion:window=3,stride=2", conv, photos, targets=1, score="logit").maps
        torch.testing.assert_close(theirs[:, :1], ours, rtol=1e-3, atol=1e-5)

    @pytest.mark.parametrize("name", sorted(REFUSED))
    def test_refused_with_a_reason(self, name):
        with pytest.raises(sal.InputError, match=f"^captum:{name} cannot be used: it .*: use "):
            sal.Explainer.from_value(f"captum:{name}")

    def test_what_is_missing_is_named(self):
        with pytest.raises(sal.InputError, match=r"^captum:NeuronGradient needs neuron_selector: give it as arguments=\(neuron_selector=\.\.\.\)\.$"):
            Captum("NeuronGradient")

    def test_every_member_is_found_by_looking(self):
        known = Captum.members()
        assert {"Saliency", "DeepLift", "LRP", "KernelShap", "LayerGradCam"} <= set(known)
        assert not {"NoiseTunnel", "LLMAttribution", "DataLoaderAttribution"} & set(known)


class TestGradCam:
    @pytest.mark.parametrize("name", ["GradCAM", "GradCAMPlusPlus", "LayerCAM"])
    def test_nothing_goes_back_to_the_weights(self, conv, photos, monkeypatch, name):
        """PyTorch's gradients of weights in channels-last order ended the process for some networks (repvgg_a0)."""
        reached = []
        backward = torch.Tensor.backward

        def watched(tensor, *args, **kwargs):
            backward(tensor, *args, **kwargs)
            reached.append([parameter.requires_grad for parameter in copied[-1].parameters()])

        copied, deepcopy = [], copy.deepcopy
        monkeypatch.setattr(copy, "deepcopy", lambda model, *memo: (copied.append(deepcopy(model, *memo)), copied[-1])[1])
        monkeypatch.setattr(torch.Tensor, "backward", watched)
        sal.explain(f"gradcam:{name}", conv, photos, targets=1)
        assert reached
        assert not any(map(any, reached))

    def test_second_derivatives_have_their_graph(self, conv, photos):
        assert sal.explain("gradcam:ShapleyCAM", conv, photos, targets=1).maps.any()

    def test_is_our_gradcam_rescaled(self, conv, photos):
        theirs = PytorchGradCAM("GradCAM")(conv, photos, targets=1).maps
        ours = sal.explain("gradcam", conv, photos, targets=1).maps
        low, high = ours.amin((1, 2, 3), keepdim=True), ours.amax((1, 2, 3), keepdim=True)
        torch.testing.assert_close(theirs, (ours - low) / (high - low), rtol=1e-3, atol=1e-4)

    def test_an_operation_in_place_after_the_layer_corrupts_nothing(self, photos):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            layers = [nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)]
        theirs, safe = (PytorchGradCAM("GradCAM", layer="0")(sal.Model(nn.Sequential(*layers[:1], relu, *layers[2:])), photos, targets=1).maps for relu in (nn.ReLU(inplace=True), nn.ReLU()))
        torch.testing.assert_close(theirs, safe)

    def test_transformer_and_its_token_grid(self, vit):
        images = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(1))
        maps = PytorchGradCAM("EigenCAM")(vit, images, targets=1).maps
        assert maps.shape == (2, 1, 16, 24)
        assert maps.std() > 0


class TestZennit:
    def test_is_zennits_own_relevance(self, photos):
        from zennit.attribution import Gradient

        net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
        model = sal.Model(net, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), channels="BGR")
        inputs = model.normalise(photos)
        with Gradient(net, zennit.EpsilonPlus()) as attributor:
            _, theirs = attributor(inputs.clone().requires_grad_(True), torch.eye(3)[[1, 2]])
        torch.testing.assert_close(Zennit("EpsilonPlus")(model, photos, targets=[1, 2]).maps, theirs.flip(1))
        with Gradient(net, zennit.EpsilonPlus(epsilon=0.1)) as attributor:
            _, coarser = attributor(inputs.clone().requires_grad_(True), torch.eye(3)[[1, 2]])
        assert not torch.allclose(coarser, theirs)
        torch.testing.assert_close(sal.explain("zennit:EpsilonPlus:arguments=(epsilon=0.1)", model, photos, targets=[1, 2]).maps, coarser.flip(1))

    def test_outputs_in_a_dictionary(self, conv, photos):
        class Named(nn.Module):
            def __init__(self, inner):
                super().__init__()
                self.inner = inner

            def forward(self, x):
                return {"logits": self.inner(x)}

        named = sal.Model(Named(conv.module), mean=conv.mean.flatten().tolist(), std=conv.std.flatten().tolist(), value_range=conv.value_range)
        torch.testing.assert_close(Zennit("EpsilonPlus")(named, photos, targets=1).maps, Zennit("EpsilonPlus")(conv, photos, targets=1).maps)

    def test_the_box_is_that_of_the_pixels(self, conv, photos):
        """With the right bounds the box rule hands down exactly what the next layer's rule gave it, as the flat rule does."""
        box, flat = (Zennit("EpsilonGammaBox")(conv, photos, targets=1).maps, Zennit("EpsilonPlusFlat")(conv, photos, targets=1).maps)
        assert box.shape == flat.shape
        assert not torch.allclose(box, flat)


def test_unknown_names_offer_the_nearest():
    with pytest.raises(sal.InputError, match=r"^Unknown captum method 'DeepLft': did you mean DeepLift"):
        sal.Explainer.from_value("captum:DeepLft")
    with pytest.raises(sal.InputError, match=r"^Unknown gradcam method 'EigenCam': did you mean EigenCAM"):
        PytorchGradCAM("EigenCam")
    with pytest.raises(sal.InputError, match=r"^Unknown zennit method 'EpsilonPlu': did you mean EpsilonPlus"):
        Zennit("EpsilonPlu")
    with pytest.raises(sal.InputError, match=r"^Unknown argument of captum:IntegratedGradients: 'steps': did you mean n_steps\?$"):
        sal.Explainer.from_value("captum:IntegratedGradients:arguments=(steps=3)")
    for text in ("captum:Saliency:arguments=(inputs=1)", "gradcam:GradCAM:arguments=(model=1)"):
        with pytest.raises(sal.InputError, match=r"^Unknown argument of .*: '(inputs|model)'"):
            sal.Explainer.from_value(text)
    with pytest.raises(sal.InputError, match=r"^Another library's method is given by its name or its class, not as Saliency: put options into arguments\.$"):
        Captum(captum.Saliency(lambda x: x))


@pytest.mark.parametrize(("family", "package"), [("captum:Saliency", "captum"), ("gradcam:GradCAM", "grad-cam"), ("zennit:EpsilonPlus", "zennit")])
def test_a_missing_package_is_named(family, package, monkeypatch):
    real = importlib.import_module

    def absent(name, *args):
        if name.split(".")[0] in ("captum", "pytorch_grad_cam", "zennit"):
            raise ImportError(name)
        return real(name, *args)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(sal.InputError, match=rf"needs the package {package}: pip install '{package}'"):
        sal.Explainer.from_value(family)


def test_black_box_and_failure_are_one_sentence(photos):
    black = sal.BlackBox(lambda x: x.mean((2, 3)).softmax(1), name="box")
    for name in ("captum:Saliency", "gradcam:GradCAM", "zennit:EpsilonPlus"):
        with pytest.raises(sal.InputError, match="box is a black box"):
            sal.explain(name, black, photos)

    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Conv2d(3, 4, 3)
            self.odd = nn.Hardswish()

        def forward(self, x):
            return self.odd(self.body(x)).mean((2, 3))

    model = sal.Model(Odd())
    with pytest.raises(sal.InputError, match=r"^captum:LRP cannot explain Odd \(.*\): choose another method, or set its arguments\.$"):
        sal.explain("captum:LRP", model, photos)
    assert all(not module._forward_hooks for module in model.modules())

    def mine(outputs, targets):
        return outputs[:, 0]

    with pytest.raises(sal.InputError, match=r"^captum:Saliency explains a score that has a name, not mine: use score='logit' or 'probability'\.$"):
        sal.explain("captum:Saliency", model, photos, score=mine)


@pytest.mark.parametrize("text", ["(n_steps=20,method=gausslegendre)", "(a=true,b=none,c=(1,2),d=-0.5,e='two words',f=(one,),g=(1,(2,true)))", "()"])
def test_arguments_print_as_they_are_read(text):
    read = Arguments.from_value(text[1:-1])
    assert Arguments.from_value(str(read)[1:-1]) == read


def test_arguments_that_cannot_be_read():
    with pytest.raises(sal.InputError, match=r"^arguments are written \(key=value,key=value\)"):
        Arguments.from_value("n_steps")
    with pytest.raises(sal.InputError, match=r"^arguments are written \(key=value,key=value\)"):
        Arguments.from_value("n_steps=print(1)")
