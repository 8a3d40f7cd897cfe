"""Networks as people write them: they work, or one sentence says what to do."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune
from torch.utils.checkpoint import checkpoint

import salience as sal
from salience.core.quick import TOP_HOOKS

OLD = "this torch does not tell who keeps tensors for the backward pass"


class Flattening(nn.Module):
    """Flattens its maps by `view`, as tutorials do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Linear(6 * 8 * 8, 4)

    def forward(self, x):
        x = nn.functional.max_pool2d(torch.relu(self.norm(self.conv(x))), 2)
        return self.head(x.view(x.size(0), -1))


class Checkpointed(Flattening):
    """Makes its activations anew in the backward pass."""

    def forward(self, x):
        x = checkpoint(lambda x: torch.relu(self.norm(self.conv(x))), x, use_reentrant=False)
        return self.head(nn.functional.max_pool2d(x, 2).flatten(1))


@pytest.fixture
def images():
    return torch.rand(3, 3, 16, 16)


@pytest.mark.parametrize("kind", [Flattening, pytest.param(Checkpointed, marks=pytest.mark.skipif(TOP_HOOKS is None, reason=OLD))])
def test_they_work_and_give_torchs_gradient(kind, images):
    module = kind()
    module.norm.running_var.uniform_(0.5, 2)
    module.eval()
    inputs = images.clone().requires_grad_(True)
    outputs = module(inputs)
    (expected,) = torch.autograd.grad(outputs[:, 2].sum(), inputs)
    model = sal.Model(module)
    assert torch.allclose(sal.explain("gradient", model, images, 2).maps, expected, atol=1e-5)
    assert torch.allclose(model.outputs(images), outputs, atol=1e-5)
    for method in ("rise:samples=4", "gradcam", "noisegrad:weight_samples=2,weight_sigma=0.1", "smoothgrad:samples=2"):
        assert torch.isfinite(sal.explain(method, model, images).maps).all()
    for method in ("lrp", "beta_smoothing", "guided_backprop", "excitation_backprop"):
        if kind is Flattening:
            assert torch.isfinite(sal.explain(method, model, images).maps).all()
        else:
            with pytest.raises(sal.InputError, match=r"activation checkpointing\), which this method cannot follow: switch checkpointing off in the network\.$"):
                sal.explain(method, model, images)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_network_of_another_precision(dtype, images):
    module = Flattening().eval()
    expected = sal.explain("gradient", sal.Model(module), images, 1).maps
    found = sal.explain("gradient", sal.Model(module.to(dtype)), images, 1).maps
    assert found.dtype == torch.float32
    assert (found - expected).norm() < (1e-5 if dtype == torch.float64 else 0.2) * expected.norm()


def test_a_black_box_that_is_a_network_in_training_mode(images):
    module = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.5), nn.Flatten(), nn.Linear(768, 4))
    model = sal.BlackBox(module, outputs="logits")
    maps = [sal.explain("rise:samples=10", model, images, 1).maps for _ in range(2)]
    assert torch.equal(*maps)
    assert module.training
    assert not module[0].running_mean.any()


@pytest.mark.parametrize("returned", [None, {"scores": 1}, np.array(["a", "b"]), [[1.0], [1.0, 2.0], [3.0]], "text"])
def test_a_black_box_that_returns_something_else(returned, images):
    with pytest.raises(sal.InputError, match=r"returned .* for 3 images: a classifier must return one row of scores per image"):
        sal.explain("rise:samples=2", sal.BlackBox(lambda _: returned), images, 0)


def test_preprocessing_in_any_form():
    module = Flattening()
    expected = sal.Model(module, mean=(0.5, 0.5, 0.5), std=(0.2, 0.3, 0.4), size=(8, 8))
    for mean, std, size in [(0.5, np.array([0.2, 0.3, 0.4]), 8), (torch.full((3,), 0.5), [0.2, 0.3, 0.4], np.int64(8)), ([0.5], (0.2, 0.3, 0.4), 8.0)]:
        model = sal.Model(module, mean=mean, std=std, size=size)
        assert torch.equal(model.mean, expected.mean)
        assert torch.equal(model.std, expected.std)
        assert model.size == (8, 8)
    for wrong in ({"mean": (0.5, 0.5)}, {"std": 0}, {"mean": "grey"}, {"size": (3, 224, 224)}, {"size": 0}, {"size": 7.5}, {"value_range": 0}, {"labels": "cat"}):
        with pytest.raises(sal.InputError):
            sal.Model(module, **wrong)


def test_targets_and_class_names_in_any_form(images):
    model = sal.Model(Flattening(), labels={0: "ant", "1": "bee", 2: "cat", 3: "dog"})
    expected = sal.explain("gradient", model, images, 2).maps
    for target in ("2", "Cat", 2.0, np.int64(2), np.array(2), np.array([2, 2, 2]), torch.tensor([2, 2, 2]), ["cat", 2, "2"]):
        assert torch.equal(sal.explain("gradient", model, images, target).maps, expected)
    for target in ("--2", "²", "3.0", 3.5, True, b"2", 4, -1, [1, 2]):
        with pytest.raises(sal.InputError):
            sal.explain("gradient", model, images, target)
    many = sal.Model(Flattening(), labels=[f"name {number}" for number in range(9)])
    with pytest.raises(sal.InputError, match=r"^Flattening has 4 classes but 9 names, so names and classes do not go together: give one name a class, in index order\.$"):
        sal.explain("gradient", many, images)


