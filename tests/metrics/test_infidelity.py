"""Infidelity, against a plain loop, against Captum, and against numbers known beforehand."""

import pytest
import torch

import salience as sal
from salience.core.metric import UndefinedError, measure
from salience.metrics.infidelity import Infidelity


class Linear(torch.nn.Module):
    """Class 1's logit is a weighted sum of the image."""

    def __init__(self, weights: torch.Tensor) -> None:
        super().__init__()
        self.weights = torch.nn.Parameter(weights)

    def forward(self, x):
        score = (x * self.weights).sum((1, 2, 3))
        return torch.stack([torch.zeros_like(score), score], 1)


def random_maps(channels=3):
    return torch.randn(2, channels, 5, 7, generator=torch.Generator().manual_seed(3))


def squares(sides):
    return [(side, y, x) for side in sides for y in range(5 - side + 1) for x in range(7 - side + 1)]


def plain(model, image, phi, sides, multiply, scale):
    """Every square by itself, one forward pass at a time."""
    model.module.eval()
    changes, predicted = [], []
    for side, y, x in squares(sides):
        removed = image.clone()
        removed[:, y : y + side, x : x + side] = model.mean_colour[:, None, None]
        change = image - removed
        changes.append((model.target_scores(image[None], torch.tensor([2])) - model.target_scores(removed[None], torch.tensor([2]))).double().item())
        predicted.append(((change * phi).sum() if multiply else phi[:, y : y + side, x : x + side].sum()).double().item())
    d, s = torch.tensor(changes), torch.tensor(predicted)
    s = s * (d * s).mean() / (s * s).mean() if scale else s
    return ((d - s) ** 2).mean().item()


@pytest.mark.parametrize("scale", [False, True])
@pytest.mark.parametrize("multiply", [False, True])
def test_same_as_a_plain_loop(conv, photos, multiply, scale):
    """On a net that is not linear, with sides that do not divide the image: no square carries over to the next."""
    for maps in (random_maps(), random_maps(1)):
        phi = maps if maps.shape[1] == 3 else maps.expand(-1, 3, -1, -1) / 3
        found = measure(Infidelity(sides=(2, 3), samples=None, multiply=multiply, scale=scale), conv, photos, 2, maps, details=True)
        assert found.stderr is None
        for i in range(2):
            assert found.values[i].item() == pytest.approx(plain(conv, photos[i], phi[i], (2, 3), multiply, scale), rel=1e-3)


def test_the_order_of_sides_does_not_matter(conv, photos):
    one, other = (measure(Infidelity(sides=sides, samples=None), conv, photos, 2, random_maps()) for sides in ((2, 5), (5, 2)))
    assert torch.allclose(one, other, rtol=1e-4)


@pytest.mark.parametrize("scale", [False, True])
def test_same_as_captum(conv, photos, scale):
    metrics = pytest.importorskip("captum.metrics")
    all_squares = squares((3,))
    inside = torch.zeros(len(all_squares), 1, 5, 7)
    for mask, (side, y, x) in zip(inside, all_squares, strict=True):
        mask[:, y : y + side, x : x + side] = 1
    conv.module.eval()
    found = measure(Infidelity(sides=(3,), samples=None, scale=scale), conv, photos, 2, random_maps())
    for i in range(2):

        def perturbed(inputs):
            change = inside * (inputs - conv.mean_colour[:, None, None])
            return change, inputs - change

        with torch.no_grad():
            wanted = metrics.infidelity(conv, perturbed, photos[i : i + 1], random_maps()[i : i + 1], target=2, n_perturb_samples=len(all_squares), normalize=scale)
        assert found[i].item() == pytest.approx(wanted.item(), rel=1e-3)


