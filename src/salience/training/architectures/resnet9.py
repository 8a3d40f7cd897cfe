"""ResNet-9."""

from torch import Tensor, nn

from salience.core.registry import register
from salience.training.architecture import Architecture


class Residual(nn.Module):
    """Two convolutions with batch norm and ReLU, then their input is added; no ReLU after the sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*convolution(channels, channels), *convolution(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, h, w) to the same shape."""
        return self.body(x) + x


def convolution(before: int, after: int) -> list[nn.Module]:
    """A convolution of 3 x 3 without bias, batch norm that follows the last batches closely, ReLU."""
    return [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after, momentum=0.9), nn.ReLU()]


@register("architecture", "resnet9", cites="Bykov et al. 2022")
class ResNet9(Architecture):
    """Eight convolutions, two residual sums and one linear layer; 32 x 32 only.

    Channels width, 2 width, residual, 4 width, 4 width, residual, with max pooling after all but the first.

    Source: "NoiseGrad and FusionGrad" (2022), experiments; the layers are those of the same first author's later public code.

    Differs from the source: whether the papers' network is this one to the last layer is not known.
    """

    def build(self) -> nn.Module:
        """An untrained network."""
        w = self.width
        start = [*convolution(self.channels, w), *convolution(w, 2 * w), nn.MaxPool2d(2), Residual(2 * w)]
        middle = [*convolution(2 * w, 4 * w), nn.MaxPool2d(2), *convolution(4 * w, 4 * w), nn.MaxPool2d(2), Residual(4 * w), nn.MaxPool2d(2)]
        return nn.Sequential(*start, *middle, nn.Flatten(), nn.Linear(16 * w, self.classes))