class Wrapping(nn.Module):
    """Returns its scores in something else."""

    def __init__(self, wrap) -> None:
        super().__init__()
        self.inner, self.wrap = Flattening(), wrap

    def forward(self, x):
        return self.wrap(self.inner(x))


def test_scores_in_a_dictionary_or_an_object_are_found(images):
    module = Wrapping(lambda scores: scores).eval()
    expected = sal.explain("gradient", sal.Model(module), images, 1).maps
    for wrap in (lambda scores: {"features": scores * 2, "logits": scores}, lambda scores: type("Output", (), {"logits": scores})):
        module.wrap = wrap
        assert torch.equal(sal.explain("gradient", sal.Model(module), images, 1).maps, expected)
    for wrap, kind in ((lambda scores: (scores, scores), "tuple"), (lambda scores: {"scores": scores}, "dict")):
        module.wrap = wrap
        with pytest.raises(sal.InputError, match=rf"^Wrapping returned {kind} for 3 images: .*\(3, classes\): wrap it in a module or a function that returns its scores alone\.$"):
            sal.explain("gradient", sal.Model(module), images, 1)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor", "ignore:quantized", "ignore::DeprecationWarning")
def test_a_quantised_network_is_explained_without_gradients(images):
    if "fbgemm" not in torch.backends.quantized.supported_engines and "onednn" not in torch.backends.quantized.supported_engines:
        pytest.skip("torch was built without quantised layers for this machine")
    module = torch.ao.quantization.quantize_dynamic(Flattening().eval(), {nn.Linear}, dtype=torch.qint8)
    model = sal.Model(module)
    for method in ("rise:samples=4", "occlusion", "lime:samples=8"):
        assert torch.isfinite(sal.explain(method, model, images).maps).all()
    with pytest.raises(sal.InputError, match=r"do not depend differentiably on the image: .* or is quantised; use rise, occlusion or lime\.$"):
        sal.explain("gradient", model, images)
    before = model.weights_hash()
    assert before == model.weights_hash()
    other = torch.ao.quantization.quantize_dynamic(Flattening().eval(), {nn.Linear}, dtype=torch.qint8)
    other.conv.load_state_dict(module.conv.state_dict())
    other.norm.load_state_dict(module.norm.state_dict())
    assert sal.Model(other).weights_hash() != before


def test_a_network_without_values_is_refused():
    with pytest.raises(sal.InputError, match=r"^The weights of Conv2d are on the meta device, where they have no values: load them first\.$"):
        sal.Model(nn.Conv2d(3, 4, 3, device="meta"))


class Observing(nn.Module):
    """Counts its passes, keeps what it saw last and a range that begins empty, as observers of quantisation do, in evaluation mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Flattening()
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("last", torch.zeros(3))
        self.register_buffer("range", torch.tensor([]))

    def forward(self, x):
        self.count += 1
        self.last = x.detach().mean((0, 2, 3))
        self.range.resize_(2).copy_(torch.stack(x.detach().aminmax()))
        return self.inner(x - self.last[:, None, None] * (self.count > 1))


@pytest.mark.parametrize("method", ["gradient", "smoothgrad:samples=3", "noisegrad:weight_samples=2,weight_sigma=0.1", "gradcam", "rise:samples=4"])
def test_buffers_that_a_pass_changes_are_put_back(method, images):
    module = Observing()
    model = sal.Model(module)
    before = {name: (buffer, buffer.clone()) for name, buffer in module.named_buffers()}
    first, second = (sal.explain(method, model, images, 1) for _ in range(2))
    assert torch.equal(first.maps, second.maps)
    assert first.record["model"]["weights"] == second.record["model"]["weights"] == model.weights_hash()
    module.inner.head.weight.data[0, 0] = torch.nan
    with pytest.raises(sal.InputError, match="NaN"):
        sal.explain(method, model, images, 1)
    for name, buffer in module.named_buffers():
        assert buffer is before[name][0]
        assert torch.equal(buffer, before[name][1])


def test_buffers_of_a_black_box_that_is_a_network_are_put_back(images):
    module = Observing()
    sal.explain("rise:samples=4", sal.BlackBox(module, outputs="logits"), images, 1)
    assert (module.count, module.range.numel()) == (0, 0)


@pytest.mark.skipif(TOP_HOOKS is None, reason="the compiler of this torch cannot read functions whose types are checked, as all are in tests")
@pytest.mark.filterwarnings("ignore")
def test_a_compiled_network_is_explained_and_attacked_as_it_was_written(images):
    """Compiled before the methods' hooks were there, it called none of them; the second derivatives of an attack it did not have."""
    torch.compiler.reset()
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    plain, compiled = sal.Model(module), sal.Model(torch.compile(module, backend="aot_eager"))
    for method in ("gradient", "gradcam", "lrp"):
        torch.testing.assert_close(sal.explain(method, compiled, images, 1).maps, sal.explain(method, plain, images, 1).maps, rtol=1e-4, atol=1e-6)
    found, expected = (sal.attack(model, images, steps=2) for model in (compiled, plain))
    assert torch.equal(found.perturbed, expected.perturbed)


def test_a_pruned_layer_keeps_its_weight(images):
    """What its hook makes before a pass was left with the noise of the last one."""
    module = Flattening()
    prune.l1_unstructured(module.conv, "weight", 0.5)
    before = module.conv.weight.clone()
    sal.explain("noisegrad:weight_samples=2,weight_sigma=0.1", sal.Model(module), images, 1)
    assert torch.equal(module.conv.weight, before)
