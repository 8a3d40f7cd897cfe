"""What metrics of complexity have in common: a map as shares of its largest value."""

import torch
from jaxtyping import Float
from torch import Tensor

from salience.core.metric import Case, Reduction

VALUES = "how the map's channels become one: sum, abs_sum, abs_max or l2; none: every value of every channel counts"
"""Help text of the option ``reduction`` where the default is not to reduce."""


def magnitudes(case: Case, reduction: Reduction | None) -> Float[Tensor, "n v"]:
    """The map's absolute values, divided by the largest; a map of zeros counts as a constant map, so it is all ones."""
    values = (case.maps if reduction is None else case.saliency(reduction)).cpu().double().abs().flatten(1)
    top = values.amax(1, keepdim=True)
    return torch.where(top > 0, values / top, 1.0)
