"""LeNet."""

from torch import nn

from salience.core.options import option
from salience.core.registry import register
from salience.training.architecture import Architecture


@register("architecture", "lenet", cites="LeCun et al. 1998")
class LeNet(Architecture):
    """Two convolutions of 5 x 5 without padding, each with ReLU and max pooling, and three linear layers; 32 x 32 only.

    Channels 6 and 16, hidden units 120 and 84: 62,006 weights. Another width changes the channels only.

    Source: LeCun et al. (1998), "Gradient-based learning applied to document recognition".

    Differs from the source: ReLU, max pooling, full connections and a linear output, as usual today.
    """

    width: int = option(6, "channels of the first convolution; the second follows", at_least=1)

    def build(self) -> nn.Module:
        """An untrained network."""
        second = round(self.width * 16 / 6)
        first_part = (nn.Conv2d(self.channels, self.width, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(self.width, second, 5), nn.ReLU(), nn.MaxPool2d(2))
        return nn.Sequential(*first_part, nn.Flatten(), nn.Linear(25 * second, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, self.classes))
