"""One battery over all metrics, similarities and perturbations: a new one is tested here without being asked."""

import copy
import dataclasses

import numpy as np
import pytest
import torch

import salience as sal
from salience.core import registry, spec

METRICS, SIMILARITIES, PERTURBATIONS = (registry.entries(kind) for kind in ("metric", "similarity", "perturbation"))
FEW = {"samples": 8, "steps": 3}


def small(kind: str, name: str):
    """With few draws, so that the battery is quick."""
    cls = registry.entries(kind)[name].cls
    return cls(**{key: value for key, value in FEW.items() if key in {field.name for field in dataclasses.fields(cls)}})


@pytest.fixture
def case(conv, photos):
    maps = torch.randn(2, 3, 5, 7, generator=torch.Generator().manual_seed(3))
    masks = torch.zeros(2, 5, 7, dtype=torch.bool)
    masks[:, 1:4, 2:5] = True
    return conv, photos, maps, masks


def judged(name: str, case, rows=slice(None), **options) -> sal.Judgement:
    model, images, maps, masks = case
    facts = METRICS[name].facts
    given = {"masks": masks[rows]} if facts.get("needs_masks") else {}
    given |= {"explainer": "smoothgrad:samples=2"} if facts.get("needs_explainer") else {}
    return small("metric", name)(model, images[rows], 1, maps[rows], **given, **options)


@pytest.mark.parametrize("name", METRICS)
class TestEveryMetric:
    def test_one_finite_number_an_image(self, name, case):
        found = judged(name, case)
        assert found.values.shape == (2,)
        assert torch.isfinite(found.values).all()
        assert found.stderr is None or (found.stderr.shape == (2,) and (found.stderr >= 0).all())
        assert bool(found.curves) == ("axes" in METRICS[name].facts)
        for curve in found.curves.values():
            assert curve.y.shape == (2, len(curve.x))
            assert torch.isfinite(curve.y).all()

    def test_values_are_within_what_is_declared(self, name, case):
        lowest, highest = METRICS[name].facts.get("within", (None, None))
        values = judged(name, case).values
        assert lowest is None or values.min() >= lowest - 1e-6
        assert highest is None or values.max() <= highest + 1e-6

    def test_facts(self, name, case):
        facts = METRICS[name].facts
        assert facts["higher_is_better"] in (True, False, None)
        assert facts["category"] in ("faithfulness", "localisation", "robustness", "randomisation", "complexity")
        assert facts["cites"]
        assert "Source:" in METRICS[name].cls.__doc__
        assert "Differs from the source:" in METRICS[name].cls.__doc__
        assert "Cost:" in METRICS[name].cls.__doc__
        for field in dataclasses.fields(METRICS[name].cls):
            assert field.metadata["help"]

    def test_same_seed_same_number_whatever_the_chunk(self, name, case):
        first = judged(name, case, seed=5)
        for chunk in (1, 3):
            assert torch.allclose(judged(name, case, seed=5, chunk=chunk).values, first.values, rtol=1e-3, atol=1e-4)
        assert torch.equal(judged(name, case, seed=5).values, first.values)

    def test_an_image_alone_or_with_others(self, name, case):
        together = judged(name, case, seed=5)
        for row in (0, 1):
            assert torch.allclose(judged(name, case, rows=slice(row, row + 1), seed=5).values, together.values[row : row + 1], rtol=1e-3, atol=1e-4)

    def test_nothing_of_the_users_changes(self, name, case):
        model, images, maps, masks = case
        model.module.train()
        before = copy.deepcopy((model.module.state_dict(), [module.training for module in model.modules()], images, maps, masks))
        state, numpy_state = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002  # the global state itself
        judged(name, case)
        after = (model.module.state_dict(), [module.training for module in model.modules()], images, maps, masks)
        assert all(torch.equal(value, after[0][key]) for key, value in before[0].items())
        assert before[1] == after[1]
        assert all(torch.equal(*pair) for pair in zip(before[2:], after[2:], strict=True))
        assert torch.equal(state, torch.random.get_rng_state())
        assert np.array_equal(numpy_state, np.random.get_state()[1])  # noqa: NPY002

    def test_a_map_of_nan_is_refused_by_the_number_of_its_image(self, name, case):
        model, images, maps, masks = case
        broken = maps.clone()
        broken[1, 0, 0, 0] = torch.nan
        with pytest.raises(sal.UndefinedError, match=r"^The map of image 2 holds NaN or infinity, so no metric is defined for it\.$"):
            judged(name, (model, images, broken, masks))

    def test_text_and_object(self, name, case):
        metric = small("metric", name)
        assert spec.build("metric", str(metric)) == metric
        assert repr(metric) == str(metric)


@pytest.mark.parametrize("name", [name for name, entry in SIMILARITIES.items() if entry.facts["of"] == "maps"])
def test_every_similarity(name):
    draw = torch.Generator().manual_seed(0)
    first, second = torch.rand(4, 2, 9, 11, generator=draw), torch.rand(4, 2, 9, 11, generator=draw)
    facts = SIMILARITIES[name].facts
    found, same = sal.similarity(name, first, second), sal.similarity(name, first, first)
    assert found.shape == (4,)
    assert torch.isfinite(found).all()
    assert torch.allclose(found, sal.similarity(name, second, first), atol=1e-6)
    assert torch.allclose(found[1:2], sal.similarity(name, first[1:2], second[1:2]))
    assert ((same > found) if facts["higher_is_better"] else (same < found)).all()
    (lowest, highest), opposite = facts["within"], sal.similarity(name, first, -first)
    for values in (found, same, opposite):
        assert values.min() >= lowest - 1e-6
        assert highest is None or values.max() <= highest + 1e-6


@pytest.mark.parametrize("name", [name for name, entry in PERTURBATIONS.items() if not entry.facts.get("needs_model")])
def test_every_perturbation(name, photos):
    perturbation = small("perturbation", name)
    before = photos.clone()
    changed = perturbation(photos, seed=3)
    assert changed.shape == photos.shape
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert not torch.equal(changed, photos)
    assert torch.equal(photos, before)
    assert torch.equal(changed, perturbation(photos, seed=3))
    assert torch.equal(changed[1:], perturbation(photos[1:], seed=3))
    assert torch.equal(changed, perturbation(photos, seed=4)) != PERTURBATIONS[name].facts["stochastic"]
