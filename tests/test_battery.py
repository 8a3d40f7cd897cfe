"""One battery over the registry: a new method is tested here without being asked."""

import copy
import dataclasses

import numpy as np
import pytest
import torch

import salience as sal
from salience.core import registry, spec

pytestmark = pytest.mark.filterwarnings("ignore::salience.explainers._weight_noise.CollapseWarning")  # tiny nets with random weights

FEW = {"samples": 6, "weight_samples": 3, "steps": 4}
ENTRIES = registry.entries("explainer")
METHODS = [name for name in ENTRIES if not name.endswith(":*")]


def small(name: str) -> sal.Explainer:
    """The method with few samples, so that the battery is quick."""
    cls = ENTRIES[name].cls
    return cls(**{key: value for key, value in FEW.items() if key in {field.name for field in dataclasses.fields(cls)}})


def images(n: int, channels: int, height: int, width: int) -> torch.Tensor:
    return torch.rand(n, channels, height, width, generator=torch.Generator().manual_seed(2))


def attempt(method: sal.Explainer, model: sal.Classifier, batch: torch.Tensor, **options) -> sal.Explanation:
    """The explanation, or a skip where the method says clearly that it cannot explain this kind of network."""
    try:
        return method(model, batch, targets=1, **options)
    except sal.InputError as error:
        if model.name not in str(error):
            raise
        pytest.skip(str(error))


@pytest.fixture(params=["conv", "vit", "grey"])
def case(request):
    model = request.getfixturevalue(request.param)
    batch = {"conv": (2, 3, 5, 7), "vit": (2, 3, 16, 24), "grey": (2, 1, 11, 13)}[request.param]
    return model, images(*batch)


