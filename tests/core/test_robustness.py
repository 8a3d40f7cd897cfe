"""Pairs of maps of clean and perturbed images: what the draws do, on networks where the answer is known."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import salience as sal
from salience.core.draws import streams
from salience.core.errors import InputError
from salience.core.explainer import Explainer
from salience.core.robustness import compared, hides, scaled, seen_through
from salience.perturbations.brightness import Brightness
from salience.perturbations.gaussian_noise import GaussianNoise
from salience.perturbations.horizontal_flip import HorizontalFlip
from salience.perturbations.rotation import Rotation
from salience.perturbations.translation import Translation

FLIP = HorizontalFlip()
FEW = {
    "rise": "rise:samples=40,grid=3",
    "rise, original": "rise:samples=60,grid=3,estimator=original",
    "smoothgrad": "smoothgrad:samples=4",
    "smoothgrad of gradcam": "smoothgrad:samples=4,base=(gradcam)",
    "smoothgrad of rise": "smoothgrad:samples=2,base=(rise:samples=20,grid=3,estimator=original)",
    "uniformgrad of guided_backprop": "uniformgrad:samples=4,base=(guided_backprop)",
    "vargrad of integrated_gradients": "vargrad:samples=3,base=(integrated_gradients:steps=3)",
    "noisegrad": "noisegrad:weight_samples=4,weight_sigma=0.1",
    "noisegrad of occlusion": "noisegrad:weight_samples=3,weight_sigma=0.1,base=(occlusion)",
    "fusiongrad": "fusiongrad:weight_samples=3,samples=2,weight_sigma=0.1",
    "gradient_shap": "gradient_shap:samples=4",
    "lime": "lime:samples=40",
    "random": "random",
}


class Symmetric(nn.Conv2d):
    """A convolution whose kernel is made symmetric left to right in use, so under noise in the weights too."""

    def forward(self, x):
        return F.conv2d(x, (self.weight + self.weight.flip(-1)) / 2, self.bias, padding=self.padding)


@pytest.fixture
def invariant():
    """A network that gives a flipped image the same scores, exactly but for rounding; its layers flip along."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(Symmetric(3, 6, 3, padding=1), nn.ReLU(), Symmetric(6, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
        nn.init.normal_(net[-1].weight, 0, 3.0)
    return sal.Model(net, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3), name="invariant")


@pytest.fixture
def pictures():
    return torch.rand(2, 3, 11, 14, generator=torch.Generator().manual_seed(2))


def pair(method, model, images, perturbation, variant="common", targets=None, seed=(3, 4), **more):
    return compared(Explainer.from_value(method), model, images, targets, streams(list(seed), len(images)), perturbation, variant, **more)


@pytest.mark.parametrize("method", FEW.values(), ids=FEW)
def test_on_a_flip_invariant_network_carried_draws_leave_no_noise(method, invariant, pictures):
    """The promise of ``common``: what is left is the method's own sensitivity, here none. Fresh draws leave the noise floor."""
    common, fresh, floor, as_is = (pair(method, invariant, pictures, FLIP, variant) for variant in ("common", "fresh", "floor", "as_is"))
    rounding = 1e-4 if method in (FEW["rise"], FEW["lime"]) else 1e-5  # what they fit to the scores magnifies their rounding
    assert torch.allclose(common.clean, common.perturbed, atol=rounding)
    assert common.clean.amin() == 0
    assert common.clean.amax() == 1
    assert (fresh.clean - fresh.perturbed).abs().amax() > 0.02
    assert torch.allclose(fresh.perturbed, floor.perturbed, atol=rounding)
    assert torch.equal(fresh.clean, floor.clean)
    if method != "random":  # the control's map is the draw itself: as it is, it stays
        assert (as_is.clean - as_is.perturbed).abs().amax() > 0.02
    assert not torch.cat([each.prediction_changed for each in (common, fresh, floor, as_is)]).any()


class Before(nn.Module):
    """A change of the image before a network, whose parameters keep their names' order."""

    def __init__(self, change, net):
        super().__init__()
        self.change, self.net = change, net

    def forward(self, x):
        return self.net(self.change(x))


