"""What the metrics that ask how alike two maps of the same image are have in common."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any

from salience.core.draws import Stream
from salience.core.errors import InputError
from salience.core.metric import Case, Metric
from salience.core.reduction import Reduction, one_channel
from salience.core.robustness import scaled
from salience.core.similarity import Similarity
from salience.core.types import Saliency, Targets

Alike = Annotated[Any, Similarity]
"""The type of a field that takes a similarity or a specification of one."""


class ComparesMaps(Metric):
    """Base of metrics with the fields ``similarity`` and ``reduction``."""

    similarity: Similarity
    reduction: Reduction | None

    def __post_init__(self) -> None:
        """Check that the similarity is a similarity of maps."""
        super().__post_init__()
        if not self.similarity.facts.get("higher_is_better") or self.similarity.facts.get("of") == "images":
            raise InputError(f"{self.name} needs a similarity of maps that is larger the more alike they are, such as spearman or ssim, not {self.similarity.name}.")

    def made(self, case: Case, group: Sequence[int], targets: Targets, draws: Sequence[Stream]) -> Saliency:
        """New maps of some of the images by the case's explainer, with one channel."""
        return one_channel(case.explained(case.images[group], targets, draws), self.reduction)

    def alike(self, first: Saliency) -> Callable[[Saliency], list[float]]:
        """What gives the similarity of other maps to these, each scaled from 0 to 1."""
        compared = self.similarity.to(scaled(first.cpu().double()))
        return lambda second: compared(scaled(second.cpu().double())).tolist()
