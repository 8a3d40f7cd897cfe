"""What a recipe is: a frozen set of options with a loss; the optimiser and the schedule are common to all."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from salience.core import registry
from salience.core.draws import Stream
from salience.core.errors import InputError
from salience.core.model import Model
from salience.core.options import option
from salience.core.types import Images
from salience.training.architecture import Architecture
from salience.training.augmentation import Augmentation

WARM_UP = 0.2
"""Share of the steps in which the learning rate rises, where no drops are given."""


SIZE = 32
"""Height and width of the pictures, unless something else is asked for: CIFAR's."""


@dataclass(frozen=True, repr=False, kw_only=True)
class Recipe(Augmentation):
    """Base of all recipes. A recipe is a frozen dataclass with a docstring and `loss`.

    Attributes:
        multilabel: Whether its labels are rows of 0 and 1.
        pretrained: Whether it begins with a trained network.
        network: What `salience train` takes if no network is given.
        full_network: What it takes then with ``--full``: the papers' network.
        full_size: Height and width of the papers' pictures.
    """

    kind = "recipe"
    expected = "A recipe is a specification such as 'standard:epochs=10'"
    multilabel: ClassVar[bool] = False
    pretrained: ClassVar[bool] = False
    network: ClassVar[str] = "resnet18"
    full_network: ClassVar[str] = "resnet18"
    full_size: ClassVar[int] = SIZE

    epochs: int = option(20, "times that every picture is seen", at_least=1)
    batch: int = option(128, "pictures in one step", at_least=1)
    rate: float = option(0.002, "largest learning rate", above=0)
    momentum: float | None = option(None, "of stochastic gradient descent; none: AdamW instead", at_least=0, at_most=1)
    weight_decay: float = option(0.01, "weight decay, as the optimiser counts it", at_least=0)
    drops: int | None = option(None, "times that the rate falls, evenly spread, 0: never; none: it rises for a fifth of the steps, then falls to zero", at_least=0)
    falls_to: float = option(0.1, "share of the rate that each drop leaves", above=0, at_most=1)

    def full(self, architecture: Architecture) -> "Recipe":
        """The recipe with the papers' settings for a network, for `salience train --full`.

        Raises:
            InputError: If no paper gives any.
        """
        raise InputError(f"No paper gives settings for {self.name}: leave out --full.")

    def loss(self, net: Model, images: Images, labels: Tensor, *, epoch: int, stream: Stream) -> Tensor:
        """What is minimised: one number for a batch.

        Args:
            net: The network in training mode, for images in [0, 1].
            images: (n, c, h, w) in [0, 1], augmented.
            labels: (n,) class indices, or (n, k) of 0 and 1.
            epoch: Its number, from 0.
            stream: Where the step takes its randomness from: no other step shares it.
        """
        raise NotImplementedError

    def optimiser(self, weights: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimiser; the loop sets its learning rate before every step."""
        if self.momentum is None:
            return torch.optim.AdamW(weights, self.rate, weight_decay=self.weight_decay)
        return torch.optim.SGD(weights, self.rate, self.momentum, weight_decay=self.weight_decay)

    def rate_at(self, share: float) -> float:
        """The learning rate when a share of all steps, in [0, 1), is done."""
        if self.drops is not None:
            return self.rate * self.falls_to ** int(share * (self.drops + 1))
        return self.rate * min(share / WARM_UP, (1 - share) / (1 - WARM_UP))


def list_recipes() -> list[str]:
    """The names of all recipes."""
    return list(registry.entries("recipe"))
