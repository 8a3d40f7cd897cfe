"""Learned perceptual image patch similarity."""

import importlib.util
import re
from functools import lru_cache
from pathlib import Path
from typing import Literal
from urllib.parse import urlparse

import torch
from torch import nn

from salience.core.errors import InputError
from salience.core.options import option
from salience.core.registry import register
from salience.core.similarity import Similarity
from salience.core.types import Images, PerImage

Net = Literal["alex", "squeeze", "vgg"]

BACKBONES = {"alex": "AlexNet_Weights", "squeeze": "SqueezeNet1_1_Weights", "vgg": "VGG16_Weights"}
"""torchvision's names for the weights of each network."""

SMALLEST = 32
PIXELS_AT_ONCE = 8 * 224 * 224


@register("similarity", "lpips", higher_is_better=False, within=(0.0, None), of="images", cites="Zhang et al. 2018")
class LPIPS(Similarity):
    """Perceptual distance of two images in [0, 1]: 0 for equal ones, larger the more they differ to the eye.

    Squared differences of unit-length features at several layers of a network, weighted by learned weights,
    averaged over places and summed over layers. Weights are never downloaded: the network's file must be in
    torch's cache, or be named.

    Cost: two forward passes of that network a pair.

    Source: Zhang et al. (2018), version 0.1, through torchmetrics.

    Differs from the source: "Smoothed explanations" (2022) fed images in [0, 1] as they are: ``rescale=false``.
    """

    net: Net = option("vgg", "the network whose features are compared: alex, squeeze or vgg")
    weights: str | None = option(None, "file with the network's ImageNet weights; none: torchvision's file in torch's cache")
    rescale: bool = option(True, "bring images from [0, 1] to [-1, 1], which the learned weights expect")

    def compare(self, first: Images, second: Images) -> PerImage:
        """Perceptual distances."""
        for images in (first, second):
            if images.shape[1] not in (1, 3) or min(images.shape[-2:]) < SMALLEST:
                raise InputError(f"{self.name} compares images with 1 or 3 channels and at least {SMALLEST} x {SMALLEST} pixels, not {tuple(images.shape[1:])}.")
            if images.min() < -1e-3 or images.max() > 1 + 1e-3:
                raise InputError(f"{self.name} compares images in [0, 1]: give images, not maps.")
        network = _network(self.net, str(self.file().resolve()))
        a, b = (images.float().expand(-1, 3, -1, -1) for images in (first, second))
        step = max(PIXELS_AT_ONCE // (a.shape[-2] * a.shape[-1]), 1)
        with torch.no_grad():
            return torch.cat([network(a[part : part + step], b[part : part + step], normalize=self.rescale).flatten() for part in range(0, len(a), step)])

    @property
    def at_hand(self) -> bool:
        """Whether there are torchmetrics and a file of weights."""
        try:
            self.file()
        except InputError:
            return False
        return importlib.util.find_spec("torchmetrics") is not None

    def file(self) -> Path:
        """Where the network's weights are.

        Raises:
            InputError: If there is no such file.
        """
        import torchvision

        expected = Path(urlparse(getattr(torchvision.models, BACKBONES[self.net]).DEFAULT.url).path).name
        path = Path(torch.hub.get_dir()) / "checkpoints" / expected if self.weights is None else Path(self.weights)
        if not path.is_file():
            raise InputError(f"{self.name} never downloads, and its network's weights are not at {path}: put torchvision's {expected} there, or name the file as {self.name}:weights=PATH.")
        return path


@lru_cache(maxsize=2)
def _network(net: Net, path: str) -> nn.Module:
    """The network with the weights of a file and torchmetrics' learned weights; the global random state stays as it was."""
    try:
        from torchmetrics.functional.image.lpips import _LPIPS
    except ImportError as error:
        raise InputError("lpips needs torchmetrics: pip install 'salience[lpips]'.") from error
    with torch.random.fork_rng(devices=[]):
        network = _LPIPS(net=net, pnet_rand=True)
    try:
        given = torch.load(path, map_location="cpu", weights_only=True)
        network.net.load_state_dict({key: given[re.sub(r"^slices?\.?\d+\.", "features.", key)] for key in network.net.state_dict()})
    except Exception as error:  # torch raises many kinds for damaged and for wrong files; each means the same to the user
        raise InputError(f"{path} does not hold torchvision's weights of {net} ({type(error).__name__}): give the file that torchvision stores.") from error
    return network.eval()
