"""Another function in the place of every ReLU, for modules and functional calls alike.

A `TorchFunctionMode` sees every call that a network makes, and leaves alone those of methods that work around it: ``relu``, ``relu_``, ``relu6``, ``hardtanh`` (which ``nn.ReLU6``
calls), ``clamp`` with the same bounds, ``threshold`` at 0, ``leaky_relu`` with slope 0, and the operators of `torch.ops.aten` that these are; where it is asked
for, ``leaky_relu`` with any slope and ``prelu`` too. No module is touched, reused modules are no trouble, and nothing is left behind.
"""

import inspect
import math
import re
from collections.abc import Callable, Sequence
from types import CellType, FunctionType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from salience.core.errors import InputError
from salience.core.quick import check_kept, depth

RELU = {torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, F.relu, F.relu_}
THRESHOLD = {F.threshold, torch.threshold, torch.threshold_}
LEAKY = {F.leaky_relu, F.leaky_relu_}
PRELU = {F.prelu, Tensor.prelu}
CLAMP = (torch.clamp, torch.clamp_, Tensor.clamp, Tensor.clamp_, torch.clip, torch.clip_, Tensor.clip, Tensor.clip_)
CLAMP_MIN = (torch.clamp_min, torch.clamp_min_, Tensor.clamp_min, Tensor.clamp_min_)
BOUNDED: dict[Callable, tuple[tuple[str, float | None], ...]] = {
    **dict.fromkeys((F.hardtanh, F.hardtanh_), (("min_val", -1.0), ("max_val", 1.0))),
    **dict.fromkeys(CLAMP, (("min", None), ("max", None))),
    **dict.fromkeys(CLAMP_MIN, (("min", None),)),
}
"""Functions that are a ReLU or ReLU6 with the right bounds, and the names and defaults of their bounds."""

Replacement = Callable[[Tensor, float], Tensor]


def check_scripted(network: nn.Module, name: str) -> None:
    """Refuse TorchScript, whose ReLUs cannot be replaced: a network with some of its ReLUs replaced is neither the one nor the other.

    Found are its modules, and functions that are attributes of a module or that its `forward` names; not those that are called from further functions.

    Args:
        network: The network.
        name: Its name, for the message.

    Raises:
        InputError: If there are ReLUs in TorchScript.
    """
    forwards = {each for module in network.modules() if inspect.isfunction(each := getattr(module.forward, "__func__", None))}
    named = [each for forward in forwards for each in _named_in(forward)]
    owned = [each for module in network.modules() for each in (module, *vars(module).values())]
    scripts = [each for each in (*owned, *named) if isinstance(each, torch.jit.ScriptModule | torch.jit.ScriptFunction)]
    if any(re.search(r"aten::(relu|hardtanh|clamp|threshold|leaky_relu|prelu)", str(getattr(each, "inlined_graph", ""))) for each in scripts):
        raise InputError(f"{name} has ReLUs in TorchScript, which cannot be replaced: give the network as plain modules, or choose another method, such as integrated_gradients or rise.")


def _named_in(function: FunctionType) -> list:
    """What the names in a function stand for that are not its own: those of the functions around it, as far as they have a value yet, and those of its file."""
    around = [cell.cell_contents for cell in function.__closure__ or () if cell != CellType()]
    return around + [function.__globals__[name] for name in function.__code__.co_names if name in function.__globals__]


def softplus(inputs: Tensor, ceiling: float, beta: float | Tensor) -> Tensor:
    """A smooth ReLU: log(1 + exp(beta x)) / beta; for a ReLU with a ceiling, that of x less that of x - ceiling.

    Twice differentiable in x, not in beta. Torch's own softplus would do, at several times the cost of a second derivative.
    """
    return SmoothReLU.apply(inputs, ceiling, beta)


class SmoothReLU(torch.autograd.Function):
    """`softplus`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, ceiling: float, beta: float | Tensor) -> Tensor:
        """Keep the input."""
        ctx.save_for_backward(x)
        ctx.rest = ceiling, beta
        smooth = F.softplus(x * beta)
        return (smooth if math.isinf(ceiling) else smooth.sub_(F.softplus((x - ceiling) * beta))).div_(beta)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """The gradient times the slope."""
        return SmoothSlope.apply(gradients[0], *ctx.saved_tensors, *ctx.rest), None, None


class SmoothSlope(torch.autograd.Function):
    """The gradient times the slope of `softplus` at x: sigmoid(beta x), less sigmoid(beta (x - ceiling))."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, x: Tensor, ceiling: float, beta: float | Tensor) -> Tensor:
        """Keep both."""
        ctx.save_for_backward(gradient, x)
        ctx.rest = ceiling, beta
        low = torch.sigmoid(x * beta)
        return (low if math.isinf(ceiling) else low.sub_(torch.sigmoid((x - ceiling) * beta))).mul_(gradient)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """By the gradient: the slope. By x: the curvature, beta s (1 - s) for each sigmoid s."""
        (gradient, x), (ceiling, beta), (by,) = ctx.saved_tensors, ctx.rest, gradients
        low = torch.sigmoid(x * beta)
        slope, curvature = low, low * (1 - low)
        if not math.isinf(ceiling):
            high = torch.sigmoid((x - ceiling) * beta)
            slope, curvature = slope - high, curvature.sub_(high * (1 - high))
        return by * slope, (curvature * beta).mul_(by).mul_(gradient), None, None


