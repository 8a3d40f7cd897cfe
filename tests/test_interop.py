"""Our explainers in the hands of Quantus."""

import itertools
import warnings

import numpy as np
import pytest
import torch

import salience as sal
from salience.interop import quantus_explain_func

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    quantus = pytest.importorskip("quantus")

TARGETS = np.array([1, 3, 0])


@pytest.fixture
def images():
    return torch.rand(3, 3, 16, 20, generator=torch.Generator().manual_seed(1))


def test_arrays_in_and_out(conv, images):
    explain = quantus_explain_func("gradient")
    maps = explain(conv, images.numpy(), TARGETS)
    assert isinstance(maps, np.ndarray)
    assert maps.shape == (3, 1, 16, 20)
    expected = sal.Gradient()(conv, images, targets=TARGETS.tolist())
    np.testing.assert_allclose(maps[:, 0], expected.saliency("sum").numpy(), rtol=1e-4, atol=1e-6)
    whole = quantus_explain_func(sal.Gradient(), reduction=None)(conv, images.numpy(), TARGETS)
    np.testing.assert_allclose(whole, expected.maps.numpy(), rtol=1e-4, atol=1e-6)


def test_a_bare_network_is_explained_in_its_own_units(conv, images):
    normalised = conv.normalise(images)
    conv.module.train()
    bare = quantus_explain_func("input_x_gradient", reduction=None)(conv.module, normalised.numpy(), TARGETS)
    assert conv.module.training
    ours = sal.InputXGradient()(conv, images, targets=TARGETS.tolist()).maps  # (x - mean) df/dx is the same in either space
    np.testing.assert_allclose(bare, ours.numpy(), rtol=1e-3, atol=1e-5)


def test_inputs_outside_the_range_are_taken_as_they_are(conv, images):
    far = (images * 2 - 0.5).numpy()
    inside = quantus_explain_func("gradient")(conv, images.numpy(), TARGETS)
    assert not np.allclose(quantus_explain_func("gradient")(conv, far, TARGETS), inside)


def test_seeds(conv, images):
    fixed = quantus_explain_func("smoothgrad:samples=3", seed=4)
    assert np.array_equal(fixed(conv, images.numpy(), TARGETS), fixed(conv, images.numpy(), TARGETS))
    np.testing.assert_allclose(fixed(conv, images.numpy(), TARGETS), sal.SmoothGrad(samples=3)(conv, images, TARGETS.tolist(), seed=4).saliency("sum")[:, None].numpy(), rtol=1e-4, atol=1e-6)
    fresh = quantus_explain_func("smoothgrad:samples=3", seed=itertools.count())
    assert not np.array_equal(fresh(conv, images.numpy(), TARGETS), fresh(conv, images.numpy(), TARGETS))


def test_score(conv, images):
    maps = quantus_explain_func("gradient", score="probability")(conv, images.numpy(), TARGETS)
    np.testing.assert_allclose(maps[:, 0], sal.Gradient()(conv, images, TARGETS.tolist(), score="probability").saliency("sum").numpy(), rtol=1e-4, atol=1e-7)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("bare", [False, True])
def test_quantus_metrics_take_it(conv, images, bare):
    """Quantus gets the same Gini as from the maps given to it, and a sensitivity that is finite."""
    network, inputs = (conv.module.eval(), conv.normalise(images).numpy()) if bare else (conv, images.numpy())
    explain = quantus_explain_func("smoothgrad:samples=3")
    metric = quantus.Sparseness(disable_warnings=True)
    computed = metric(model=network, x_batch=inputs, y_batch=TARGETS, explain_func=explain, device="cpu")
    given = metric(model=network, x_batch=inputs, y_batch=TARGETS, a_batch=explain(network, inputs, TARGETS))
    np.testing.assert_allclose(computed, given, rtol=1e-6)
    sensitivity = quantus.MaxSensitivity(nr_samples=2, lower_bound=0.2, disable_warnings=True)(model=network, x_batch=inputs, y_batch=TARGETS, explain_func=explain)
    assert np.isfinite(sensitivity).all()
    assert min(sensitivity) > 0


def test_wrong_input_is_one_sentence(conv, images):
    explain = quantus_explain_func("gradient")
    with pytest.raises(sal.InputError, match=r"^quantus_explain_func takes no method from Quantus: give the options of gradient to quantus_explain_func itself\.$"):
        explain(conv, images.numpy(), TARGETS, method="Saliency")
    with pytest.raises(sal.InputError, match=r"^gradient explains images \(n, channels, height, width\), not inputs of shape \(3, 960\): use channel_first=True in Quantus\.$"):
        explain(conv, images.flatten(1).numpy(), TARGETS)
    with pytest.raises(sal.InputError, match=r"^2 targets were given for 3 images: give one per image\.$"):
        explain(conv, images.numpy(), TARGETS[:2])
    with pytest.raises(sal.InputError, match=r"^Quantus gave a model of type str"):
        explain("net", images.numpy(), TARGETS)
    with pytest.raises(sal.InputError, match=r"^Unknown method 'gradeint': did you mean gradient"):
        quantus_explain_func("gradeint")


def test_a_black_box_that_is_a_classifier(images):
    box = sal.BlackBox(lambda x: x.mean((2, 3)).softmax(1))
    maps = quantus_explain_func("occlusion:window=8,stride=4")(box, images.numpy(), np.array([0, 1, 2]))
    assert np.isfinite(maps).all()


@pytest.mark.parametrize("metric", ["FaithfulnessCorrelation", "PixelFlipping"])
def test_metrics_that_ask_for_evaluation_mode(metric):
    """They ask the model they are given, which is our wrapper."""
    model, pictures = sal.load_model("cifar10-standard"), torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = {"nr_runs": 3, "subset_size": 8, "return_aggregate": False} if metric == "FaithfulnessCorrelation" else {"features_in_step": 512}
        judge = getattr(quantus, metric)(disable_warnings=True, display_progressbar=False, **options)
        values = judge(model=model, x_batch=pictures.numpy(), y_batch=np.array([1, 3]), explain_func=quantus_explain_func("gradient"), device="cpu")
    assert len(values) == 2
