"""Scores of every class at once, so that another class's map needs no forward pass."""

import torch
from jaxtyping import Float
from torch import Tensor

from salience.core.classifier import Classifier
from salience.core.types import Images, Outputs, Targets


def scores_all_classes(model: Classifier) -> bool:
    """Whether the bound score has values for all classes; a user's own function has one target's only."""
    return model.bound_score.every is not None


def scores(model: Classifier, images: Images, targets: Targets, every: bool) -> Outputs:
    """The bound score of every class (n, k), or of the targets only, (n, 1)."""
    return model.scores(images) if every else model.target_scores(images, targets)[:, None]


def of_targets(values: Float[Tensor, "n *rest k"], targets: Targets) -> Float[Tensor, " n *rest"]:
    """The column of each image's target in what was made from `scores`."""
    if values.shape[-1] == 1:
        return values[..., 0]
    return torch.stack([value[..., target] for value, target in zip(values, targets.tolist(), strict=True)])
