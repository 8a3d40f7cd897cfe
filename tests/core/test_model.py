"""One space, checked outputs, small chunks; the user's network stays as it was."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

import salience as sal
from salience.core.classifier import MOST_AT_ONCE, PIXELS_AT_ONCE, class_names
from salience.core.device import check_precision


class Mean(nn.Module):
    """Scores are the channel means of what the network is given."""

    def forward(self, x):
        return x.mean((2, 3))


def test_normalisation_in_the_networks_units_and_order():
    image = torch.tensor([0.2, 0.5, 0.9]).view(1, 3, 1, 1).expand(1, 3, 4, 6)
    model = sal.Model(Mean(), mean=(104, 117, 123), std=(1, 2, 4), channels="BGR", value_range=255)
    expected = [0.9 * 255 - 104, (0.5 * 255 - 117) / 2, (0.2 * 255 - 123) / 4]
    assert model(image)[0].tolist() == pytest.approx(expected, abs=1e-3)
    assert model.mean_colour.tolist() == pytest.approx([123 / 255, 117 / 255, 104 / 255])


def test_gradient_is_in_pixel_space():
    model = sal.Model(Mean(), mean=(0.5,) * 3, std=(0.1, 0.2, 0.4))
    gradient = model.gradient(torch.rand(2, 3, 4, 5), torch.tensor([0, 2]))
    assert gradient[0, 0].unique().item() == pytest.approx(1 / 20 / 0.1)
    assert gradient[1, 2].unique().item() == pytest.approx(1 / 20 / 0.4)
    assert gradient[0, 1:].abs().max() == 0


@pytest.mark.parametrize("score", ["logit", "probability", "log_probability", "sigmoid", lambda outputs, targets: outputs.square().sum(1)])
def test_gradient_of_every_score(conv, photos, score):
    conv.module.double()
    conv.double()
    images, targets, step = photos.double(), torch.tensor([1, 3]), 1e-5
    with conv.frozen():
        gradient = conv.gradient(images, targets, score)
        moved = images.clone()
        moved[:, 1, 2, 3] += step
        named = conv.named_score(score)
        with torch.no_grad():
            difference = named.of(conv.module(conv.normalise(moved)), targets) - named.of(conv.module(conv.normalise(images)), targets)
    assert torch.allclose(gradient[:, 1, 2, 3], difference / step, rtol=1e-3, atol=1e-7)


def test_outputs_do_not_depend_on_the_chunk(conv, photos):
    many = photos.repeat(5, 1, 1, 1)
    with conv.frozen():
        whole = conv.outputs(many)
        for chunk in (1, 3, 100):
            assert torch.allclose(conv.using(chunk=chunk).outputs(many), whole, atol=1e-5)


@pytest.mark.parametrize(("images", "chunk", "sizes"), [(8, 6, [4, 4]), (13, 6, [4, 4, 5]), (6, 6, [6]), (0, 6, []), (3, 1, [1, 1, 1])])
def test_chunks_of_a_batch_are_of_equal_size_but_for_one_image(conv, images, chunk, sizes):
    """A pass of one or two images costs much more for each."""
    parts = list(conv.using(chunk=chunk).chunks(torch.zeros(images, 3, 4, 4)))
    assert [part.stop - part.start for part in parts] == sizes
    assert [place for part in parts for place in range(images)[part]] == list(range(images))


def test_chunks_shrink_with_the_image():
    model = sal.Model(Mean())
    assert model.images_at_once((224, 224)) == 12
    assert model.images_at_once((224, 224), gradients=False) == 24
    assert model.using(precision="bfloat16").images_at_once((224, 224)) == 24
    assert model.using(chunk=3).images_at_once((224, 224), gradients=False) == 3
    assert model.images_at_once((1000, 1000)) == 1
    assert model.images_at_once((8, 8)) == MOST_AT_ONCE


@pytest.mark.parametrize(
    ("method", "most"), [("rise:samples=40", 8), ("lime:samples=40,segmentation=grid", 8), ("occlusion:window=2,stride=1", 8), ("cam", 8), ("smoothgrad:samples=40", 4), ("integrated_gradients", 4)]
)
def test_passes_without_a_way_back_take_twice_as_many_images(conv, monkeypatch, method, most):
    monkeypatch.setitem(PIXELS_AT_ONCE, "cpu", 4 * 12 * 12)
    sizes = []
    handle = conv.module.first.register_forward_hook(lambda module, args, output: sizes.append(len(output)))
    sal.explain(method, conv, torch.rand(8, 3, 12, 12))
    handle.remove()
    assert max(sizes[1:]) == most  # the first pass is that of the prediction


def test_outputs_and_gradients_are_those_of_evaluation_mode_whatever_the_networks_own(conv, photos):
    conv.eval()
    targets, expected = torch.tensor([1, 3]), conv.outputs(photos)
    gradient = conv.gradient(photos, targets)
    conv.train()
    before = {name: value.clone() for name, value in conv.state_dict().items()}
    assert torch.equal(conv.outputs(photos), expected)
    assert torch.equal(conv.gradient(photos, targets), gradient)
    assert all(module.training for module in conv.modules())
    assert all(torch.equal(value, before[name]) for name, value in conv.state_dict().items())


def test_frozen_restores_every_module_even_after_an_exception(conv):
    conv.module.train()
    conv.module.norm.eval()
    before = [module.training for module in conv.modules()]
    inside = []
    with pytest.raises(KeyError), conv.frozen():
        raise KeyError(inside.extend(module.training for module in conv.module.modules()))
    assert not any(inside)
    assert before == [module.training for module in conv.modules()]


def test_a_view_shares_the_network_but_not_the_settings(conv):
    view = conv.using(chunk=3)
    assert view.module is conv.module
    assert (view.chunk, conv.chunk) == (3, None)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda x: x.mean((1, 2, 3)), r"odd returned \(2,\) for 2 images: a classifier must return one row of scores per image, shape \(2, classes\)\."),
        (lambda x: x.mean((2, 3))[:1], r"odd returned \(1, 3\) for 2 images: a classifier must return one row of scores per image, shape \(2, classes\)\."),
        (lambda x: x.mean((2, 3)) * float("nan"), r"odd returned NaN or infinite scores: check its weights, and that it takes images in \[0, 1\] with the given mean and std\."),
    ],
)
def test_unfit_outputs(result, message):
    class Odd(nn.Module):
        def forward(self, x):
            return result(x)

    with pytest.raises(sal.InputError, match=message):
        sal.explain("gradient", sal.Model(Odd(), name="odd"), torch.rand(2, 3, 4, 4))


def test_a_network_that_detaches_is_refused():
    class Detached(nn.Module):
        def forward(self, x):
            return x.detach().mean((2, 3))

    with pytest.raises(sal.InputError, match=r"The outputs of net do not depend differentiably on the image: it works under no_grad, detaches, or is quantised; use rise, occlusion or lime\."):
        sal.explain("gradient", sal.Model(Detached(), name="net"), torch.rand(1, 3, 4, 4))


def test_black_boxes_of_numpy_and_of_logits():
    box = sal.BlackBox(lambda x: np.asarray(x.mean((2, 3))), outputs="logits")
    assert box.outputs(torch.ones(1, 3, 2, 2)).tolist() == [[1, 1, 1]]
    with pytest.raises(sal.InputError, match=r"f returned scores outside \[0, 1\], so they are not probabilities: say BlackBox\(fn, outputs='logits'\)\."):
        sal.BlackBox(lambda x: x.mean((2, 3)) * 9, name="f").outputs(torch.ones(1, 3, 2, 2))


def test_a_black_box_takes_the_mean_colour_of_a_model(conv):
    assert torch.equal(sal.BlackBox(conv.outputs, mean_colour=conv.mean_colour).mean_colour, conv.mean_colour)


def test_a_black_box_cannot_change_the_images():
    def spoil(x):
        x.zero_()
        return x.mean((2, 3))

    images = torch.ones(1, 3, 2, 2)
    sal.BlackBox(spoil).outputs(images)
    assert images.min() == 1


def test_bfloat16_agrees_roughly(conv, photos):
    precise = sal.explain("gradient", conv, photos, targets=1)
    conv.precision = "bfloat16"
    rough = sal.explain("gradient", conv, photos, targets=1)
    assert 0 < (rough.maps - precise.maps).norm() / precise.maps.norm() < 0.2


def test_works_inside_inference_mode_and_no_grad(conv, photos):
    expected = sal.explain("gradient", conv, photos).maps
    with torch.no_grad():
        assert torch.equal(sal.explain("gradient", conv, photos).maps, expected)
    with torch.inference_mode():
        assert torch.equal(sal.explain("gradient", conv, photos + 0).maps, expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: sal.Model("resnet"), r"Model needs an nn\.Module, not str: wrap a function with sal\.BlackBox\(fn\)\."),
        (lambda: sal.Model(Mean(), mean=(1, 2)), r"mean and std need 3 numbers each \(or one for all\) for channels='RGB', and std must be positive\."),
        (lambda: sal.Model(Mean(), mean=(123, 117, 104)), r"mean \(123, 117, 104\) does not go with value_range=1: both are in the network's own units; .*"),
        (lambda: sal.Model(Mean(), mean=0.5, value_range=255), r"mean \(0\.5, 0\.5, 0\.5\) does not go with value_range=255: .*"),
        (lambda: sal.Model(Mean(), channels="GBR"), r"Unknown channel order 'GBR': did you mean .*\?"),
        (lambda: sal.BlackBox(abs, mean_colour=0.5), r"mean_colour is one number in \[0, 1\] for each channel, such as \(0\.5, 0\.5, 0\.5\), not 0\.5\."),
        (lambda: sal.BlackBox(abs, mean_colour=(128, 128, 128)), r"mean_colour is one number in \[0, 1\] for each channel, such as \(0\.5, 0\.5, 0\.5\), not \(128, 128, 128\)\."),
        (lambda: sal.BlackBox(3), r"BlackBox needs a function from images to scores, not int\."),
    ],
)
def test_bad_models(make, message):
    with pytest.raises(sal.InputError, match=message):
        make()


def test_models_print_their_preprocessing():
    said = repr(sal.Model(Mean(), mean=(104, 117, 123), channels="BGR", value_range=255, size=8, labels=["cat", "dog"], name="mean"))
    assert said.splitlines()[1:3] == [
        "  name='mean', size=(8, 8), fit='crop', outputs='logits', labels=('cat', ... 2 in all)",
        "  mean=[104.0, 117.0, 123.0], std=[1.0, 1.0, 1.0], channels='BGR', value_range=255, precision='float32'",
    ]
    assert repr(sal.BlackBox(len, outputs="multilabel")) == "BlackBox(name='len', size=None, fit='crop', outputs='multilabel', labels=None)"


def test_threads_take_turns():
    """One call put noise into the weights or changed modes while another looked at the network: maps were wrong, and the network stayed changed."""
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)).train()
    model, images = sal.Model(net), torch.rand(2, 3, 16, 16)
    methods = ("gradient", "smoothgrad:samples=4", "noisegrad:weight_samples=4,weight_sigma=0.01", "fusiongrad:weight_samples=2,samples=2,weight_sigma=0.01")
    before = model.weights_hash()
    expected = [sal.explain(method, model, images) for method in methods]
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda method: sal.explain(method, model, images), methods * 20))
    for e, wanted in zip(made, expected * 20, strict=True):
        assert torch.equal(e.maps, wanted.maps)
        assert e.record["model"] == wanted.record["model"]
    assert model.weights_hash() == before
    assert all(module.training for module in net.modules())


def test_class_names_by_index_may_have_gaps():
    """As many as there were names were kept, so that the last ones were lost."""
    assert class_names({0: "cat", 5: "dog"}) == ["cat", "class 1", "class 2", "class 3", "class 4", "dog"]
    assert class_names({"1": "dog", "0": "cat"}) == ["cat", "dog"]
    assert class_names({}) == []
    with pytest.raises(sal.InputError, match=r"^labels by index has whole numbers from 0 as keys, not 'cat'\.$"):
        class_names({"cat": "cat"})


def test_batch_norm_of_the_batch_is_warned_of():
    """Without running statistics the scores of an image depend on those that pass with it, and no map could be independent of the batching."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.warns(
        UserWarning, match=r"^Sequential normalises by the images that pass together \(batch norm without running statistics\), so its maps depend on them: use chunk=1 and single images\.$"
    ):
        sal.Model(net)


class TestPrecision:
    @pytest.mark.filterwarnings("error")
    @pytest.mark.parametrize("make", [lambda: sal.Model(Mean(), precision="bfloat16"), lambda: sal.load_model("cmnist-lenet", precision="bfloat16")])
    def test_bfloat16_without_instructions_for_it_is_warned_of(self, make, monkeypatch):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
        with pytest.warns(UserWarning, match=r"^This processor has no instructions for bfloat16 \(it has AVX2\), so passes take several times longer than in float32: leave precision at float32\.$"):
            make()
        for capability in ("AVX512", "DEFAULT", "SVE256"):  # DEFAULT: processors that are not of this family, where torch does not tell
            monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda found=capability: found)
            make()

    @pytest.mark.filterwarnings("error")
    def test_a_gpu_is_not_the_processor(self, monkeypatch):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
        check_precision("bfloat16", "cuda")
        check_precision("float32")
