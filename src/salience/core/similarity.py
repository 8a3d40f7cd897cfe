"""What a similarity is: a frozen set of options with one method, `compare`, that gives one number a pair of maps."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from salience.core import registry
from salience.core.errors import InputError
from salience.core.explanation import Explanation
from salience.core.inputs import check_defined, real_tensor
from salience.core.options import Options
from salience.core.types import Maps, PerImage

VALUES_AT_ONCE = 2**22
"""Values of one side compared at once."""


class Similarity(Options):
    """Base of all similarities. A similarity is a frozen dataclass with a docstring and `compare`."""

    kind = "similarity"
    expected = "A similarity is a name such as 'ssim', or a similarity such as sal.SSIM(window=11)"

    def compare(self, first: Maps, second: Maps) -> PerImage:
        """How alike the pairs are.

        Args:
            first: (n, c, h, w), finite.
            second: Of the same shape.

        Returns:
            One number a pair.
        """
        raise NotImplementedError

    def against(self, first: Maps) -> Callable[[Maps], PerImage]:
        """`compare` with one side fixed. Where much of the work is about one side alone, a similarity defines this, and does it once."""
        return partial(self.compare, first)

    def compare_within(self, first: Maps, second: Maps, visible: Bool[Tensor, "h w"]) -> PerImage:
        """How alike the pairs are where both can be seen.

        Unless all are visible, `compare` gets the visible pixels in one row: similarities that look at neighbours override this.

        Args:
            first: (n, c, h, w), finite.
            second: Of the same shape.
            visible: The pixels to compare, at least one.

        Returns:
            One number a pair.
        """
        if not visible.all():
            first, second = (maps[..., visible][:, :, None] for maps in (first, second))
        return self.compare(first, second)

    def __call__(self, first: Any, second: Any) -> PerImage:
        """Compare maps, or images, pair by pair, on the CPU.

        Args:
            first: An `Explanation`; or a tensor or array (n, c, h, w) or (n, h, w).
            second: As many, of the same shape.

        Returns:
            One number a pair, float64 if one side is float64, else float32.

        Raises:
            InputError: If the two do not fit together.
            UndefinedError: If a map holds NaN or infinity.
        """
        return self.to(first)(second)

    def to(self, first: Any) -> Callable[[Any], PerImage]:
        """A function that compares other maps with these: as a call, but what depends on the first maps alone is computed once.

        Args:
            first: As for a call.

        Returns:
            A function of the second maps that returns what a call returns.

        Raises:
            UndefinedError: If a map holds NaN or infinity.
        """
        a = _checked(first)
        parts = a.split(max(VALUES_AT_ONCE // a[0].numel(), 1))
        fixed = [self.against(part) for part in parts]

        def compared(second: Any) -> PerImage:
            b = _checked(second)
            if a.shape != b.shape:
                raise InputError(f"Maps of shape {tuple(a.shape)} and {tuple(b.shape)} cannot be compared: give two of the same shape, (n, c, h, w) or (n, h, w).")
            found = torch.cat([compare(part) for compare, part in zip(fixed, b.split(len(parts[0])), strict=True)])
            return found.to(torch.promote_types(a.dtype, b.dtype))

        return compared


def similarity(name: object, maps_a: Any, maps_b: Any) -> Tensor:
    """How alike maps are, or images, pair by pair.

    Args:
        name: For example ``"ssim"``, ``"ssim:window=11"``, or a `Similarity`.
        maps_a: An `Explanation`; or a tensor or array (n, c, h, w) or (n, h, w).
        maps_b: As many, of the same shape.

    Returns:
        One number a pair, (n,).

    Raises:
        InputError: If there is no such similarity, or the two do not fit together.
        UndefinedError: If a map holds NaN or infinity.
    """
    return Similarity.from_value(name)(maps_a, maps_b)


def list_similarities() -> list[str]:
    """The names of all similarities."""
    return list(registry.entries("similarity"))


def _checked(value: Any) -> Maps:
    """Maps as (n, c, h, w) of float32 or float64, on the CPU."""
    value = value.maps if isinstance(value, Explanation) else value
    maps = real_tensor(value, "Maps to compare are an Explanation, a tensor or an array").cpu()
    if maps.ndim not in (3, 4) or maps.numel() == 0:
        raise InputError(f"Maps to compare have shape (n, c, h, w) or (n, h, w), not {tuple(maps.shape)}.")
    maps = maps[:, None] if maps.ndim == 3 else maps
    check_defined(maps, "similarity")
    return maps
