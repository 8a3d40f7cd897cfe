"""ROAD, against a dense system written down from the paper, against pytorch-grad-cam, and on maps known to be good or bad."""

import numpy as np
import pytest
import torch

import salience as sal
from salience.core.draws import streams
from salience.core.metric import measure
from salience.metrics.road import Road, imputed, neighbours


def random_maps(channels=3):
    return torch.randn(2, channels, 5, 7, generator=torch.Generator().manual_seed(3))


def plain_imputed(image, removed):
    """Every removed pixel is the weighted mean of the neighbours it has: a dense system, one equation at a time."""
    c, h, w = image.shape
    places = [tuple(place) for place in np.argwhere(removed)]
    system, known = np.zeros((len(places), len(places))), np.zeros((len(places), c))
    for row, (y, x) in enumerate(places):
        for dy, dx in ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)):
            near, weight = (y + dy, x + dx), 1 / 12 if dy and dx else 1 / 6
            if 0 <= near[0] < h and 0 <= near[1] < w:
                system[row, row] += weight
                if near in places:
                    system[row, places.index(near)] -= weight
                else:
                    known[row] += weight * image[:, near[0], near[1]]
    result = image.copy()
    result[:, removed] = np.linalg.solve(system, known).T
    return result


@pytest.mark.parametrize("noise", [0.0, 0.05])
@pytest.mark.parametrize("channels", [1, 3])
def test_same_as_a_plain_loop(conv, photos, channels, noise):
    """RGB, several images, maps of one channel and of three; scores that differ (not zeros, not the first image's)."""
    conv.module.eval()
    maps, percentages = random_maps(channels), (10, 50, 97)
    found = measure(Road(percentages=percentages, noise=noise), conv, photos, [2, 3], maps, seed=[4, 5], details=True)
    saliency = maps[:, 0] if channels == 1 else maps.abs().sum(1)
    counts = [4, 18, 34]  # 3.5, 17.5 and 33.95 of 35, half to even
    for i, stream in enumerate(streams([4, 5], 2)):
        stream, order, scores = stream.at("metric", "road"), saliency[i].flatten().argsort(descending=True).numpy(), []
        for count in counts:
            removed = np.zeros(35, dtype=bool)
            removed[order[:count]] = True
            image = plain_imputed(photos[i].double().numpy(), removed.reshape(5, 7))
            image = image + noise * stream.normal((3, 35), "noise", count).view(3, 5, 7).numpy() * removed.reshape(5, 7)
            scores.append(conv.outputs(torch.from_numpy(image).float()[None]).softmax(1)[0, 2 + i].item())
        assert found.curves["road"].y[i].tolist() == pytest.approx(scores, abs=1e-5)
        assert found.values[i].item() == pytest.approx(sum(scores) / 3, abs=1e-5)
    assert torch.allclose(found.curves["road"].x, torch.tensor(counts) / 35)


@pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")
def test_the_imputer_is_that_of_pytorch_grad_cam():
    peer = pytest.importorskip("pytorch_grad_cam.metrics.road").NoisyLinearImputer(noise=0)
    generator = np.random.default_rng(0)
    for h, w, share in ((11, 13, 0.1), (17, 8, 0.9), (30, 31, 0.5)):
        image, removed = generator.random((3, h, w), dtype=np.float32), generator.random((h, w)) < share
        removed[0, 0] = True
        wanted = peer(torch.from_numpy(image), torch.from_numpy(~removed).float()).numpy()
        found = imputed(neighbours(h, w), image.reshape(3, -1), removed.ravel())
        assert np.allclose(found, wanted[:, removed], atol=1e-5)


def test_a_ramp_comes_back():
    """A plane satisfies the equations wherever all eight neighbours exist."""
    y, x = np.mgrid[:20, :23].astype(np.float32) / 30
    picture, removed = np.stack([y, x, 0.3 * x + 0.2 * y]), np.zeros((20, 23), dtype=bool)
    removed[3:17, 2:19] = True
    assert np.allclose(imputed(neighbours(20, 23), picture.reshape(3, -1), removed.ravel()), picture[:, removed], atol=1e-6)


class Bright(torch.nn.Module):
    """Class 1's logit is how bright a square is."""

    def forward(self, x):
        score = 8 * x[:, :, 4:8, 5:9].mean((1, 2, 3)) - 4
        return torch.stack([torch.zeros_like(score), score], 1)


def test_perfect_reversed_and_constant_maps():
    """Painting over the square takes the score away; all else does nothing."""
    image = torch.zeros(1, 3, 12, 14)
    image[:, :, 4:8, 5:9] = 1
    model, maps = sal.Model(Bright()), image[:, :1]
    perfect, constant, reversed_ = (measure(Road(percentages=(20, 50)), model, image, 1, each).item() for each in (maps, torch.zeros_like(maps), -maps))
    assert perfect < 0.05
    assert 0.8 < constant < reversed_


def test_seeds_chunks_batches_and_other_percentages(conv, photos):
    maps, metric = random_maps(), Road(percentages=(20, 60))
    first = measure(metric, conv, photos, 2, maps, seed=[0, 1], details=True)
    for chunk in (1, 3):
        assert torch.allclose(measure(metric, conv, photos, 2, maps, seed=[0, 1], chunk=chunk), first.values, atol=1e-5)
    assert torch.allclose(measure(metric, conv, photos[1:], 2, maps[1:], seed=1), first.values[1:], atol=1e-5)
    alone = measure(Road(percentages=(60,)), conv, photos, 2, maps, seed=[0, 1])
    assert torch.allclose(alone, first.curves["road"].y[:, 1], atol=1e-5)
    assert not torch.equal(measure(metric, conv, photos, 2, maps, seed=9), first.values)


def test_equal_pixels_go_in_seeded_order(conv, photos):
    constant, metric = torch.zeros(2, 5, 7), Road(noise=0)
    one, again, other = (measure(metric, conv, photos, 2, constant, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_images_are_not_changed(conv, photos):
    before = photos.clone()
    measure(Road(), conv, photos, 2, random_maps(), chunk=100)
    measure(Road(), conv, photos[:1], 2, random_maps()[:1], chunk=1)
    assert torch.equal(photos, before)


@pytest.mark.parametrize("percentages", [(), (0,), (50, 100)])
def test_percentages_that_cannot_be_are_refused(percentages):
    with pytest.raises(sal.InputError, match=r"^road: percentages must lie above 0 and below 100, for example percentages=20\+50\.$"):
        Road(percentages=percentages)
