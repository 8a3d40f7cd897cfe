"""The scalar that is explained, always named."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from salience.core.errors import InputError, unknown
from salience.core.types import Outputs, PerImage, Targets


def probabilities_of(logits: Outputs) -> Outputs:
    """Softmax; a single output stands for yes or no, so that its probability is its sigmoid."""
    return logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(1)


OF_LOGITS: dict[str, Callable[[Tensor], Tensor]] = {
    "logit": lambda outputs: outputs,
    "probability": probabilities_of,
    "log_probability": lambda outputs: logsigmoid(outputs) if outputs.shape[1] == 1 else outputs.log_softmax(1),
    "sigmoid": lambda outputs: outputs.sigmoid(),
}
OF_PROBABILITIES: dict[str, Callable[[Tensor], Tensor]] = {
    "probability": lambda outputs: outputs,
    "log_probability": lambda outputs: outputs.clamp_min(torch.finfo(outputs.dtype).tiny).log(),
}
SCORES = tuple(OF_LOGITS)
"""The scores that have a name; any callable of outputs (n, k) and targets (n,) is one too."""


@dataclass(frozen=True)
class Score:
    """Turns a network's outputs into the score of a target.

    Attributes:
        name: ``logit``, ``probability``, ``log_probability``, ``sigmoid``, or a callable's name.
        every: Outputs (n, k) to the scores of all classes (n, k); None for a callable score.
        custom: A user's function of outputs (n, k) and targets (n,) to scores (n,).
    """

    name: str
    every: Callable[[Tensor], Tensor] | None
    custom: Callable[[Tensor, Tensor], Tensor] | None = None

    def of(self, outputs: Outputs, targets: Targets) -> PerImage:
        """The score of each image's target."""
        if self.every is not None:
            return self.every(outputs).gather(1, targets[:, None])[:, 0]
        scores = self.custom(outputs, targets)  # type: ignore[misc]  # one of the two is given
        if scores.shape != targets.shape:
            raise InputError(f"The score {self.name} returned shape {tuple(scores.shape)} for {len(targets)} images: it must return one number per image.")
        return scores


def as_score(score: "str | Callable | Score", *, probabilities: bool = False) -> Score:
    """The named score, for a model that returns logits or one that returns probabilities.

    Args:
        score: A name, a callable of outputs and targets, or a `Score`.
        probabilities: Whether the model's outputs are probabilities already.

    Raises:
        InputError: If the name is unknown, or cannot be had from probabilities.
    """
    if isinstance(score, Score):
        return score
    if callable(score):
        return Score(getattr(score, "__name__", type(score).__name__), None, score)
    if score not in OF_LOGITS:
        raise unknown("score", str(score), SCORES)
    table = OF_PROBABILITIES if probabilities else OF_LOGITS
    if score not in table:
        raise InputError(f"The score {score!r} needs a model that returns logits; this one returns probabilities: use score='probability', or make the model return logits and say outputs='logits'.")
    return Score(score, table[score])
