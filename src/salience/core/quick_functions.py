"""The functions that `quick` puts in the place of torch's: as much of a backward pass as a gradient of the image needs."""

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Pair = tuple[int, int]
How = tuple[Pair, Pair, Pair, int]
"""Stride, padding, dilation and groups of a convolution."""
Bounds = tuple[float, float]
"""Between which a convolution is clamped."""


class StaleError(Exception):
    """The pass must be done without `quick`: a tensor that is needed was changed in place, a function of torch.autograd or torch.func, or a scripted one, takes what waits, the network looks at gradients, or activations are made anew."""


def kept(ctx: Any) -> tuple[Tensor, ...]:
    """The tensors kept for the backward pass. Torch's own functions keep others, which may not have been changed where ours were."""
    try:
        return ctx.saved_tensors
    except RuntimeError as error:
        if "modified by an inplace operation" not in str(error):
            raise
        raise StaleError from error


def where_one_arrives(backward: Callable) -> Callable:
    """A backward pass that is made only if there is a gradient: zeros in its place would hide that a network, a quantised one say, has none. The forward pass must call ``set_materialize_grads(False)``."""

    @functools.wraps(backward)
    def checked(ctx: Any, *gradients: Tensor | None) -> Any:
        return (None,) * 8 if gradients[0] is None else backward(ctx, *gradients)  # torch takes more than there are inputs

    return checked


OWNED = "salience_owned"
"""Attribute of a new gradient that goes nowhere but to a `ClampInPlace`."""


class Affine(torch.autograd.Function):
    """``x * scale + shift`` with a gradient for x alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """Keep the scale only. In bfloat16 the sum is done by torch's batch norm, which takes its constants in float32."""
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(scale.to(x.dtype))
        if x.dtype != scale.dtype:
            return torch.batch_norm(x, scale.flatten(), shift.flatten(), torch.zeros_like(shift).flatten(), torch.ones_like(scale).flatten(), False, 0.0, 0.0, False)
        return torch.addcmul(shift, x, scale)

    @staticmethod
    @where_one_arrives
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """The gradient times the scale."""
        (scale,) = kept(ctx)
        return gradients[0] * scale, None, None


class ClampInPlace(torch.autograd.Function):
    """Clamp in place; the output says where the gradient passes, so the input need not be kept. A gradient that nobody else reads is changed in place."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, low: float, high: float) -> Tensor:
        """Keep the output only."""
        ctx.set_materialize_grads(False)
        x.clamp_(low, high)
        ctx.mark_dirty(x)
        ctx.save_for_backward(x)
        ctx.bounds = (low, high)
        return x

    @staticmethod
    @where_one_arrives
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """The gradient strictly between the bounds, as torch's own hardtanh has it."""
        (output,) = kept(ctx)
        return between(gradients[0], output, ctx.bounds), None, None


def between(gradient: Tensor, output: Tensor, bounds: Bounds) -> Tensor:
    """The gradient where what was clamped is strictly between the bounds; in place if nobody else reads it."""
    if vars(gradient).pop(OWNED, False) and not torch.is_grad_enabled():  # what comes before, a sum say, may hand it to several
        return torch.ops.aten.hardtanh_backward.grad_input(gradient, output, *bounds, grad_input=gradient)
    return torch.ops.aten.hardtanh_backward(gradient, output, *bounds)


class Padded(torch.autograd.Function):
    """Zeros around a picture; the gradient is the middle of the one outside, without a copy."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, left: int, right: int, top: int, bottom: int) -> Tensor:
        """Each value is written once; torch writes all zeros first."""
        ctx.set_materialize_grads(False)
        height, width = x.shape[2:]
        ctx.rows, ctx.columns = slice(top, top + height), slice(left, left + width)
        form = torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
        padded = torch.empty((*x.shape[:2], top + height + bottom, left + width + right), dtype=x.dtype, device=x.device, memory_format=form)
        padded[:, :, ctx.rows, ctx.columns] = x
        for edge in (padded[:, :, :top], padded[:, :, top + height :], padded[..., :left], padded[..., left + width :]):
            edge.zero_()
        return padded

    @staticmethod
    @where_one_arrives
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        """The gradient of what was not added."""
        return gradients[0][:, :, ctx.rows, ctx.columns], None, None, None, None


class Convolved(torch.autograd.Function):
    """A convolution, perhaps clamped, with a gradient for x alone, as often as it is asked for: torch's own second derivative of a grouped one loops over the groups."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, how: How, bounds: Bounds | None = None) -> Tensor:
        """Keep the kernels, x for its shape, and the output if it is clamped."""
        ctx.set_materialize_grads(False)
        output = convolved(x, weight, bias, how, bounds)
        ctx.save_for_backward(x, weight, *(() if bounds is None else (output,)))
        ctx.how, ctx.bounds = how, bounds
        ctx.clamped = isinstance(x.grad_fn, ClampInPlace._backward_cls | Convolved._backward_cls) and vars(x.grad_fn)["bounds"] is not None
        return output

    @staticmethod
    @where_one_arrives
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        """The transposed convolution of the gradient."""
        x, weight, *outputs = kept(ctx)
        gradient = between(gradients[0], outputs[0], ctx.bounds) if outputs else gradients[0]
        transpose = Transposed.apply if torch.is_grad_enabled() else transposed  # most gradients are not differentiated again
        gradient = transpose(gradient, x.detach(), weight, ctx.how)
        if ctx.clamped:
            setattr(gradient, OWNED, True)
        return gradient, None, None, None, None


