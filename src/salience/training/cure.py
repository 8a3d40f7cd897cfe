"""CURE: training for small curvature."""

from dataclasses import replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from salience.core.draws import Stream
from salience.core.errors import InputError
from salience.core.model import Model
from salience.core.options import option
from salience.core.registry import register
from salience.core.types import Images
from salience.training.architecture import Architecture
from salience.training.recipe import Recipe


@register("recipe", "cure", cites="Moosavi-Dezfooli et al. 2019")
class Cure(Recipe):
    """Cross-entropy, and a penalty on how much its gradient changes along its own sign; it begins with a trained network.

    loss = CE(x) + strength * mean_i || grad CE(x + z)_i - grad CE(x)_i ||, z = h sign(grad CE(x)) / || sign(grad CE(x)) ||, where the
    gradients are those of the batch's mean cross-entropy by the normalised image, batch norm is in evaluation mode and z is a constant.

    Cost: about six forward and backward passes a picture, those of the penalty in float32.

    Full setting: 10 epochs of Adam at a constant rate of 0.0001, batches of 128, h = 0.1, 0.4, 0.8, 1.8, 3 and then 3, strength 1,
    pictures as they are.

    Source: Moosavi-Dezfooli et al. (2019), "Robustness via curvature regularization, and vice versa", as in the public code CURE.

    Differs from the source: the norm is not squared and gradients carry one over the batch size, as in the code, not the paper; the last
    epoch's network is kept, not the best one's on the test pictures.
    """

    pretrained: ClassVar[bool] = True

    rate: float = option(1e-4, "largest learning rate", above=0)
    weight_decay: float = option(0.0, "weight decay, as the optimiser counts it", at_least=0)
    radius: tuple[float, ...] = option((0.1, 0.4, 0.8, 1.8, 3.0), "h, the length of z in normalised images, by epoch, a+b+...; the last stays", above=0)
    strength: float = option(1.0, "weight of the penalty", at_least=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.radius or min(self.radius) <= 0:
            raise InputError("cure: radius must be one positive number an epoch, such as 0.1+0.4+0.8.")

    def full(self, architecture: Architecture) -> Recipe:
        """The setting of the authors' example."""
        return replace(self, epochs=10, rate=1e-4, momentum=None, weight_decay=0.0, drops=0, batch=128, radius=(0.1, 0.4, 0.8, 1.8, 3.0), strength=1.0)

    def loss(self, net: Model, images: Images, labels: Tensor, *, epoch: int, stream: Stream) -> Tensor:
        """Mean cross-entropy and the penalty."""
        clean = F.cross_entropy(net(images), labels)
        return clean + self.strength * self.penalty(net, images, labels, self.radius[min(epoch, len(self.radius) - 1)])

    def penalty(self, net: Model, images: Images, labels: Tensor, h: float) -> Tensor:
        """How much the gradient changes from x to x + z, in the mean over the images; differentiable by the weights."""
        x = net.normalise(images).contiguous(memory_format=torch.channels_last).requires_grad_(True)

        def gradient(points: Tensor) -> Tensor:
            return torch.autograd.grad(F.cross_entropy(net.module(points), labels), x, create_graph=True)[0]

        with net.frozen():
            here = gradient(x)
            sign = here.detach().sign()
            z = h * sign / sign.flatten(1).norm(dim=1).clamp_min(1)[:, None, None, None]
            return (gradient(x + z) - here).flatten(1).norm(dim=1).mean()
