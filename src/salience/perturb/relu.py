"""Another function in the place of every ReLU, for modules and functional calls alike.

A `TorchFunctionMode` sees every call: ``relu``, ``relu_``, ``relu6``, ``hardtanh`` (which ``nn.ReLU6``
calls) and ``clamp`` with the same bounds. No module is touched, reused modules are no trouble, and
nothing is left behind.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  # the field's name for it
from torch import Tensor
from torch.overrides import TorchFunctionMode

RELU = {torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, F.relu, F.relu_}
RELU6 = {F.relu6}
HARDTANH = {F.hardtanh, F.hardtanh_}
CLAMP = {torch.clamp, torch.clamp_, Tensor.clamp, Tensor.clamp_, torch.clip, Tensor.clip}
CLAMP_MIN = {torch.clamp_min, torch.clamp_min_, Tensor.clamp_min, Tensor.clamp_min_}

Replacement = Callable[[Tensor, float], Tensor]


class ReplaceReLU(TorchFunctionMode):
    """Inside, every ReLU is `replacement(x, ceiling)`.

    Args:
        replacement: From the input of the ReLU and its upper bound (infinity, or 6 for ReLU6) to its output.

    Attributes:
        replaced: How many calls were replaced: a net without any ReLU is an error for the caller to raise.
    """

    def __init__(self, replacement: Replacement) -> None:
        super().__init__()
        self.replacement = replacement
        self.replaced = 0

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Called by torch for every function."""
        kwargs = kwargs or {}
        ceiling = _ceiling(func, args, kwargs)
        if ceiling is None:
            return func(*args, **kwargs)
        self.replaced += 1
        return self.replacement(args[0] if args else kwargs["input"], ceiling)


def _ceiling(func: Callable, args: tuple, kwargs: dict) -> float | None:
    """The upper bound of the ReLU that this call is, or None if it is not one."""
    if func in RELU:
        return float("inf")
    if func in RELU6:
        return 6.0
    low, high = _bounds(func, args, kwargs)
    if low == 0 and high is None:
        return float("inf")
    if low == 0 and high == 6:
        return 6.0
    return None


def _bounds(func: Callable, args: tuple, kwargs: dict) -> tuple[Any, Any]:
    if func in HARDTANH:
        names = ("min_val", "max_val")
        defaults: tuple = (-1.0, 1.0)
    elif func in CLAMP:
        names, defaults = ("min", "max"), (None, None)
    elif func in CLAMP_MIN:
        names, defaults = ("min",), (None, None)
    else:
        return (1, 1)
    found = []
    for position, default in enumerate(defaults):
        name = names[position] if position < len(names) else None
        value = args[position + 1] if len(args) > position + 1 else kwargs.get(name, default)
        found.append(None if isinstance(value, Tensor) else value)
    return found[0], found[1]
