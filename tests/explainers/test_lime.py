"""LIME: exact on a linear model, equal to its published formula, honest about its error."""

import numpy as np
import pytest
import torch
from PIL import Image

import salience as sal
from salience.core.draws import Stream
from salience.explainers._superpixels import FEWEST, superpixels
from salience.explainers.lime import Lime, mean_colours


def batch(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(3))


def weights(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(4))


def curved(x: torch.Tensor) -> torch.Tensor:
    """Three class scores that are far from linear in what is on."""
    flat = x.flatten(1)
    linear = flat @ weights(flat.shape[1], 3)
    return (linear + (flat @ weights(flat.shape[1], 3).flip(0)) ** 2 / 4).softmax(1)


def box(name: str = "box") -> sal.BlackBox:
    return sal.BlackBox(curved, name=name)


def test_tends_to_the_coefficients_of_a_linear_model():
    x, w = batch(2, 3, 12, 24), weights(3, 12, 24)
    linear = sal.BlackBox(lambda y: torch.stack([(y * w).sum((1, 2, 3)), (y * w).sum((1, 2, 3)) * -2], 1), outputs="logits")
    e = Lime(samples=300, segmentation="grid", fill="black", alpha=1e-6)(linear, x, targets=1, score="logit")
    effects = -2 * (x * w).sum(1)
    cells = effects.unflatten(1, (6, 2)).unflatten(3, (6, 4)).sum((2, 4))
    torch.testing.assert_close(e.maps[:, 0], cells.repeat_interleave(2, 1).repeat_interleave(4, 2), rtol=1e-3, atol=1e-3)
    assert e.stderr.max() < 1e-3
    assert min(e.record["images"]["fit"]) > 0.9999


@pytest.mark.parametrize("width", [0.25, 0.6])
def test_is_the_published_formula(width):
    """Draws made again here, weighted and fitted by scikit-learn as the LIME package does."""
    from sklearn.linear_model import Ridge
    from sklearn.metrics import pairwise_distances

    x = batch(1, 3, 9, 13)
    e = Lime(samples=120, segmentation="grid", width=width)(box(), x, targets=2, seed=9)
    cells = superpixels(x, "grid")[0]
    stream, pieces = Stream((9,), (9,)), int(cells.max()) + 1
    on = np.stack([np.ones(pieces)] + [(stream.uniform((pieces,), "superpixels", i) < 0.5).numpy() for i in range(1, 120)]).astype(float)
    means = torch.stack([x[0][:, cells == piece].mean(1) for piece in range(pieces)], 1)[:, cells]
    shown = torch.stack([torch.where(torch.from_numpy(each > 0)[cells], x[0], means) for each in on])
    distance = pairwise_distances(on, on[:1], metric="cosine")[:, 0]
    fitted = Ridge(alpha=1.0, fit_intercept=True).fit(on, curved(shown)[:, 2].numpy(), sample_weight=np.sqrt(np.exp(-(distance**2) / width**2)))
    expected = torch.from_numpy(fitted.coef_).float()[cells]
    torch.testing.assert_close(e.maps[0, 0], expected, rtol=1e-3, atol=1e-5)


def test_r_squared_is_scikit_learns():
    from sklearn.linear_model import Ridge

    from salience.explainers._surrogate import ridge

    z, y, w = weights(50, 4).double(), weights(50, 5)[:, 4].double(), batch(50).double()
    design = torch.cat([torch.ones(50, 1), z, y[:, None]], 1)
    found, fit = ridge((design * w[:, None]).T @ design, 2.0)
    other = Ridge(alpha=2.0).fit(z.numpy(), y.numpy(), sample_weight=w.numpy())
    np.testing.assert_allclose(found.numpy(), other.coef_, rtol=1e-8)
    assert fit.item() == pytest.approx(other.score(z.numpy(), y.numpy(), sample_weight=w.numpy()), rel=1e-8)


def test_standard_error_is_honest():
    """Over many seeds: the error agrees with the spread of the maps, and intervals cover their expectation."""
    copies, samples = 500, 100
    x = batch(1, 3, 4, 6).expand(copies, 3, 4, 6)
    e = Lime(samples=samples, segmentation="grid", fill="black")(box(), x, targets=1, seed=list(range(copies)))
    assert e.record["images"]["superpixels"][0] == 6
    truth, spread = e.maps.mean(0), e.maps.std(0)
    ratio = (e.stderr.square().mean(0).sqrt() / spread).squeeze()
    assert 0.9 < ratio.mean() < 1.15, ratio
    low, high = e.interval(0.95)
    covered = ((low <= truth) & (truth <= high)).float().mean().item()
    assert 0.92 < covered < 0.98, covered


