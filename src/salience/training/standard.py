"""Standard training."""

from dataclasses import replace
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from salience.core.draws import Stream
from salience.core.model import Model
from salience.core.registry import register
from salience.core.types import Images
from salience.training.architecture import Architecture
from salience.training.architectures.vgg import VGG11, VGG16
from salience.training.recipe import Recipe


@register("recipe", "standard", cites="Bykov et al. 2022")
class Standard(Recipe):
    """Cross-entropy of the pictures as they are.

    Cost: one forward and one backward pass a picture.

    Full setting: 20 epochs at a constant rate, VGG by stochastic gradient descent (rate 0.01, momentum 0.9), the others by
    AdamW (rate 0.001); pictures turned by up to 15 degrees, moved by 5 %, shrunk by 5 %.

    Source: "NoiseGrad and FusionGrad" (2022), appendix on training.

    Differs from the source: batch size and weight decay are not given there; these are 128 and torch's own.
    """

    network: ClassVar[str] = "resnet9"

    def full(self, architecture: Architecture) -> Recipe:
        """The papers' CMNIST setting."""
        same = replace(self, epochs=20, drops=0, degrees=15, shift=2, shrink=0.05, shear=0.05)
        if isinstance(architecture, VGG11 | VGG16):
            return replace(same, rate=0.01, momentum=0.9, weight_decay=0.0)
        return replace(same, rate=0.001, momentum=None, weight_decay=0.01)

    def loss(self, net: Model, images: Images, labels: Tensor, *, epoch: int, stream: Stream) -> Tensor:
        """Mean cross-entropy."""
        return F.cross_entropy(net(images), labels)
