"""The map of a random other class."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from skimage.metrics import structural_similarity

import salience as sal
from salience.core.draws import streams
from salience.core.errors import InputError


def scaled(saliency):
    return (saliency - saliency.min()) / (saliency.max() - saliency.min())


@pytest.mark.parametrize("method", ["gradient", "gradcam:relu=false", "smoothgrad:samples=3"])
def test_same_as_scikit_image_and_scipy(conv, method):
    images = torch.rand(3, 3, 11, 13, generator=torch.Generator().manual_seed(0))
    targets, seeds = [2, 0, 4], [5, 6, 7]
    found = [sal.measure(f"random_logit:similarity={name}", conv, images, targets, explainer=method, seed=seeds) for name in ("ssim", "spearman")]
    assert torch.equal(found[0], sal.measure("random_logit", conv, images, targets, explainer=method, seed=seeds))
    for i, (target, seed) in enumerate(zip(targets, seeds, strict=True)):
        candidates = []
        for other in sorted(set(range(5)) - {target}):
            a, b = (sal.explain(method, conv, images[i : i + 1], each, seed=[seed]).maps[0] for each in (target, other))
            a, b = (scaled(each[0] if len(each) == 1 else each.abs().sum(0)).double().numpy() for each in (a, b))
            candidates.append((structural_similarity(a, b, data_range=1), spearmanr(a.ravel(), b.ravel()).statistic))
        drawn = streams(seeds, 3)[i].at("metric", "random_logit").generator("class", 0).integers(4)
        assert np.allclose([float(each[i]) for each in found], candidates[drawn], atol=1e-4)


def test_a_method_that_ignores_the_class(conv, photos):
    for method in ("edges", "random", "centre"):
        assert sal.measure("random_logit", conv, photos, explainer=method).tolist() == [1, 1]


def test_the_other_class_is_never_the_target_and_every_other_one():
    """The map says which class it is for."""
    seen = []

    def spy(model, images, targets):
        seen.append(targets.tolist())
        return images

    model = sal.Model(torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 4)))
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    images, targets = torch.rand(200, 3, 3, 3), [0, 1, 2, 3] * 50
    sal.measure("random_logit", model, images, targets, images, explainer=spy, seed=list(range(200)))
    own, others = seen
    assert own == targets
    pairs = set(zip(targets, others, strict=True))
    assert pairs == {(a, b) for a in range(4) for b in range(4) if a != b}
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002


def test_messages(photos):
    one = sal.BlackBox(lambda x: torch.ones(len(x), 1), name="one")
    with pytest.raises(InputError, match=r"^one has one class, so there is no other to compare with: give a model with at least two.$"):
        sal.measure("random_logit", one, photos, 0, photos, explainer="edges")
    with pytest.raises(InputError, match=r"^random_logit needs a similarity of maps that is larger the more alike they are, such as spearman or ssim, not mse.$"):
        sal.Metric.from_value("random_logit:similarity=mse")
