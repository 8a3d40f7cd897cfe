"""Max-sensitivity, against a plain loop, captum and closed forms."""

import captum.metrics
import numpy as np
import pytest
import torch

import salience as sal
from salience.core.draws import streams
from salience.core.metric import UndefinedError


def noise(images, seeds, samples):
    """The metric's changes in units of the radius, (samples, n, c, h, w)."""
    sources = [source.at("metric", "max_sensitivity") for source in streams(seeds, len(images))]
    return torch.stack([torch.stack([2 * source.uniform(images.shape[1:], "change", j) - 1 for source in sources]) for j in range(samples)])


@pytest.mark.parametrize("radius", [0.01, 0.3])
def test_same_as_a_loop_and_as_captum(conv, photos, radius):
    found = sal.measure(f"max_sensitivity:samples=7,radius={radius}", conv, photos, [2, 1], explainer="gradient", seed=[3, 4], details=True)
    changes, targets = noise(photos, [3, 4], 7), torch.tensor([2, 1])
    assert -1 <= changes.min() < -0.9
    assert 0.9 < changes.max() <= 1
    with conv.frozen():
        for i, target in enumerate((2, 1)):
            clean = conv.gradient(photos[i : i + 1], torch.tensor([target]))
            ratios = [((conv.gradient(photos[i : i + 1] + radius * changes[j, i], torch.tensor([target])) - clean).norm() / clean.norm()).item() for j in range(7)]
            assert np.allclose(found.curves["change"].y[i], ratios, rtol=1e-3)
            assert found.values[i].item() == pytest.approx(max(ratios), rel=1e-4)

        def perturbed(images):  # captum repeats each image 7 times
            return (images + radius * changes.transpose(0, 1).flatten(0, 1),)

        def explained(inputs):
            return (conv.gradient(inputs[0], targets.repeat_interleave(len(inputs[0]) // 2)).contiguous(),)

        expected = captum.metrics.sensitivity_max(explained, photos, perturb_func=perturbed, n_perturb_samples=7)
    assert np.allclose(found.values, expected, rtol=1e-3)
    assert found.stderr is None


def test_the_image_itself_as_its_map(conv, photos):
    """|E(x + d) - E(x)| / |E(x)| = |d| / |x|, not clamped."""
    found = sal.measure("max_sensitivity:samples=5,radius=0.5", conv, photos, 0, explainer=lambda model, images, targets: images, seed=1)
    expected = 0.5 * noise(photos, 1, 5).flatten(2).norm(dim=2).amax(0) / photos.flatten(1).norm(dim=1)
    assert torch.allclose(found, expected, rtol=1e-5)
    doubled = sal.measure("max_sensitivity:samples=5,radius=0.5", conv, photos, 0, explainer=lambda model, images, targets: 1e-3 * images, seed=1)
    assert torch.allclose(found, doubled, rtol=1e-4)  # a map's scale does not matter


@pytest.mark.parametrize("scale", [1e-30, 1e-22, 1e25])
def test_maps_whose_squares_are_no_floats(conv, photos, scale):
    """Gradients of a probability near 0 are so small."""
    wanted, found = (sal.measure("max_sensitivity:samples=5", conv, photos, 0, explainer=lambda model, images, targets, factor=factor: factor * images) for factor in (1, scale))
    assert torch.allclose(found, wanted, rtol=1e-4)


def test_a_map_that_never_moves_and_one_of_zeros(conv, photos):
    assert sal.measure("max_sensitivity", conv, photos, 0, explainer="centre").tolist() == [0, 0]
    zero_second = lambda model, images, targets: images * torch.tensor([1.0, 0.0]).repeat(len(images) // 2)[:, None, None, None]  # noqa: E731
    with pytest.raises(UndefinedError, match=r"^max_sensitivity is not defined for image 2: its map is zero everywhere, so a change relative to it has no size.$"):
        sal.measure("max_sensitivity", conv, photos, 0, photos, explainer=zero_second)


def test_common_draws_leave_out_the_methods_own_noise(conv, photos):
    """The control is nothing but its draws: it does not move with common ones, and by sqrt 2 with fresh ones."""
    assert sal.measure("max_sensitivity", conv, photos, 0, explainer="random").tolist() == [0, 0]
    fresh = sal.measure("max_sensitivity:common_draws=false", conv, photos, 0, explainer="random", details=True).curves["change"].y
    assert fresh.mean().item() == pytest.approx(2**0.5, rel=0.1)
    assert fresh.std() > 0  # each sample has draws of its own
    method = "rise:samples=30,grid=3,estimator=original"
    common, fresh = (sal.measure(f"max_sensitivity:radius=0.001,common_draws={each}", conv, photos, 2, explainer=method) for each in ("true", "false"))
    assert (common < 0.2 * fresh).all()


def test_made_with_the_draws_of_the_explainer(conv, photos):
    """Maps with another seed change nothing: they are not used."""
    maps = [sal.explain("smoothgrad:samples=3", conv, photos, 2, seed=seed).maps for seed in (5, 6)]
    values = [sal.measure("max_sensitivity:samples=3", conv, photos, 2, each, explainer="smoothgrad:samples=3", seed=5) for each in maps]
    assert torch.equal(*values)


def test_any_chunk_any_batch_any_number_of_samples(conv, photos):
    method, options = "smoothgrad:samples=3", "max_sensitivity:samples=5"
    whole = sal.measure(options, conv, photos, [2, 1], explainer=method, seed=[3, 4], details=True).curves["change"].y
    for chunk in (1, 3, 64):
        assert torch.allclose(whole, sal.measure(options, conv, photos, [2, 1], explainer=method, seed=[3, 4], chunk=chunk, details=True).curves["change"].y, rtol=1e-4)
    alone = sal.measure(options, conv, photos[1:], 1, explainer=method, seed=[4], details=True).curves["change"].y
    assert torch.allclose(whole[1:], alone, rtol=1e-4)
    longer = sal.measure("max_sensitivity:samples=9", conv, photos, [2, 1], explainer=method, seed=[3, 4], details=True).curves["change"].y
    assert torch.allclose(whole, longer[:, :5], rtol=1e-4)
    assert not torch.allclose(whole, sal.measure(options, conv, photos, [2, 1], explainer=method, seed=[5, 6], details=True).curves["change"].y, rtol=1e-2)


def test_memory_is_bounded_by_the_chunk(conv, photos):
    seen = []

    def spy(model, images, targets):
        seen.append(len(images))
        return images

    sal.measure("max_sensitivity:samples=50", conv, photos, 0, photos, explainer=spy, chunk=6)
    assert max(seen) == 6
    assert sum(seen) == 51 * 2


def test_new_maps_explain_what_the_given_ones_do(conv, photos):
    """Maps of the probability are compared with maps of the probability, not with the method's usual logit."""
    ends_in_softmax = sal.Model(torch.nn.Sequential(conv.module, torch.nn.Softmax(1)), mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3), outputs="probabilities")
    e = sal.explain("gradient", conv, photos, score="probability")
    same = sal.explain("gradient", ends_in_softmax, photos)
    found = sal.measure("max_sensitivity", conv, photos, None, e)
    assert torch.allclose(found, sal.measure("max_sensitivity", ends_in_softmax, photos, None, same), rtol=1e-3)
    by_function = sal.explain("gradient", conv, photos, score=lambda outputs, targets: outputs.mean(1))
    with pytest.raises(sal.InputError, match=r"^max_sensitivity makes new maps, and <lambda>, which these maps explain, is known to your function alone: explain one of logit, "):
        sal.measure("max_sensitivity", conv, photos, None, by_function)