FUSED: Callable[..., Tensor] | None = getattr(torch.ops.mkldnn, "_convolution_pointwise", None) if torch.backends.mkldnn.is_available() else None
"""oneDNN's convolution with what follows it, as torch.compile calls it."""
LEAST_FUSED = 2**20
"""Values to clamp from which on that saves more time than it costs (`bench/quick.py` measures both)."""
FINITE = "salience_finite"
"""Attribute of a tensor: its version when all its values were finite."""


def convolved(x: Tensor, weight: Tensor, bias: Tensor | None, how: How, bounds: Bounds | None) -> Tensor:
    """The convolution, clamped in the same pass over memory where that can be."""
    if bounds is None:
        return F.conv2d(x, weight, bias, *how)
    if FUSED is None or not _may_fuse(x, weight, bias, how, bounds):
        return F.conv2d(x, weight, bias, *how).clamp_(*bounds)
    stride, padding, dilation, groups = how
    made = FUSED(x, weight, bias, padding, stride, dilation, groups, "hardtanh", bounds, "")
    setattr(made, FINITE, made._version)
    return made


def _may_fuse(x: Tensor, weight: Tensor, bias: Tensor | None, how: How, bounds: Bounds) -> bool:
    """Whether the clamp may be oneDNN's: it makes numbers of NaN, so nothing may be infinite or NaN before."""
    (n, _, height, width), (down, across) = x.shape, how[0]
    if x.device.type != "cpu" or not x.dtype == weight.dtype == torch.float32 or n * len(weight) * height * width < LEAST_FUSED * down * across:
        return False
    unknown = (weight, bias, None if getattr(x, FINITE, None) == x._version else x)
    return math.isfinite(bounds[1] - bounds[0] + sum(float(each.sum()) for each in unknown if each is not None))


class Transposed(torch.autograd.Function):
    """From the gradient of a convolution's output to that of its input x, of which only the shape matters."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, x: Tensor, weight: Tensor, how: How) -> Tensor:
        """Keep the kernels."""
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(weight)
        ctx.how = how
        return transposed(gradient, x, weight, how)

    @staticmethod
    @where_one_arrives
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        """The convolution itself: both are linear."""
        (weight,) = kept(ctx)
        return Convolved.apply(gradients[0], weight, None, ctx.how), None, None, None


def transposed(gradient: Tensor, x: Tensor, weight: Tensor, how: How) -> Tensor:
    """The gradient for the input. In bfloat16 on a CPU torch has fast code for depthwise convolutions, but not for their backward pass: there, `flipped`."""
    stride, padding, dilation, groups = how
    cropped = any(k - 1 < p for k, p in zip(weight.shape[2:], padding, strict=True))
    single = groups > 1 and groups == weight.shape[0] and weight.shape[1] == 1
    if single and not cropped and dilation == (1, 1) and x.device.type == "cpu" and weight.dtype == torch.bfloat16:
        return flipped(gradient, x, weight, stride, padding)
    return torch.ops.aten.convolution_backward(gradient, x, weight, None, stride, padding, dilation, False, (0, 0), groups, (True, False, False))[0]


def flipped(gradient: Tensor, x: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Tensor:
    """The gradient, zeros between its pixels where the convolution strode, convolved with the flipped kernels: one kernel a channel."""
    kernel = weight.shape[2:]
    if stride != (1, 1):
        rows, columns = (size + 2 * p - k + 1 for size, p, k in zip(x.shape[2:], padding, kernel, strict=True))
        wide = torch.empty((*gradient.shape[:2], rows, columns), dtype=gradient.dtype, memory_format=torch.channels_last).zero_()
        wide[..., :: stride[0], :: stride[1]] = gradient
        gradient = wide
    around = [k - 1 - p for k, p in zip(kernel, padding, strict=True)]
    return F.conv2d(gradient, weight.flip(2, 3), None, 1, around, 1, len(weight))
