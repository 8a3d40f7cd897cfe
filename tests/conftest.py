"""Shape and type checks on, one thread, a few small models."""

import typecheck

typecheck.check("salience")

import signal

import pytest
import torch
from torch import nn

import salience as sal

torch.set_num_threads(1)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore Ctrl-C, and so would the processes that tests start


@pytest.fixture(autouse=True)
def the_same_numbers_in_every_run():
    torch.manual_seed(0)


class ConvNet(nn.Module):
    """Two convolutions with batch norm, ReLU as a module, in place and as a function; any input size."""

    def __init__(self, channels: int = 3, classes: int = 5) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.second = nn.Conv2d(6, 8, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(8, classes)

    def forward(self, x):
        x = self.relu(self.norm(self.first(x)))
        x = torch.relu(self.second(x))
        return self.head(self.drop(x.mean((2, 3))))


def conv_net(channels: int = 3, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = ConvNet(channels)
        net.norm.running_mean.normal_(0, 0.1)
        net.norm.running_var.uniform_(0.5, 1.5)
        nn.init.normal_(net.norm.bias, 0, 0.2)
        nn.init.normal_(net.head.weight, 0, 2.0)
    return net


def transformer(size: tuple[int, int] = (16, 24)) -> nn.Module:
    import timm

    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = timm.models.VisionTransformer(img_size=size, patch_size=8, embed_dim=16, depth=2, num_heads=2, num_classes=5)
        nn.init.normal_(net.head.weight, 0, 1.0)
    return net


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """No test reads or writes the user's own cache."""
    monkeypatch.setenv("SALIENCE_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def conv():
    model = sal.Model(conv_net(), mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3), labels=["ant", "bee", "cat", "dog", "eel"], name="conv")
    model.weight_sigma = 0.02
    return model


@pytest.fixture
def grey():
    model = sal.Model(conv_net(1), mean=(0.5,), std=(0.25,), channels="L", name="grey")
    model.weight_sigma = 0.02
    return model


@pytest.fixture
def vit():
    model = sal.Model(transformer(), mean=(0.5,) * 3, std=(0.25,) * 3, size=(16, 24), name="vit")
    model.weight_sigma = 0.02
    return model


@pytest.fixture
def photos():
    """Two random images of a prime, non-square size."""
    return torch.rand(2, 3, 5, 7, generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def quick_passes_of_few_pixels(monkeypatch):
    """Tests have small pictures, whose passes would otherwise all be plain ones."""
    monkeypatch.setattr("salience.core.model.LEAST_FORWARD", 0)
    monkeypatch.setattr("salience.core.model.LEAST_GRADIENT", 0)