def test_perfect_maps_have_none(photos):
    """On a linear model: the gradient; what each entry is worth, not multiplied; and that summed over channels."""
    weights = torch.randn(3, 5, 7, generator=torch.Generator().manual_seed(2))
    model = sal.Model(Linear(weights))
    worth = photos * weights
    for maps, multiply in ((weights.expand(2, -1, -1, -1), True), (worth, False), (worth.sum(1), False)):
        for scale in (True, False):
            metric = Infidelity(sides=(2,), samples=50, multiply=multiply, scale=scale, fill="black")
            assert (measure(metric, model, photos, 1, maps) < 1e-9).all()
            assert (measure(metric, model, photos, 1, maps + 0.3 * random_maps()[:, : maps.shape[1] if maps.ndim == 4 else 1].reshape(maps.shape)) > 1e-3).all()


def test_scaled_maps_have_no_size(conv, photos):
    scaled, plain_ = (measure(Infidelity(samples=60, scale=scale), conv, photos, 2, random_maps()) for scale in (True, False))
    assert torch.allclose(measure(Infidelity(samples=60), conv, photos, 2, -1e-6 * random_maps()), scaled, rtol=1e-4)
    assert (scaled < plain_).all()


def test_a_map_that_predicts_nothing_has_no_scale(conv, photos):
    maps = random_maps()
    maps[1] = 0
    sentence = r"^infidelity has no scale for image 2: its map predicts no change for any square; scale=false judges it as it is\.$"
    with pytest.raises(UndefinedError, match=sentence):
        measure(Infidelity(samples=9), conv, photos, 2, maps)
    with pytest.raises(UndefinedError, match=sentence):
        measure(Infidelity(samples=9), conv, torch.stack([photos[0], conv.mean_colour[:, None, None].expand(3, 5, 7)]), 2, random_maps())
    speck = torch.zeros(2, 5, 7)
    speck[:, 0, 0] = 1
    with pytest.raises(UndefinedError, match=r"^infidelity has no scale for image 1: .* any of the 2 squares drawn, but it does for others: take more samples, or samples=none"):
        measure(Infidelity(sides=(1,), samples=2), conv, photos, 2, speck)
    assert measure(Infidelity(sides=(1,), samples=None), conv, photos, 2, speck).isfinite().all()
    found = measure(Infidelity(sides=(2,), samples=None, scale=False), conv, photos, 2, torch.zeros(2, 5, 7))
    assert found[0].item() == pytest.approx(plain(conv, photos[0], torch.zeros(3, 5, 7), (2,), True, False), rel=1e-3)


@pytest.mark.parametrize("scale", [False, True])
def test_a_sample_estimates_the_whole_and_knows_its_error(conv, photos, scale):
    n = 300
    maps = sal.explain("gradient", conv, photos[:1], 2).maps
    whole = measure(Infidelity(sides=(1, 2, 3), samples=None, scale=scale), conv, photos[:1], 2, maps)
    metric = Infidelity(sides=(1, 2, 3), samples=60, scale=scale)
    found = measure(metric, conv, photos[:1].expand(n, -1, -1, -1), 2, maps.expand(n, -1, -1, -1), seed=range(n), details=True)
    bias = 0 if not scale else whole.item() * 2 / 60  # the scale is fitted to the sample
    assert abs(found.values.mean() - whole.item()) < 5 * found.values.std() / n**0.5 + bias
    assert found.stderr.mean().item() == pytest.approx(found.values.std().item(), rel=0.15)


def test_seeds_chunks_and_batches(conv, photos):
    metric, maps = Infidelity(samples=31), random_maps()
    first = measure(metric, conv, photos, 2, maps, seed=[0, 1])
    for chunk in (1, 7):
        assert torch.allclose(measure(metric, conv, photos, 2, maps, seed=[0, 1], chunk=chunk), first, rtol=1e-3)
    assert torch.allclose(measure(metric, conv, photos[1:], 2, maps[1:], seed=1), first[1:], rtol=1e-3)
    assert not torch.allclose(measure(metric, conv, photos, 2, maps, seed=9), first, rtol=1e-2)


@pytest.mark.parametrize("sides", [(0,), (2, 6)])
def test_sides_that_do_not_fit_are_refused(conv, photos, sides):
    with pytest.raises(sal.InputError, match=r"^infidelity: sides must be from 1 to 5 pixels for images of 5 x 7\.$"):
        measure(Infidelity(sides=sides), conv, photos, 2, random_maps())
