"""What one run of an attack makes small."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from salience.attacks._judge import not_differentiable
from salience.attacks._optimiser import Parameters, composed, random_change
from salience.core.classifier import Classifier, Tape
from salience.core.draws import Stream
from salience.core.errors import InputError
from salience.core.objective import Objective, shares
from salience.core.types import Images, PerImage, Saliency, Targets
from salience.explainers.gradient import Gradient
from salience.perturb.relu import ReplaceReLU, check_scripted, softplus

if TYPE_CHECKING:
    from salience.attacks.attack import Attack

USUAL_SD = 0.2
"""Standard deviation, in [0, 1] units, by which the networks divide for which `beta` is given: CIFAR's, and nearly ImageNet's."""


@dataclass(frozen=True)
class Problem:
    """What is made small for a few images that go through the network together.

    Attributes:
        attack: Its options.
        view: The network, with the score bound.
        images: As they are, (n, c, h, w).
        targets: Class explained, (n,).
        clean: Shares of their maps.
        aim: Shares of the maps aimed at, if there are any.
        streams: Where each image takes its randomness from.
        known: By beta, what the smoothed network says of the images as they are: filled when it is asked for.
    """

    attack: "Attack"
    view: Classifier
    images: Images
    targets: Targets
    clean: Saliency
    aim: Saliency | None
    streams: list[Stream]
    known: dict[float, Tensor] = field(default_factory=dict)

    @property
    def objective(self) -> Objective:
        """What is aimed at."""
        return self.attack.aimed_at

    def start(self, random: bool) -> Parameters:
        """Where a run begins: at no change, or at a random one that uses every budget."""
        threats = self.attack.threats
        return composed(threats, self.images, random_change(threats, self.images, self.streams, 0))[1] if random else [threat.start(self.images) for threat in threats]

    def loss(self, images: Images, step: int) -> PerImage:
        """The objective on the maps of the smoothed network, and the change of its probabilities."""
        attack = self.attack
        view = self.view.using(tape=Tape(self.view.images_at_once(images.shape[-2:])))
        own = [stream.at("attack", 0 if attack.fixed else step) for stream in self.streams]
        with self.smoothed(step):
            made = attack.method.attribute(view, images, self.targets, own)
            outputs = made.outputs
            if attack.output_weight and (outputs is None or not outputs.requires_grad):
                outputs = view(images)  # type: ignore[operator]  # a Model
        loss = self.objective.loss(shares(made.maps), self.clean, self.aim)
        if not attack.output_weight:
            return loss
        return loss + attack.output_weight * (self.view.as_probabilities(outputs) - self.probabilities(step)).square().sum(1)

    def smoothed(self, step: int) -> ReplaceReLU:
        """The network smoothed as in this step."""
        beta = self.beta(step)
        return ReplaceReLU(lambda inputs, ceiling: softplus(inputs, ceiling, beta), leaky=True)

    def probabilities(self, step: int) -> Tensor:
        """Those of the images as they are, by the same smoothed network: the ones of the network itself differ, which is no change of the image's."""
        beta = self.beta(step)
        if beta not in self.known:
            with self.smoothed(step):
                self.known[beta] = self.view.as_probabilities(self.view.outputs(self.images))
        return self.known[beta]

    def check(self, number: int) -> None:
        """Refuse maps whose derivative cannot be followed, where an attack would stand still and look like robustness.

        Args:
            number: Of the first image, for the message.

        Raises:
            InputError: If the objective has no slope anywhere at a random change of the images, or one that is not finite there or where the run begins, or ReLUs in TorchScript have none.
        """
        check_scripted(self.view.module, self.view.name)  # type: ignore[attr-defined]  # a Model
        start, random = (composed(self.attack.threats, self.images, self.start(random))[0] for random in (False, True))
        slopes = [self.slope(start), self.slope(random)]
        for slope in slopes:
            bad = [] if slope is None else (~slope.isfinite()).flatten(1).any(1).nonzero()[:, 0].tolist()
            if bad:
                raise InputError(
                    f"The derivative of the maps of {self.attack.method} is not finite at image {number + bad[0] + 1}, so they cannot be attacked: "
                    f"look in {self.view.name} (or the method) for a division by 0, or a root or norm of 0, and keep it above 0."
                )
        if slopes[1] is None or not slopes[1].any():
            method = self.attack.method
            plain = dataclasses.replace(self, attack=dataclasses.replace(self.attack, method=Gradient())).slope(random)
            if plain is None or not plain.any():
                raise InputError(
                    f"The maps of {method} have no slope, since the activations of {self.view.name} have no second derivative: write them as ReLU, ReLU6, LeakyReLU or PReLU, which an attack smooths."
                )
            raise not_differentiable(method)

    def slope(self, images: Images) -> Images | None:
        """The derivative of the objective alone by the images; None where it does not depend on them."""
        alone = dataclasses.replace(self, attack=dataclasses.replace(self.attack, output_weight=0.0))
        images = images.detach().requires_grad_(True)
        with torch.enable_grad():
            total = alone.loss(images, 0).sum()
            return torch.autograd.grad(total, images, allow_unused=True)[0] if total.requires_grad else None

    def beta(self, step: int) -> float:
        """The sharpness in this step: constant, or growing geometrically."""
        first, last = self.attack.beta[0], self.attack.beta[-1]
        return units(self.view) * first * (last / first) ** (step / max(self.attack.steps - 1, 1))


def fixed_draws(sources: Sequence[Stream]) -> list[Stream]:
    """The draws that the first run of a `fixed` attack sees in every step."""
    return [stream.at(0).at("attack", 0) for stream in sources]


def units(model: Classifier) -> float:
    """What `beta` is multiplied by: 1 for networks that divide pictures by their sd, less for those that take larger numbers.

    A softplus of beta 100 in a network that takes pictures from 0 to 255 is a ReLU again, and hides the second derivatives.
    """
    return min(1.0, float((model.std / model.value_range).mean()) / USUAL_SD)  # type: ignore[attr-defined]  # a Model