@pytest.mark.parametrize("name", METHODS)
class TestEveryMethod:
    def test_shape_and_kind(self, name, case):
        model, batch = case
        e = attempt(small(name), model, batch)
        assert e.maps.shape[0] == 2
        assert e.maps.shape[1] in (1, batch.shape[1])
        assert e.maps.shape[2:] == batch.shape[2:]
        assert e.maps.dtype == torch.float32
        assert torch.isfinite(e.maps).all()
        facts = ENTRIES[name].facts
        assert facts["cites"]
        assert (e.stderr is not None) == facts["stochastic"]
        if not facts["signed"]:
            assert e.maps.min() >= 0
        if facts["stochastic"]:
            assert e.stderr.shape == e.maps.shape
            assert e.df.shape == e.samples.shape == (2,)
            assert e.saliency_stderr().shape == e.saliency().shape
        assert e.converged is None

    def test_same_seed_same_map_and_another_seed_another(self, name, case):
        model, batch = case
        first = attempt(small(name), model, batch, seed=3)
        assert torch.equal(first.maps, small(name)(model, batch, targets=1, seed=3).maps)
        if ENTRIES[name].facts["stochastic"]:
            assert not torch.equal(first.maps, small(name)(model, batch, targets=1, seed=4).maps)

    def test_a_network_in_bfloat16_gives_maps_in_float32(self, name, case, tmp_path):
        model, batch = case
        model.precision = "bfloat16"
        e = attempt(small(name), model, batch)
        assert e.maps.dtype == torch.float32
        assert e.stderr is None or e.stderr.dtype == torch.float32
        e.save(tmp_path / "map.npz")

    def test_neither_chunk_nor_batch_matters(self, name, case):
        model, batch = case
        e = attempt(small(name), model, batch)
        for chunk in (1, 3, 64):
            other = small(name)(model, batch, targets=1, chunk=chunk)
            assert _distance(other.maps, e.maps) < 1e-3
            if e.stderr is not None:
                assert _distance(other.stderr, e.stderr) < 1e-3
        alone = small(name)(model, batch[1:], targets=1)
        assert _distance(alone.maps, e.maps[1:]) < 1e-3

    def test_nothing_of_the_users_changes(self, name, case):
        model, batch = case
        model.module.train()
        list(model.module.modules())[-1].eval()
        next(model.module.parameters()).requires_grad_(False)
        before = copy.deepcopy(model.module.state_dict())
        where = [parameter.data_ptr() for parameter in model.module.parameters()]
        modes = [module.training for module in model.modules()]
        wants = [parameter.requires_grad for parameter in model.parameters()]
        kept, torch_state, numpy_state = batch.clone(), torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002  # the global state is what is tested
        attempt(small(name), model, batch)
        assert all(torch.equal(value, before[key]) for key, value in model.module.state_dict().items())
        assert where == [parameter.data_ptr() for parameter in model.module.parameters()]
        assert modes == [module.training for module in model.modules()]
        assert wants == [parameter.requires_grad for parameter in model.parameters()]
        assert all(parameter.grad is None for parameter in model.parameters())
        assert all(not module._forward_hooks and not module._forward_pre_hooks and not module._backward_hooks for module in model.modules())
        assert torch.equal(batch, kept)
        assert not batch.requires_grad
        assert torch.equal(torch_state, torch.get_rng_state())
        assert np.array_equal(numpy_state, np.random.get_state()[1])  # noqa: NPY002  # as above

    def test_hard_images(self, name, case):
        model, batch = case
        constant = torch.full_like(batch[:1], 0.5)
        assert torch.isfinite(attempt(small(name), model, constant).maps).all()

    def test_zero_gradient(self, name, case):
        model, batch = case
        for parameter in model.module.parameters():
            parameter.data.zero_()
        e = attempt(small(name), model, batch)
        assert torch.isfinite(e.maps).all()

    def test_string_makes_the_same_method(self, name):
        method = small(name)
        assert spec.build("explainer", str(method)) == method

    def test_save_and_load(self, name, case, tmp_path):
        model, batch = case
        e = attempt(small(name), model, batch)
        e.save(tmp_path / "map.npz", blocks=True)
        again = sal.Explanation.load(tmp_path / "map.npz")
        assert torch.equal(e.maps, again.maps)
        assert (again.method, again.score, again.targets.tolist()) == (str(small(name)), e.score, [1, 1])
        if e.stderr is not None:
            assert torch.equal(again.saliency_stderr(), e.saliency_stderr())

    def test_it_can_be_a_base(self, name, case):
        model, batch = case
        method = small(name)
        attempt(method, model, batch)
        e = sal.SmoothGrad(base=method, samples=2, noise_level=0.05)(model, batch, targets=1)
        assert torch.isfinite(e.maps).all()
        noisy = sal.NoiseGrad(base=method, weight_samples=2, weight_sigma=0.01)(model, batch, targets=1)
        assert torch.isfinite(noisy.maps).all()

    def test_documented(self, name):
        text = ENTRIES[name].cls.__doc__
        assert all(part in text for part in ("Cost:", "Source:", "Differs from")), text
        assert all(field.metadata.get("help") for field in dataclasses.fields(ENTRIES[name].cls))


@pytest.mark.parametrize("name", METHODS)
def test_works_somewhere(name, conv, vit):
    """A method that refuses both networks would pass the battery by skipping it."""
    failures = []
    for model, batch in ((conv, images(1, 3, 5, 7)), (vit, images(1, 3, 16, 24))):
        try:
            small(name)(model, batch)
            return
        except sal.InputError as error:
            failures.append(str(error))
    pytest.fail("; ".join(failures))


@pytest.mark.parametrize("name", METHODS)
def test_black_box_is_explained_or_refused_clearly(name):
    box = sal.BlackBox(lambda x: torch.stack([x.mean((1, 2, 3)), 1 - x.mean((1, 2, 3))], 1), name="box")
    facts = ENTRIES[name].facts
    if facts["needs_gradient"]:
        with pytest.raises(sal.InputError, match=r"box is a black box"):
            small(name)(box, images(1, 3, 5, 7))
    else:
        assert torch.isfinite(small(name)(box, images(1, 3, 5, 7)).maps).all()


def test_every_method_is_in_the_public_face():
    missing = [entry.cls.__name__ for entry in ENTRIES.values() if not hasattr(sal, entry.cls.__name__)]
    assert missing == []


def _distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """Relative L2 distance, NaN counted as equal to NaN."""
    a, b = a.nan_to_num(), b.nan_to_num()
    return ((a - b).norm() / b.norm().clamp_min(1e-12)).item()
