"""ResNet-18 to ResNet-101 for small images."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from salience.core.options import option
from salience.core.registry import register
from salience.training.architecture import Architecture

NARROWEST = 8
"""Fewest channels into a convolution of 1 x 1 that leaves out every second pixel: its backward pass in torch 2.14 writes beyond its memory with 2 to 7, on a processor, channels last."""


class Block(nn.Module):
    """A residual block: convolutions with batch norm and ReLU between them, the input added, ReLU.

    Args:
        body: The convolutions.
        before: Channels of the input.
        after: Channels of the output; where they or the size differ, the input goes through a convolution of 1 x 1.
        stride: Of the block.
    """

    def __init__(self, body: nn.Module, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.body = body
        same = before == after and stride == 1
        self.shortcut = nn.Identity() if same else nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        """(n, before, h, w) to (n, after, h / stride, w / stride)."""
        return torch.relu(self.body(x) + self.shortcut(x))


class ResNet(Architecture):
    """A convolution of 3 x 3 at full resolution, four stages of blocks, `depths` of them, the mean over the image, one linear layer."""

    depths: ClassVar[tuple[int, ...]]
    times: ClassVar = 1

    def block(self, before: int, channels: int, stride: int) -> Block:
        """Two convolutions of 3 x 3."""
        body = (nn.Conv2d(before, channels, 3, stride, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels))
        return Block(nn.Sequential(*body), before, channels, stride)

    def build(self) -> nn.Module:
        """An untrained network."""
        before = self.width
        layers: list[nn.Module] = [nn.Conv2d(self.channels, before, 3, 1, 1, bias=False), nn.BatchNorm2d(before), nn.ReLU()]
        for stage, depth in enumerate(self.depths):
            channels = self.width * 2**stage
            for place in range(depth):
                layers.append(self.block(before, channels, 2 if stage and not place else 1))
                before = self.times * channels
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, self.classes))


class BottleneckResNet(ResNet):
    """The same of blocks that narrow the image's channels for their convolution of 3 x 3."""

    times: ClassVar = 4

    def block(self, before: int, channels: int, stride: int) -> Block:
        """Convolutions of 1 x 1, 3 x 3 and 1 x 1; the last has four times the channels."""
        first = (nn.Conv2d(before, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, channels, 3, stride, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU())
        return Block(nn.Sequential(*first, nn.Conv2d(channels, 4 * channels, 1, bias=False), nn.BatchNorm2d(4 * channels)), before, 4 * channels, stride)


@register("architecture", "resnet18", cites="He et al. 2016")
class ResNet18(ResNet):
    """Eight blocks of two convolutions.

    Source: He et al. (2016), "Deep residual learning for image recognition".

    Differs from the source: it begins with one convolution of 3 x 3 without stride or pooling, as usual for CIFAR-10.
    """

    width: int = option(64, "channels of the first convolution; all others follow", at_least=NARROWEST)
    depths: ClassVar = (2, 2, 2, 2)


@register("architecture", "resnet34", cites="He et al. 2016")
class ResNet34(ResNet):
    """Sixteen blocks of two convolutions.

    Source: He et al. (2016), "Deep residual learning for image recognition".

    Differs from the source: it begins with one convolution of 3 x 3 without stride or pooling, as usual for CIFAR-10.
    """

    width: int = option(64, "channels of the first convolution; all others follow", at_least=NARROWEST)
    depths: ClassVar = (3, 4, 6, 3)


@register("architecture", "resnet50", cites="He et al. 2016")
class ResNet50(BottleneckResNet):
    """Sixteen blocks of three convolutions.

    Source: He et al. (2016), "Deep residual learning for image recognition".

    Differs from the source: it begins with one convolution of 3 x 3 without stride or pooling, as usual for CIFAR-10; the stride is in the 3 x 3.
    """

    width: int = option(64, "channels of the first convolution; all others follow", at_least=NARROWEST // 4)
    depths: ClassVar = (3, 4, 6, 3)


@register("architecture", "resnet101", cites="He et al. 2016")
class ResNet101(BottleneckResNet):
    """Thirty-three blocks of three convolutions.

    Source: He et al. (2016), "Deep residual learning for image recognition".

    Differs from the source: it begins with one convolution of 3 x 3 without stride or pooling, as usual for CIFAR-10; the stride is in the 3 x 3.
    """

    width: int = option(64, "channels of the first convolution; all others follow", at_least=NARROWEST // 4)
    depths: ClassVar = (3, 4, 23, 3)
