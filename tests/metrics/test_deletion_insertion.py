"""Deletion and insertion, against a loop written down from the papers and against numbers known beforehand."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

import salience as sal
from salience.core.metric import Case
from salience.metrics._curves import box_blur


class Counts(torch.nn.Module):
    """Class 1's logit is the sum of the pixels of the first channel less its mean colour, times known weights."""

    def __init__(self, weights: torch.Tensor) -> None:
        super().__init__()
        self.weights = torch.nn.Parameter(weights)

    def forward(self, x):
        score = (x[:, 0] * self.weights).sum((1, 2))
        return torch.stack([torch.zeros_like(score), score], 1)


def reference(net, start, finish, saliency, step):
    """One image, one pixel order, one forward pass at a time."""
    order = np.argsort(-saliency.flatten(), kind="stable")
    current, scores = start.copy(), []
    for i in range(int(np.ceil(saliency.size / step)) + 1):
        scores.append(net(current))
        for pixel in order[i * step : (i + 1) * step]:
            y, x = divmod(pixel, saliency.shape[1])
            current[:, y, x] = finish[:, y, x]
    return (sum(scores) - scores[0] / 2 - scores[-1] / 2) / (len(scores) - 1), scores


@pytest.mark.parametrize("steps", [1, 4, 35])
def test_same_as_a_plain_loop(conv, photos, steps):
    maps = torch.randn(2, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    step = -(-35 // steps)
    with torch.no_grad():

        def net(x):
            return conv(torch.from_numpy(x)[None]).softmax(1)[0, 2].item()

        conv.module.eval()
        for name in ("deletion", "insertion"):
            found = sal.measure(f"{name}:steps={steps}", conv, photos, 2, maps, details=True)
            for i, image in enumerate(photos.numpy()):
                colour = np.broadcast_to(conv.mean_colour.numpy()[:, None, None], image.shape)
                delta = np.zeros((11, 11))
                delta[5, 5] = 1
                kernel = gaussian_filter(delta, 5)
                padded = np.pad(image - colour, ((0, 0), (5, 5), (5, 5)))
                blurred = np.stack([[[(padded[c, y : y + 11, x : x + 11] * kernel).sum() for x in range(7)] for y in range(5)] for c in range(3)]) + colour
                start, finish = (image, colour) if name == "deletion" else (blurred.astype(np.float32), image)
                value, scores = reference(net, start.copy(), finish, maps[i].abs().sum(0).numpy(), step)
                assert found.values[i] == pytest.approx(value, abs=1e-5)
                assert torch.allclose(found.curves[name].y[i], torch.tensor(scores), atol=1e-5)


@pytest.mark.parametrize(("size", "sd"), [(11, 5.0), (3, 5.0), (5, 10.0), (11, 30.0), (7, 0.5), (1, 2.0)])
def test_kernels_of_any_size_and_sd(conv, size, sd):
    image = torch.zeros(1, 3, 31, 31)
    case = Case(conv, image, torch.zeros(1, dtype=torch.long), image, [], [])
    delta = np.zeros((size, size))
    delta[size // 2, size // 2] = 1
    image[..., 15, 15] = 1
    kernel = (box_blur(case, image, size, sd) - box_blur(case, torch.zeros_like(image), size, sd))[0, 0]
    half = size // 2
    assert np.allclose(kernel[15 - half : 16 + half, 15 - half : 16 + half].numpy(), gaussian_filter(delta, sd), rtol=1e-4, atol=1e-6)


def test_the_blur_is_the_authors(conv):
    """Its kernel is nearly flat and sums to one."""
    image = torch.zeros(1, 3, 31, 31)
    image[0, :, 15, 15] = 1
    case = Case(conv, image, torch.tensor([0]), image, [], [])
    kernel = (box_blur(case, image, 11, 5.0) - box_blur(case, torch.zeros_like(image), 11, 5.0))[0, 0]
    delta = np.zeros((11, 11))
    delta[5, 5] = 1
    assert np.allclose(kernel[10:21, 10:21].numpy(), gaussian_filter(delta, 5), atol=1e-6)
    assert kernel.sum() == pytest.approx(1, abs=1e-5)


def test_perfect_reversed_and_constant_maps():
    """With a logit that adds up pixels, the true order is best and the reversed one worst."""
    weights = torch.rand(6, 7, generator=torch.Generator().manual_seed(0)) / 4
    model, image = sal.Model(Counts(weights)), torch.ones(1, 3, 6, 7)
    maps = {"perfect": weights[None], "reversed": -weights[None], "constant": torch.ones(1, 6, 7)}
    for name, sign in (("deletion", -1), ("insertion", 1)):
        values = {kind: sign * sal.measure(f"{name}:steps=42", model, image, 1, each).item() for kind, each in maps.items()}
        assert values["perfect"] > values["constant"] > values["reversed"]


def test_ties_are_random_by_seed_and_original_is_the_last_first(conv, photos):
    constant = torch.zeros(2, 5, 7)
    first, again, other = (sal.measure("deletion:steps=35", conv, photos, 2, constant, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    raster = torch.arange(35.0).view(1, 5, 7).expand(2, 5, 7)
    assert torch.equal(sal.measure("deletion:steps=35,ties=original", conv, photos, 2, constant), sal.measure("deletion:steps=35", conv, photos, 2, raster))


def test_many_ties():
    """More than 65,536 equal pixels."""
    model = sal.Model(Counts(torch.ones(300, 300)))
    assert torch.isfinite(sal.measure("deletion:steps=3", model, torch.rand(1, 3, 300, 300), 1, torch.zeros(1, 300, 300)))


def test_an_even_blur_is_refused():
    with pytest.raises(sal.InputError, match=r"^insertion: blur must be odd, not 10\.$"):
        sal.Insertion(blur=10)
