"""Networks whose weights are ordinary files: models for ``python:models:NAME`` in the studies.

The files are sought in the folder that the environment variable ``SALIENCE_DATA`` names, by default ``../shared/data``:

- ``imagenet_models/squeezenet1_0.npz``: SqueezeNet 1.0 for ImageNet, arrays named as in torchvision's network;
- ``cifar_models/akamaster_resnet20-12fca82f.th`` and ``cifar_models/recoloradv_KIND.resnet32.pt``: ResNets for
  CIFAR-10, one ResNet-20 and four ResNet-32 of one architecture, trained plainly or against one kind of attack.
"""

import os
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import salience as sal

CIFAR_CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def data_folder() -> Path:
    """The folder of data and weights.

    Raises:
        InputError: If it does not exist.
    """
    folder = Path(os.environ.get("SALIENCE_DATA", "../shared/data"))
    if not folder.is_dir():
        raise sal.InputError(f"The folder {folder} does not exist: set SALIENCE_DATA to the folder of data sets and weights.")
    return folder


def data_file(*parts: str) -> Path:
    """A file in `data_folder`.

    Raises:
        InputError: If it is not there.
    """
    path = data_folder().joinpath(*parts)
    if not path.is_file():
        raise sal.InputError(f"The file {path} does not exist: add it, or set SALIENCE_DATA to another folder of data sets and weights.")
    return path


def squeezenet() -> sal.Model:
    """SqueezeNet 1.0, 227 pixels, BGR from 0 to 255 minus a mean: convolutions and ReLUs alone, about 62 % right on ImageNet."""
    from torchvision.models import ResNet18_Weights
    from torchvision.models import squeezenet1_0 as architecture

    module = architecture(weights=None)
    with np.load(data_file("imagenet_models", "squeezenet1_0.npz"), allow_pickle=False) as stored:
        module.load_state_dict({name: torch.from_numpy(stored[name]) for name in stored.files})
    model = sal.Model(
        module.eval().to(memory_format=torch.channels_last), mean=(104.0, 117.0, 123.0), value_range=255, channels="BGR", size=227, labels=ResNet18_Weights.IMAGENET1K_V1.meta["categories"]
    )
    model.crop_fraction = 227 / 256
    return model


def squeezenet_unrectified() -> sal.Model:
    """The same without the ReLU after its class scores, which are then averaged: as right as with it.

    With it a class whose score is 0 everywhere has no gradient at all, as is often so when layers are random; networks that
    end in a linear layer, like VGG-16, do not have that.
    """
    model = squeezenet()
    model.module.classifier[2] = nn.Identity()
    return model


class Block(nn.Module):
    """Two convolutions and a shortcut without weights: every second pixel, and channels of zeros on both sides."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.stride, self.zeros = (1, 0) if inputs == outputs else (2, (outputs - inputs) // 2)
        self.conv1, self.bn1 = nn.Conv2d(inputs, outputs, 3, self.stride, 1, bias=False), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """The block."""
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(out + F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.zeros, self.zeros)))


class CifarResNet(nn.Module):
    """The ResNet of 6 n + 2 layers for images of 32 x 32: three stages of n blocks with 16, 32 and 64 channels (He et al. 2015, section 4.2)."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        self.layer1, self.layer2, self.layer3 = (nn.Sequential(Block(first, last), *(Block(last, last) for _ in range(n - 1))) for first, last in ((16, 16), (16, 32), (32, 64)))
        self.linear = nn.Linear(64, len(CIFAR_CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        """Scores of the ten classes."""
        x = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x))))))
        return self.linear(x.mean((2, 3)))


def _cifar(n: int, file: str) -> sal.Model:
    """A ResNet for CIFAR-10 of 6 n + 2 layers, and its weights."""
    path = data_file("cifar_models", file)
    stored = torch.load(path, weights_only=True, map_location="cpu")
    weights = {name.removeprefix("module."): value for name, value in stored.get("state_dict", stored).items()}
    module = CifarResNet(n)
    tracked = {name: value for name, value in module.state_dict().items() if name.endswith("num_batches_tracked")}
    module.load_state_dict(tracked | weights)  # older files lack these counters, which nothing reads in evaluation mode
    model = sal.Model(module.eval().to(memory_format=torch.channels_last), mean=IMAGENET_MEAN, std=IMAGENET_STD, size=32, labels=CIFAR_CLASSES)
    model.crop_fraction = 1.0
    return model


resnet20 = partial(_cifar, 3, "akamaster_resnet20-12fca82f.th")
"""ResNet-20 for CIFAR-10, plainly trained, 91.8 % right."""

resnet32_normal, resnet32_delta, resnet32_stadv, resnet32_recoloradv = (partial(_cifar, 5, f"recoloradv_{kind}.resnet32.pt") for kind in ("normal", "delta", "stadv", "recoloradv"))
"""ResNet-32 for CIFAR-10, trained plainly, and against additive (L-infinity), spatial and recolouring attacks."""
