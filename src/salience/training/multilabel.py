"""Training where a picture has several classes."""

from dataclasses import replace
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from salience.core.draws import Stream
from salience.core.model import Model
from salience.core.registry import register
from salience.core.types import Images
from salience.training.architecture import Architecture
from salience.training.recipe import Recipe


@register("recipe", "multilabel", cites="Bykov et al. 2022")
class Multilabel(Recipe):
    """One sigmoid a class: binary cross-entropy, for pictures with several classes such as those of PASCAL VOC.

    Cost: one forward and one backward pass a picture.

    Full setting: 200 epochs of stochastic gradient descent, rate 0.01 and a half of it for the second half; pictures mirrored, turned by up to
    30 degrees, slanted by up to 5. Pictures have 224 pixels a side, and unless another network is asked for it begins with ImageNet's weights.

    Source: "NoiseGrad and FusionGrad" (2022), appendix on training.

    Differs from the source: momentum and batch size are not given there; these are 0 and 128. Pictures are not mirrored top to bottom, nor
    moved or shrunk, of which it gives no amounts with units.
    """

    multilabel: ClassVar[bool] = True
    network: ClassVar[str] = "torchvision:resnet18"
    full_network: ClassVar[str] = "torchvision:resnet18:pretrained=true"
    full_size: ClassVar[int] = 224

    def full(self, architecture: Architecture) -> Recipe:
        """The papers' PASCAL VOC setting."""
        return replace(self, epochs=200, rate=0.01, momentum=0.0, weight_decay=0.0, drops=1, falls_to=0.5, flip=True, degrees=30, shear=5)

    def loss(self, net: Model, images: Images, labels: Tensor, *, epoch: int, stream: Stream) -> Tensor:
        """Mean binary cross-entropy over pictures and classes."""
        return F.binary_cross_entropy_with_logits(net(images), labels.float())
