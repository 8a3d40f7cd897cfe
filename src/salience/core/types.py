"""Shapes as types. They are checked in the tests (jaxtyping + beartype) and cost nothing elsewhere."""

from collections.abc import Callable

from jaxtyping import Float, Int
from torch import Tensor

Images = Float[Tensor, "n c h w"]
"""Images, gradients, noise, fills: [0, 1] pixel space, RGB (or one channel for a grey model)."""

Maps = Float[Tensor, "n m h w"]
"""Signed maps: one channel, or one per image channel."""

Saliency = Float[Tensor, "n h w"]
"""Maps reduced over their channels."""

Outputs = Float[Tensor, "n k"]
"""What the network returns: a row of class scores per image."""

Targets = Int[Tensor, " n"]
"""The class index explained, one per image."""

PerImage = Float[Tensor, " n"]
"""One number per image."""

Progress = Callable[[int, int], None]
"""Called as ``progress(done, total)`` while draws are made."""

Report = Callable[[str, int, int | None], None]
"""Called as ``report(what, done, total)`` while something is done; the total may be unknown."""
