"""LPIPS: never a download, and the published formula when the weights are there."""

import sys
from pathlib import Path

import pytest
import torch
import torchmetrics
import torchvision
from torchmetrics.functional.image.lpips import learned_perceptual_image_patch_similarity

import salience as sal
from salience.core.similarity import similarity
from salience.similarities.lpips import LPIPS, _network

HEADS = Path(torchmetrics.__file__).parent / "functional" / "image" / "lpips_models"
LAYERS = {"alex": (2, 5, 8, 10, 12), "vgg": (4, 9, 16, 23, 30)}


@pytest.fixture
def no_network(monkeypatch):
    """Whoever tries to download fails the test."""

    def refuse(*args, **kwargs):
        pytest.fail("a download was tried")

    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    monkeypatch.setattr("urllib.request.urlopen", refuse)


@pytest.fixture
def cache(tmp_path, monkeypatch, no_network):
    """An empty cache of torch's."""
    monkeypatch.setattr("torch.hub._hub_dir", str(tmp_path / "hub"))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    _network.cache_clear()
    yield tmp_path / "hub" / "checkpoints"
    _network.cache_clear()


def images(height=40, width=48, channels=3):
    draws = torch.rand(2, 3, channels, height, width, generator=torch.Generator().manual_seed(0))
    return draws[0], draws[1]


def random_weights(net):
    """A state of torchvision's network; only its features, but for the small one."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if net == "squeeze":
            return torchvision.models.squeezenet1_1(weights=None).state_dict()
        return {f"features.{key}": value for key, value in features_of(net).state_dict().items()}


def features_of(net):
    if net == "alex":
        return torchvision.models.AlexNet().features
    return torchvision.models.vgg.make_layers([64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"])


@pytest.mark.parametrize(("net", "file"), [("vgg", "vgg16-397923af.pth"), ("alex", "alexnet-owt-7be5be79.pth"), ("squeeze", "squeezenet1_1-b8a52dc0.pth")])
def test_refuses_rather_than_downloads(net, file, cache):
    a, b = images()
    where = cache / file
    with pytest.raises(sal.InputError) as error:
        similarity(LPIPS(net=net), a, b)
    assert str(error.value) == f"lpips never downloads, and its network's weights are not at {where}: put torchvision's {file} there, or name the file as lpips:weights=PATH."


def test_a_named_file_that_is_not_there_or_not_weights(cache, tmp_path):
    a, b = images()
    with pytest.raises(sal.InputError, match=r"^lpips never downloads, and its network's weights are not at .*none\.pth: "):
        similarity(LPIPS(weights=str(tmp_path / "none.pth")), a, b)
    (tmp_path / "bad.pth").write_bytes(b"not weights")
    with pytest.raises(sal.InputError, match=r"bad\.pth does not hold torchvision's weights of squeeze \(\w+\): give the file that torchvision stores\.$"):
        similarity(LPIPS(net="squeeze", weights=str(tmp_path / "bad.pth")), a, b)
    torch.save({"features.0.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(sal.InputError, match=r"other\.pth does not hold torchvision's weights of squeeze \(KeyError\): give the file that torchvision stores\.$"):
        similarity(LPIPS(net="squeeze", weights=str(tmp_path / "other.pth")), a, b)


def test_without_torchmetrics(cache, tmp_path, monkeypatch):
    torch.save(random_weights("squeeze"), tmp_path / "some.pth")
    monkeypatch.setitem(sys.modules, "torchmetrics.functional.image.lpips", None)
    with pytest.raises(sal.InputError, match=r"^lpips needs torchmetrics: pip install 'salience\[lpips\]'\.$"):
        similarity(LPIPS(net="squeeze", weights=str(tmp_path / "some.pth")), *images())


def test_same_as_torchmetrics_with_the_file_in_the_cache(cache):
    """Its public function reads the same file from the same cache."""
    torch.save(random_weights("squeeze"), cache / "squeezenet1_1-b8a52dc0.pth")
    a, b = images()
    state = torch.get_rng_state()
    found = similarity("lpips:net=squeeze", a, b)
    assert torch.equal(state, torch.get_rng_state())
    expected = learned_perceptual_image_patch_similarity(a, b, net_type="squeeze", normalize=True, reduction="none")
    assert torch.allclose(found, expected, atol=1e-6)
    raw = learned_perceptual_image_patch_similarity(a, b, net_type="squeeze", normalize=False, reduction="none")
    assert torch.allclose(similarity("lpips:net=squeeze,rescale=false", a, b), raw, atol=1e-6)
    assert not torch.allclose(found, raw, atol=1e-4)
    assert similarity("lpips:net=squeeze", a, a).tolist() == [0, 0, 0]
    assert torch.allclose(torch.cat([similarity("lpips:net=squeeze", a[i : i + 1], b[i : i + 1]) for i in range(3)]), found, atol=1e-6)


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_same_as_the_formula(net, cache, tmp_path):
    """Written down from the paper: unit-length features, learned weights, mean over places, sum over layers."""
    state = random_weights(net)
    torch.save(state, tmp_path / "named.pth")
    a, b = images()
    heads = list(torch.load(HEADS / f"{net}.pth", map_location="cpu", weights_only=True).values())
    features = features_of(net)
    features.load_state_dict({key.removeprefix("features."): value for key, value in state.items()})
    shift, scale = (torch.tensor(each)[:, None, None] for each in ((-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)))
    expected = torch.zeros(3)
    with torch.no_grad():
        for head, layer in zip(heads, LAYERS[net], strict=True):
            one, two = (features[:layer]((2 * each - 1 - shift) / scale) for each in (a, b))
            gap = (one / (one.square().sum(1, keepdim=True) + 1e-8).sqrt() - two / (two.square().sum(1, keepdim=True) + 1e-8).sqrt()).square()
            expected += (gap * head).sum(1).mean((1, 2))
    assert torch.allclose(similarity(LPIPS(net=net, weights=str(tmp_path / "named.pth")), a, b), expected, rtol=1e-4)


def test_only_images_are_compared(cache, tmp_path):
    torch.save(random_weights("squeeze"), tmp_path / "some.pth")
    lpips = LPIPS(net="squeeze", weights=str(tmp_path / "some.pth"))
    a, b = images()
    with pytest.raises(sal.InputError, match=r"^lpips compares images in \[0, 1\]: give images, not maps\.$"):
        similarity(lpips, a, -b)
    with pytest.raises(sal.InputError, match=r"^lpips compares images with 1 or 3 channels and at least 32 x 32 pixels, not \(3, 31, 40\)\.$"):
        similarity(lpips, *images(31, 40))
    grey = images(channels=1)
    assert torch.allclose(similarity(lpips, *grey), similarity(lpips, *(each.expand(-1, 3, -1, -1) for each in grey)), atol=1e-7)
