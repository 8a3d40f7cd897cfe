"""Clamping to [0, 1] with a gradient at both ends, as attacks need it."""

from typing import Any

import torch
from torch import Tensor

SLACK = 1e-4
"""By how much rounding can put a value outside that was meant to lie at an end."""


class Clamped(torch.autograd.Function):
    """Clamp to [0, 1] with a gradient of 1 up to both ends, and of 0 beyond.

    At the ends themselves newer versions of torch's own clamp have a gradient of 0: an attack could never change a pixel that is
    fully black or white, as backgrounds often are.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Keep where the value lies."""
        ctx.save_for_backward((x >= -SLACK) & (x <= 1 + SLACK))
        return x.clamp(0, 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """The gradient where the value lies in [0, 1]."""
        (inside,) = ctx.saved_tensors
        return gradients[0] * inside


def clamped(x: Tensor) -> Tensor:
    """`x` clamped to [0, 1], differentiable any number of times, at both ends too."""
    return Clamped.apply(x)