class ReplaceReLU(TorchFunctionMode):
    """Inside, every ReLU of a network is `replacement(x, ceiling)`.

    Args:
        replacement: From the input of the ReLU and its upper bound (infinity, or 6 for ReLU6) to its output.
        leaky: Whether leaky ReLUs are replaced as well: a x + (1 - a) `replacement(x, infinity)`, where a is the slope below 0.

    Attributes:
        replaced: How many calls were replaced: a net without any ReLU is an error for the caller to raise.
    """

    only_relu = True

    def __init__(self, replacement: Replacement, leaky: bool = False) -> None:
        super().__init__()
        self.replacement = replacement
        self.leaky = leaky
        self.replaced = 0

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Called by torch for every function."""
        kwargs = kwargs or {}
        if not depth.networks:
            return func(*args, **kwargs)
        known = _function(func)
        ceiling = _ceiling(known, args, kwargs)
        slope = _slope(known, args, kwargs) if self.leaky else None
        inputs = args[0] if args else kwargs.get("input", kwargs.get("self"))
        if (ceiling is None and slope is None) or not isinstance(inputs, Tensor) or not inputs.is_floating_point():
            return func(*args, **kwargs)
        check_kept()
        self.replaced += 1
        in_place = _in_place(known, args, kwargs)
        x = inputs.clone() if in_place else inputs
        outputs = self.replacement(x, math.inf if ceiling is None else ceiling)
        if slope is not None:
            slope = slope.view(-1, *(1,) * (x.ndim - 2)) if isinstance(slope, Tensor) else slope
            outputs = slope * x + (1 - slope) * outputs
        return inputs.copy_(outputs) if in_place else outputs


def _function(func: Callable) -> Callable:
    """The function of torch that an operator of `torch.ops.aten` is, as it is called in networks; anything else as it is."""
    packet = func.overloadpacket if isinstance(func, torch._ops.OpOverload) else func
    if not isinstance(packet, torch._ops.OpOverloadPacket):
        return func
    return getattr(torch, packet.__name__, getattr(F, packet.__name__, func))


def _ceiling(func: Callable, args: tuple, kwargs: dict) -> float | None:
    """The upper bound of the ReLU that this call is, or None if it is not one."""
    if func in RELU:
        return math.inf
    if func is F.relu6:
        return 6.0
    if func in THRESHOLD:
        return math.inf if _given(args, kwargs, (("threshold", None), ("value", None))) == [0, 0] else None
    if func in LEAKY:
        return math.inf if _slope(func, args, kwargs) == 0 else None
    if func not in BOUNDED:
        return None
    low, high = (*_given(args, kwargs, BOUNDED[func]), None)[:2]
    if any(isinstance(each, Tensor) and each.numel() > 1 for each in (low, high)) or low != 0:
        return None
    return math.inf if high is None or high == math.inf else 6.0 if high == 6 else None


def _slope(func: Callable, args: tuple, kwargs: dict) -> float | Tensor | None:
    """The slope below 0 of the leaky ReLU that this call is, one number or one a channel, or None if it is not one."""
    if func in LEAKY:
        return _given(args, kwargs, (("negative_slope", 0.01),))[0]
    return _given(args, kwargs, (("weight", None),))[0] if func in PRELU else None


def _given(args: tuple, kwargs: dict, names: Sequence[tuple[str, Any]]) -> list:
    """What a call gives for the arguments after its input, or their defaults."""
    return [args[place] if place < len(args) else kwargs.get(name, default) for place, (name, default) in enumerate(names, start=1)]


def _in_place(func: Callable, args: tuple, kwargs: dict) -> bool:
    """Whether the call changes its input, which the network may go on to use."""
    return func.__name__.endswith("_") or bool(kwargs.get("inplace")) or any(arg is True for arg in args[1:])
