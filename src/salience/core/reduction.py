"""Reductions over the channels of a map: named steps after the map, since their order changes results."""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from salience.core.errors import unknown

REDUCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sum": lambda maps: maps.sum(-3),
    "abs_sum": lambda maps: maps.abs().sum(-3),
    "abs_max": lambda maps: maps.abs().amax(-3),
    "l2": lambda maps: maps.square().sum(-3).sqrt(),
}


def reduce(maps: Float[Tensor, "*lead c h w"], how: str) -> Float[Tensor, "*lead h w"]:
    """Reduce signed maps (..., c, h, w) over their channels to (..., h, w).

    Args:
        maps: Signed maps.
        how: ``sum`` keeps the sign; ``abs_sum``, ``abs_max``, ``l2`` do not.

    Raises:
        InputError: If there is no such reduction.
    """
    if how not in REDUCTIONS:
        raise unknown("reduction", how, REDUCTIONS)
    return REDUCTIONS[how](maps)
