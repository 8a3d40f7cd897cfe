"""VGG with batch norm."""

from itertools import pairwise
from typing import ClassVar

from torch import nn

from salience.core.registry import register
from salience.training.architecture import Architecture

TIMES = (1, 2, 4, 8, 8)
"""Channels of each stage, in units of the width."""


class VGG(Architecture):
    """Five stages of convolutions of 3 x 3, `depths` of them, each with batch norm and ReLU, a max pooling after each stage, and one linear layer."""

    depths: ClassVar[tuple[int, ...]]

    def build(self) -> nn.Module:
        """An untrained network."""
        layers: list[nn.Module] = []
        channels = [self.channels, *(self.width * times for times in TIMES)]
        for depth, (before, after) in zip(self.depths, pairwise(channels), strict=True):
            for place in range(depth):
                layers += [nn.Conv2d(after if place else before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
            layers.append(nn.MaxPool2d(2))
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels[-1], self.classes))


@register("architecture", "vgg11", cites="Simonyan & Zisserman 2015")
class VGG11(VGG):
    """Eight convolutions and one linear layer.

    Source: Simonyan & Zisserman (2015), "Very deep convolutional networks", configuration A.

    Differs from the source: batch norm, and one linear layer after the mean over what is left of the image, as usual for CIFAR-10.
    """

    depths: ClassVar = (1, 1, 2, 2, 2)


@register("architecture", "vgg16", cites="Simonyan & Zisserman 2015")
class VGG16(VGG):
    """Thirteen convolutions and one linear layer.

    Source: Simonyan & Zisserman (2015), "Very deep convolutional networks", configuration D.

    Differs from the source: batch norm, and one linear layer after the mean over what is left of the image, as usual for CIFAR-10.
    """

    depths: ClassVar = (2, 2, 3, 3, 3)
