"""How often a network is right, as one number a picture, so that pictures can be resampled."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from salience.core.errors import InputError
from salience.core.types import Outputs
from salience.perturb.tune import predictions
from salience.training.average_precision import average_precisions
from salience.zoo.datasets import Item


@dataclass(frozen=True)
class Truth:
    """What is right for each picture.

    Attributes:
        positives: Which classes are right.
        labels: ``data set``, or ``clean predictions`` where the data have no labels.
        several: Whether pictures have several.
    """

    positives: Bool[Tensor, "n k"]
    labels: str
    several: bool

    @classmethod
    def of(cls, items: Sequence[Item], clean: Outputs) -> "Truth":
        """The data set's labels, or the clean predictions if it has none.

        Raises:
            InputError: If the labels are not those of the model.
        """
        classes, own = clean.shape[1], any(item.labels for item in items)
        several = any(len(set(item.groups or item.labels)) > 1 for item in items)
        positives = torch.zeros(len(items), classes, dtype=torch.bool)
        for place, item in enumerate(items):
            labels = item.labels if own else (int(clean[place].argmax()),)
            wrong = [label for label in labels if not 0 <= label < classes]
            if wrong:
                raise InputError(f"{item.name} has the label {wrong[0]}, but the model has classes 0 to {classes - 1}: give data with the model's own classes, or a folder without labels.")
            if not labels and not several:
                raise InputError(f"{item.name} has no label, but other pictures have one: label all of them, or none.")
            positives[place, list(labels)] = True
        found = cls(positives, "data set" if own else "clean predictions", several)
        reached, chance = found.values(clean).mean(), found.chance.mean()
        if reached <= chance:
            raise InputError(
                f"Without noise the model's {found.measure} on these labels is {reached:.3f}, no better than guessing: give data with the model's own classes, or a folder without labels."
            )
        return found

    @property
    def measure(self) -> str:
        """``accuracy``, or ``mean average precision`` over the classes that have a picture, where pictures have several labels."""
        return "mean average precision" if self.several else "accuracy"

    @property
    def chance(self) -> Float[np.ndarray, " n"]:
        """What guessing gets of each picture, ACC(inf): the share of the classes counted that are right."""
        counted = self.positives[:, self.positives.any(0)] if self.several else self.positives
        return counted.double().mean(1).numpy()

    def values(self, outputs: Outputs) -> Float[np.ndarray, " n"]:
        """The measure as a mean over pictures: one number each.

        Args:
            outputs: Of the network; a row that is not finite is wrong.
        """
        outputs = outputs.cpu()
        best = predictions(outputs)
        if not self.several:
            return (self.positives.gather(1, best.clamp(min=0)[:, None])[:, 0] & (best >= 0)).double().numpy()
        scores = torch.where((best >= 0)[:, None], outputs, -torch.inf)
        counted = self.positives.any(0)
        return average_precisions(scores[:, counted].double().numpy(), self.positives[:, counted].numpy())
