"""Reductions over the channels of a map: named steps after the map, since their order changes results."""

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from salience.core.errors import unknown

Reduction = Literal["sum", "abs_sum", "abs_max", "l2"]


def _l2(maps: Tensor) -> Tensor:
    """Euclidean length over the channels, of values scaled first so that no square leaves the range of floats."""
    largest = maps.abs().amax(-3, keepdim=True)
    return largest.squeeze(-3) * (maps / torch.where(largest > 0, largest, 1.0)).square().sum(-3).sqrt()


REDUCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sum": lambda maps: maps.sum(-3),
    "abs_sum": lambda maps: maps.abs().sum(-3),
    "abs_max": lambda maps: maps.abs().amax(-3),
    "l2": _l2,
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


def less_mean(maps: Float[Tensor, "*lead c h w"]) -> Float[Tensor, "*lead c h w"]:
    """The pattern of maps: each less its mean over all its values."""
    return maps - maps.mean((-3, -2, -1), keepdim=True)


def is_flat(maps: Tensor) -> bool:
    """Whether all values of a map are equal, up to what float32 rounds: what is left of it are no differences of pixels."""
    return bool(maps.amax() - maps.amin() <= 8 * torch.finfo(torch.float32).eps * maps.abs().amax())


def one_channel(maps: Float[Tensor, "*lead c h w"], how: str | None = None) -> Float[Tensor, "*lead h w"]:
    """Maps with one channel as metrics take them: as they are if they have one, else reduced (by default ``abs_sum``)."""
    return maps.squeeze(-3) if how is None and maps.shape[-3] == 1 else reduce(maps, how or "abs_sum")