@pytest.mark.parametrize("name", ["rise", "smoothgrad", "noisegrad", "fusiongrad", "gradient_shap", "smoothgrad of rise"])
def test_same_as_explaining_a_network_that_flips(name, conv, pictures):
    """On any network: the map of z -> f(flip z), a module of its own, made by a call of the library."""
    own = sal.Model(Before(lambda x: x.flip(-1), conv.module), mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
    found = pair(FEW[name], conv, pictures, FLIP, targets=torch.tensor([2, 1]))
    clean, other = (sal.explain(FEW[name], model, pictures, [2, 1], seed=[3, 4]).maps for model in (conv, own))
    for raw, expected in zip(found.raw, (clean, other), strict=True):
        expected = expected[:, 0] if expected.shape[1] == 1 else expected.abs().sum(1)
        assert torch.allclose(raw, expected, atol=1e-5 * float(expected.abs().max()))


def test_same_as_a_loop_over_noise_for_maps_of_layers(conv, pictures):
    """SmoothGrad of Grad-CAM: the noisy image is flipped, explained, and the map flipped back."""
    sources, targets = streams([3, 4], 2), torch.tensor([2, 1])
    spread = pictures.flatten(1).amax(1) - pictures.flatten(1).amin(1)
    total = torch.zeros(2, 11, 14)
    for i in range(4):
        noise = torch.stack([source.normal((3, 11, 14), "input noise", i) for source in sources])
        noisy = (pictures + 0.2 * spread[:, None, None, None] * noise).flip(-1)
        with torch.inference_mode(False), conv.frozen():
            total += Explainer.from_value("gradcam").attribute(conv, noisy, targets, sources).maps.flip(-1)[:, 0] / 4
    assert torch.allclose(pair("smoothgrad:samples=4,base=(gradcam)", conv, pictures, FLIP, targets=targets).raw[1], total, atol=1e-5)


def test_as_is_is_the_map_of_the_perturbed_image(conv, pictures):
    for perturbation in (FLIP, Brightness(), Translation()):
        found = pair("rise:samples=20,grid=3,estimator=original", conv, pictures, perturbation, "as_is", targets=torch.tensor([2, 1]))
        expected = sal.explain("rise:samples=20,grid=3,estimator=original", conv, perturbation(pictures), [2, 1], seed=[3, 4]).maps
        assert torch.equal(found.raw[1], expected[:, 0])
        assert found.visible.all()


def test_changes_of_colour_have_the_same_draws(conv, pictures):
    for perturbation in (Brightness(factor=1.0), GaussianNoise(sigma=0)):
        common, fresh = (pair("rise:samples=20,grid=3,estimator=original", conv, pictures, perturbation, variant) for variant in ("common", "fresh"))
        assert torch.equal(common.clean, common.perturbed)
        assert (fresh.clean - fresh.perturbed).abs().amax() > 0.02
    noisy = pair("gradient", conv, pictures, GaussianNoise())
    expected = sal.explain("gradient", conv, GaussianNoise()(pictures, seed=[3, 4]), sal.explain("gradient", conv, pictures).targets).saliency("abs_sum")
    assert torch.allclose(noisy.raw[1], expected, rtol=1e-5)


def test_a_function_is_not_taken_for_the_method_of_its_name(conv, pictures):
    """Its map is moved back, as that of any function; the control ``random`` draws, so its draws are carried along."""

    def random(model, images, targets):
        return torch.arange(14.0).expand(len(images), 11, 14)

    found = pair(random, conv, pictures, FLIP)
    assert torch.equal(found.raw[1], found.raw[0].flip(-1))


def test_the_floor_of_a_deterministic_method_is_none(conv, pictures):
    found = pair("gradient", conv, pictures, FLIP, "floor")
    assert torch.equal(found.clean, found.perturbed)


class Halves(nn.Module):
    """Two classes: the brightness of the left half and of the right."""

    def forward(self, x):
        return torch.stack([x[..., : x.shape[-1] // 2].mean((1, 2, 3)), x[..., x.shape[-1] // 2 :].mean((1, 2, 3))], 1)


def test_targets_and_changed_predictions():
    images = torch.full((2, 3, 6, 8), 0.5)
    images[0, ..., :4] = 0.9
    images[1, ..., 1:7] = 0.9
    images[1, 0, 0, 0] = 1.0
    model = sal.Model(Halves())
    found = pair("gradient", model, images, FLIP)
    assert found.prediction_changed.tolist() == [True, True]
    assert not pair("gradient", model, images, FLIP, "floor").prediction_changed.any()
    left = found.raw[0][0, :, :4].sum() / found.raw[0][0].sum()
    assert left == 1  # the target is the clean prediction, also for the flipped image
    assert torch.equal(found.perturbed, found.clean.flip(-1))
    given = pair("gradient", model, images, FLIP, targets=torch.tensor([1, 1]))
    assert given.raw[0][0, :, :4].sum() == 0
    assert pair("gradient", model, images, Brightness(factor=0.9)).prediction_changed.tolist() == [False, False]


def test_pixels_out_of_view_are_left_out(conv, pictures):
    for method in ("gradient", "rise:samples=20,grid=3,estimator=original"):
        found = pair(method, conv, pictures, Translation(right=0.2))
        assert found.visible.sum() == 11 * 11
        for maps in (found.clean, found.perturbed):
            assert (maps[:, ~found.visible] == 0).all()
            assert torch.equal(maps[:, found.visible].amax(1), torch.ones(2))
            assert torch.equal(maps[:, found.visible].amin(1), torch.zeros(2))
    with pytest.raises(InputError, match=r"^rotation:degrees=45.0 leaves no pixel of an image of 2 x 2 in view: choose a smaller change.$"):
        pair("gradient", conv, pictures[..., :2, :2], Rotation(degrees=45))


def test_the_floor_of_what_stays_in_view(conv, pictures):
    """The same picture twice, set beside a pair of a moved one: the same pixels, scaled over them."""
    moved = Translation(right=0.2)
    floor, fresh = pair("random", conv, pictures, moved, "floor"), pair("random", conv, pictures, moved, "fresh")
    assert floor.visible.all()
    seen = floor.under(moved)
    assert torch.equal(seen.visible, fresh.visible)
    assert torch.equal(seen.clean, fresh.clean)
    assert seen.raw[0] is floor.raw[0]
    with pytest.raises(InputError, match=r"^rotation:degrees=45.0 leaves no pixel of an image of 2 x 2 in view: choose a smaller change.$"):
        pair("gradient", conv, pictures[..., :2, :2], FLIP, "floor").under(Rotation(degrees=45))


def test_what_moves_pixels_out_of_view():
    hiding = (Translation(), Translation(right=0, down=-0.1), Rotation(), Rotation(degrees=90))
    assert [hides(each) for each in (*hiding, Translation(right=0), Rotation(degrees=0), FLIP, Brightness())] == [True] * 4 + [False] * 4


def test_scaling():
    maps = torch.stack([torch.full((3, 4), 7.0), torch.arange(12.0).view(3, 4) - 5])
    found = scaled(maps)
    assert (found[0] == 0).all()
    assert torch.allclose(found[1], torch.arange(12.0).view(3, 4) / 11)


def test_any_batch_any_chunk_and_maps_at_hand(conv, pictures):
    method, targets = "smoothgrad:samples=5", torch.tensor([2, 1])
    whole = pair(method, conv, pictures, FLIP, targets=targets)
    small = pair(method, conv.using(chunk=1), pictures, FLIP, targets=targets)
    alone = pair(method, conv, pictures[1:], FLIP, targets=targets[1:], seed=(4,))
    given = pair(method, conv, pictures, FLIP, targets=targets, clean=sal.explain(method, conv, pictures, [2, 1], seed=[3, 4]).maps)
    for other, which in ((small, slice(None)), (alone, slice(1, 2)), (given, slice(None))):
        assert torch.allclose(whole.clean[which], other.clean, atol=1e-5)
        assert torch.allclose(whole.perturbed[which], other.perturbed, atol=1e-5)


def test_nothing_of_the_users_changes(conv, pictures):
    conv.train()
    attributes, before = set(vars(conv)), {key: value.clone() for key, value in conv.state_dict().items()}
    images, expected = pictures.clone(), conv.using().outputs
    for method in ("noisegrad:weight_samples=2,weight_sigma=0.1", "rise:samples=10", "smoothgrad:samples=2,base=(gradcam)"):
        pair(method, conv, pictures, FLIP)
    assert set(vars(conv)) == attributes
    assert all(module.training for module in conv.modules())
    assert all(torch.equal(value, before[key]) for key, value in conv.state_dict().items())
    assert torch.equal(images, pictures)
    assert expected.__func__ is type(conv).outputs
    assert not any(module._forward_hooks for module in conv.modules())


def test_black_boxes_and_functions_of_the_user(conv, pictures):
    with conv.frozen():
        box = sal.BlackBox(lambda x: conv(x).softmax(1).detach(), name="box")
        flipped = sal.BlackBox(lambda x: conv(x.flip(-1)).softmax(1).detach())
        found = pair("rise:samples=20,grid=3,estimator=original", box, pictures, FLIP, targets=torch.tensor([2, 1]))
        assert torch.allclose(found.raw[1], sal.explain("rise:samples=20,grid=3,estimator=original", flipped, pictures, [2, 1], seed=[3, 4]).maps[:, 0], atol=1e-6)
        assert torch.allclose(seen_through(box, FLIP).outputs(pictures), flipped.outputs(pictures))

        def brightness(model, images, targets):
            return images.mean(1)

        own = pair(brightness, box, pictures, FLIP)
        assert torch.allclose(own.clean, own.perturbed)


@pytest.mark.parametrize("perturbation", [Translation(right=0.3), Rotation(degrees=20)], ids=str)
def test_what_a_perturbation_repeats_of_the_edge_is_not_added_up_there(perturbation, pictures):
    """The score is the sum of all pixels: each pixel in view counts once, also those at the edge, as gradient_shap has it."""
    model = sal.Model(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), name="sum")
    inputs = pictures.clone().requires_grad_(True)
    seen_through(model, perturbation)._forward(inputs)[:, 0].sum().backward()
    gradient, usual = inputs.grad[:, 0], 1 / (11 * 14)
    assert gradient.max() < 1.6 * usual  # bilinear weights of a turned picture add up to a little more than 1 in places
    if isinstance(perturbation, Translation):
        assert torch.allclose(gradient[..., :-4], torch.tensor(usual))
        assert not gradient[..., -4:].any()
