"""The same gradient with respect to the image in less time.

A network in evaluation mode has batch norms that are fixed affine maps, and many have ReLU6 in place.
PyTorch's general code for both does work that a gradient with respect to the input does not need: batch norm's
backward pass reads its input again, and ReLU6 in place copies its input first. In bfloat16 on a CPU the backward pass of
a depthwise convolution has no fast code at all, though its forward pass has, and one is the other of a flipped kernel.
Inside `quick_gradients` these are replaced by functions that do only what is needed (`bench/quick.py` measures it).
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class Affine(torch.autograd.Function):
    """``x * scale + shift`` with a gradient for x alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """Keep the scale only. In bfloat16 the sum is done by torch's batch norm, which takes its constants in float32."""
        ctx.save_for_backward(scale.to(x.dtype))
        if x.dtype != scale.dtype:
            return torch.batch_norm(x, scale.flatten(), shift.flatten(), torch.zeros_like(shift).flatten(), torch.ones_like(scale).flatten(), False, 0.0, 0.0, False)
        return torch.addcmul(shift, x, scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """The gradient times the scale."""
        (scale,) = ctx.saved_tensors
        return gradients[0] * scale, None, None


class ClampInPlace(torch.autograd.Function):
    """Clamp in place; the output says where the gradient passes, so the input need not be kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, low: float, high: float) -> Tensor:
        """Keep the output only."""
        x.clamp_(low, high)
        ctx.mark_dirty(x)
        ctx.save_for_backward(x)
        ctx.bounds = (low, high)
        return x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """The gradient strictly between the bounds, as torch's own hardtanh has it."""
        (output,) = ctx.saved_tensors
        return torch.ops.aten.hardtanh_backward(gradients[0], output, *ctx.bounds), None, None


class Depthwise(torch.autograd.Function):
    """A convolution of each channel with a kernel of its own, with a gradient for x alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]) -> Tensor:
        """Keep the kernels only."""
        ctx.save_for_backward(weight)
        ctx.size, ctx.stride, ctx.padding = x.shape[-2:], stride, padding
        return F.conv2d(x, weight, None, stride, padding, 1, len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        """The gradient, zeros between its pixels where the convolution strode, convolved with the flipped kernels."""
        (weight,) = ctx.saved_tensors
        gradient, kernel = gradients[0], weight.shape[-2:]
        if ctx.stride != (1, 1):
            rows, columns = (size + 2 * padding - k + 1 for size, padding, k in zip(ctx.size, ctx.padding, kernel, strict=True))
            wide = torch.empty((*gradient.shape[:2], rows, columns), dtype=gradient.dtype, memory_format=torch.channels_last).zero_()
            wide[..., :: ctx.stride[0], :: ctx.stride[1]] = gradient
            gradient = wide
        around = [k - 1 - padding for k, padding in zip(kernel, ctx.padding, strict=True)]
        return F.conv2d(gradient, weight.flip(2, 3), None, 1, around, 1, len(weight)), None, None, None


class QuickGradients(TorchFunctionMode):
    """Inside, batch norms in evaluation mode, hardtanh in place and depthwise convolutions are the functions above."""

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Called by torch for every function."""
        kwargs = kwargs or {}
        quick = QUICK.get(func)
        made = quick(*args, **kwargs) if quick is not None else None
        return func(*args, **kwargs) if made is None else made


def quick_gradients() -> AbstractContextManager:
    """The mode; nothing where another mode is at work already, which must see the network's own calls."""
    outer = getattr(torch._C, "_len_torch_function_stack", lambda: 1)()
    return QuickGradients() if outer == 0 else nullcontext()


def _batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,  # noqa: ARG001  # torch's signature
    eps: float = 1e-5,
) -> Tensor | None:
    """Batch norm in evaluation mode; None where it is not."""
    if training or running_mean is None or running_var is None:
        return None
    scale = torch.rsqrt(running_var + eps)
    scale = scale if weight is None else scale * weight.detach()
    shift = -running_mean * scale
    shift = shift if bias is None else shift + bias.detach()
    shape = (1, -1, *(1,) * (x.ndim - 2))
    return Affine.apply(x, scale.view(shape), shift.view(shape))


def _hardtanh(x: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor | None:
    """Hardtanh in place on a tensor of the network's own; None otherwise."""
    if not inplace or not x.requires_grad or x.is_leaf or x._is_view():
        return None
    return ClampInPlace.apply(x, float(min_val), float(max_val))


def _relu6(x: Tensor, inplace: bool = False) -> Tensor | None:
    return _hardtanh(x, 0.0, 6.0, inplace)


def _conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1) -> Tensor | None:
    """A depthwise convolution in bfloat16 on a CPU; None for any other, or one whose gradient would need cropping."""
    single = groups > 1 and groups == weight.shape[0] and weight.shape[1] == 1
    if not single or bias is not None or isinstance(padding, str) or x.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
        return None
    stride, padding, dilation = ((each, each) if isinstance(each, int) else tuple(each) for each in (stride, padding, dilation))
    if dilation != (1, 1) or any(k - 1 < p for k, p in zip(weight.shape[-2:], padding, strict=True)):
        return None
    kind = torch.get_autocast_dtype("cpu")
    return Depthwise.apply(x.to(kind), weight.detach().to(kind), stride, padding)


QUICK: dict[Callable, Callable] = {F.batch_norm: _batch_norm, F.hardtanh: _hardtanh, F.relu6: _relu6, F.conv2d: _conv2d, torch.conv2d: _conv2d}
