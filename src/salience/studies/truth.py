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
        several = any(len(item.groups or item.labels) > 1 for item in items)
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


def average_precisions(scores: Float[np.ndarray, "n k"], positives: Bool[np.ndarray, "n k"]) -> Float[np.ndarray, " n"]:
    """Mean average precision as a mean over pictures: jackknife values n m - (n - 1) m(without the picture), moved to have the mean m.

    Of a class, the mean over its pictures i of the precision among the pictures with at least i's score; tied pictures come
    in together, as in scikit-learn. A class that is left without a picture is left out of m.

    Args:
        scores: Of every class.
        positives: Which classes a picture has; each class has at least one.

    Returns:
        One number a picture, of any size: their mean is the mean average precision.

    Source: Efron & Tibshirani (1993), An introduction to the bootstrap, chapter 11. Differs from the source: the shift, which takes off
    the jackknife's correction of the bias.
    """
    n, k = scores.shape
    whole, without = np.empty(k), np.empty((k, n))
    for place in range(k):
        mine = positives[:, place]
        first = scores[:, None, place] <= scores[None, :, place]
        first, count = first[mine], mine.sum()
        right, all_of = first[:, mine].sum(1), first.sum(1)
        whole[place] = (right / all_of).mean()
        left = np.divide(right[:, None] - first * mine, all_of[:, None] - first, out=np.zeros(first.shape), where=~np.eye(n, dtype=bool)[mine])
        without[place] = np.divide(left.sum(0), count - mine, out=np.full(n, np.nan), where=count > mine)
    known = np.isfinite(without)
    left_out = np.where(known.any(0), np.where(known, without, 0).sum(0) / np.maximum(known.sum(0), 1), whole.mean())
    values = n * whole.mean() - (n - 1) * left_out
    return values - values.mean() + whole.mean()
