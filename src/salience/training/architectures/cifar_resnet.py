"""ResNet-8 and ResNet-20, the small ones made for CIFAR-10."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from salience.core.options import option
from salience.core.registry import register
from salience.training.architecture import Architecture


class Block(nn.Module):
    """Two convolutions of 3 x 3 with batch norm and a shortcut without weights: every second pixel, and zeros for the new channels."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.stride = 1 if before == after else 2
        missing = after - before
        self.padding = (0, 0, 0, 0, missing // 2, missing - missing // 2)
        first = (nn.Conv2d(before, after, 3, self.stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU())
        self.body = nn.Sequential(*first, nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        """(n, before, h, w) to (n, after, h / stride, w / stride)."""
        shortcut = x if self.stride == 1 else F.pad(x[:, :, :: self.stride, :: self.stride], self.padding)
        return torch.relu(self.body(x) + shortcut)


class CIFARResNet(Architecture):
    """A convolution, three stages of `depth` blocks with width, 2 width and 4 width channels, the mean over the image, one linear layer."""

    depth: ClassVar[int]

    def build(self) -> nn.Module:
        """An untrained network."""
        before = self.width
        layers: list[nn.Module] = [nn.Conv2d(self.channels, before, 3, 1, 1, bias=False), nn.BatchNorm2d(before), nn.ReLU()]
        for times in (1, 2, 4):
            for _ in range(self.depth):
                layers.append(Block(before, self.width * times))
                before = self.width * times
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, self.classes))


@register("architecture", "resnet8", cites="He et al. 2016")
class ResNet8(CIFARResNet):
    """Three blocks of two convolutions, shortcuts without weights: 75,290 weights.

    Source: He et al. (2016), "Deep residual learning for image recognition", section 4.2, with n = 1.

    Differs from the source: nothing.
    """

    width: int = option(16, "channels of the first convolution; all others follow", at_least=1)
    depth: ClassVar = 1


@register("architecture", "resnet20", cites="He et al. 2016")
class ResNet20(CIFARResNet):
    """Nine blocks of two convolutions, shortcuts without weights: 269,722 weights.

    Source: He et al. (2016), "Deep residual learning for image recognition", section 4.2, with n = 3.

    Differs from the source: nothing.
    """

    width: int = option(16, "channels of the first convolution; all others follow", at_least=1)
    depth: ClassVar = 3