def test_seed_chunk_and_batch():
    x, method = batch(2, 3, 11, 13), Lime(samples=70)
    e = method(box(), x, targets=1, seed=5)
    assert torch.equal(e.maps, method(box(), x, targets=1, seed=5).maps)
    assert not torch.equal(e.maps, method(box(), x, targets=1, seed=6).maps)
    for chunk in (1, 7, 64):
        other = method(box(), x, targets=1, seed=5, chunk=chunk)
        torch.testing.assert_close(other.maps, e.maps, rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(other.stderr, e.stderr, rtol=1e-3, atol=1e-6)
    for i in range(2):
        torch.testing.assert_close(method(box(), x[i : i + 1], targets=1, seed=5).maps[0], e.maps[i], rtol=1e-3, atol=1e-6)


def test_global_random_state_is_untouched():
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002  # the global state is what is tested
    Lime(samples=10)(box(), batch(1, 3, 20, 20))
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002  # as above


def test_another_class_needs_no_forward_pass():
    seen = []

    def look(x):
        seen.append(len(x))
        return curved(x)

    x, method = batch(2, 3, 11, 13), Lime(samples=60)
    e = method(sal.BlackBox(look), x, targets=0)
    before = sum(seen)
    assert before == 2 + 2 * 60
    other = e.for_target(2)
    assert sum(seen) == before
    fresh = method(box(), x, targets=2)
    torch.testing.assert_close(other.maps, fresh.maps, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(other.stderr, fresh.stderr, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(other.saliency_stderr("sum"), other.stderr[:, 0], rtol=1e-3, atol=1e-6)
    with pytest.raises(sal.InputError, match=r"^Target 7 is out of range: look has classes 0 to 2\.$"):
        e.for_target(7)


def test_stops_at_the_tolerance_image_by_image():
    """The grey image leaves the box at rest whatever is switched off: no signal, so no end before the limit."""
    w = weights(3, 11, 13)
    box = sal.BlackBox(lambda y: ((y - 0.5) * w).sum((2, 3)).div(20).tanh() / 2 + 0.5)
    x = torch.cat([batch(1, 3, 11, 13), torch.full((1, 3, 11, 13), 0.5)])
    enough = 1.2 * float(Lime(samples=200)(box, x[:1], targets=1).relative_error)
    assert enough < 1
    e = Lime(samples=300)(box, x, targets=1, tolerance=enough)
    assert e.samples.tolist()[1] == 300
    assert e.samples.tolist()[0] in (50, 100, 200)
    assert e.converged.tolist() == [True, False]
    assert e.relative_error[0] <= enough
    again = Lime(samples=int(e.samples[0]))(box, x[:1], targets=1)
    torch.testing.assert_close(again.maps, e.maps[:1], rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(again.stderr, e.stderr[:1], rtol=1e-3, atol=1e-6)


def test_two_draws_have_a_map_but_no_error():
    e = Lime(samples=2)(box(), batch(1, 3, 5, 7))
    assert torch.isfinite(e.maps).all()
    assert e.stderr.isnan().all()
    with pytest.raises(sal.InputError, match=r"^lime: samples must be at least 2, not 1\.$"):
        Lime(samples=1)


def test_constant_image_and_grey_image():
    constant = Lime(samples=30)(box(), torch.full((1, 3, 20, 20), 0.3))
    assert constant.maps.abs().max() < 1e-6
    grey = sal.BlackBox(curved, mean_colour=(0.5,))
    assert Lime(samples=30)(grey, batch(1, 1, 20, 20)).maps.abs().max() > 0


@pytest.mark.parametrize("size", [(20, 20), (32, 32), (28, 28), (8, 8), (3, 5), (1, 1), (64, 64)])
def test_small_images_have_enough_superpixels(size):
    """The LIME package finds one superpixel in 20 x 20 images, and so explains nothing."""
    from skimage import data, transform

    photograph = transform.resize(data.chelsea(), size, anti_aliasing=True)
    images = torch.stack([torch.from_numpy(photograph).permute(2, 0, 1).float().clamp(0, 1), torch.full((3, *size), 0.5)])
    labels = superpixels(images)
    for image in labels:
        assert torch.equal(image.unique(), torch.arange(int(image.max()) + 1))
        assert image.max() + 1 >= min(FEWEST, max(1, size[0] // 2) * max(1, size[1] // 2))


def test_mean_colours():
    x = batch(2, 3, 5, 7)
    labels = superpixels(x, "grid")
    found = mean_colours(x, labels)
    for image in range(2):
        for piece in range(int(labels[image].max()) + 1):
            inside = labels[image] == piece
            torch.testing.assert_close(found[image][:, inside], x[image][:, inside].mean(1, keepdim=True).expand(-1, int(inside.sum())))


def test_a_photograph_by_the_default_model():
    """The superpixel that speaks most for the class takes more of its probability away than the one that speaks least."""
    from skimage import data

    model = sal.load_model()
    image = sal.load_images([Image.fromarray(data.coffee())], model)
    e = Lime(samples=80)(model, image)
    assert e.record["images"]["superpixels"][0] >= FEWEST
    flat, target = mean_colours(image, superpixels(image)), e.targets
    most, least = (torch.where(e.maps == extreme, flat, image) for extreme in (e.maps.max(), e.maps.min()))
    with model.frozen():
        left = model.outputs(torch.cat([most, least])).softmax(1)[:, target[0]]
    assert left[0] < left[1] - 0.1
    assert e.relative_error[0] < 0.5
