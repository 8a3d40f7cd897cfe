"""The same scores, and the same gradient with respect to the image, in less time.

A batch norm in evaluation mode is a fixed affine map, so a convolution that it follows can take the map into its own
weights: one pass over memory less, forward and backward. Many networks have ReLU6 in place, which copies its
input first although a gradient can be read off its output, and which a convolution before it can do while it writes.
In bfloat16 on a CPU the backward pass of a depthwise convolution has no fast code at all, though its forward pass has,
and one is the other of a flipped kernel.
Inside `quick` these are replaced by functions that do only what is needed (`bench/quick.py` measures it). Nothing is
learnt or kept between passes: weights may change from one to the next. Parameters get no gradient inside.
"""

import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import TracebackType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only

from salience.core.errors import InputError
from salience.core.quick_functions import Affine, Bounds, ClampInPlace, Convolved, How, Padded, Pair, StaleError, convolved

State = tuple[bool, bool, torch.dtype]
"""Whether gradients are recorded, whether autocast is at work, and the type of what a convolution then returns."""


class Waiting(Tensor):
    """What a function will return, not computed until it is known what comes next.

    To everybody else it is the tensor: any function of it but its shape computes it, and works on what came out.
    """

    METADATA = frozenset({torch._assert, Tensor.dim, Tensor.size, Tensor.is_inference, *(getattr(Tensor, name).__get__ for name in ("shape", "ndim", "dtype", "device"))})
    x: Tensor
    version: int
    state: State
    sizes: Sequence[int]
    computed: Tensor | None
    within: "Quick"

    @classmethod
    def on(cls, x: Tensor, sizes: Sequence[int], dtype: torch.dtype, state: State) -> Any:
        """A tensor without storage, of the shape that is to come, made from `x` under the modes of now."""
        made = torch.Tensor._make_wrapper_subclass(cls, sizes, dtype=dtype, device=x.device)
        made.x, made.version, made.state, made.sizes, made.computed = x, x._version, state, sizes, None
        return made

    def compute(self) -> Tensor:
        """The values, from x."""
        raise NotImplementedError

    def values(self) -> Tensor:
        """The values. A function of torch.autograd asks for them without a gradient, having seen none: its result would have none either."""
        if self.state[0] and self.x.requires_grad and not torch.is_grad_enabled():
            raise StaleError
        return self.settle()

    def settle(self) -> Tensor:
        """Compute the values, once, under the modes of the call."""
        if self.computed is None:
            if self.x._version != self.version:
                raise StaleError
            with nullcontext() if self.state == _state(self.x) else _under(self.state, self.x.device.type):
                self.computed = self.compute()
        return self.computed

    @classmethod
    def __torch_function__(cls, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Called by torch for every function of it."""
        if func in cls.METADATA:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **(kwargs or {}))
        args, kwargs = settled((args, kwargs or {}))
        return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(cls, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:  # type: ignore[override]  # torch declares it for any class
        """Called where torch's own code gets hold of it unseen, a scripted function say: beneath the graph, where a gradient would be lost."""
        for each in tree_leaves((args, kwargs)):
            if isinstance(each, Waiting) and each.state[0] and each.x.requires_grad:
                each.within.lost = True
        args, kwargs = settled((args, kwargs or {}))
        return func(*args, **kwargs)


def settled(arguments: Any) -> Any:
    """The arguments of a call, what waits among them computed."""
    args, kwargs = arguments
    if not kwargs and not any(isinstance(each, list | tuple | dict) for each in args):  # the usual case, in less time
        return tuple(each.values() if isinstance(each, Waiting) else each for each in args), kwargs
    return tree_map_only(Waiting, Waiting.values, arguments)


class Padding(Waiting):
    """Zeros around a picture, which wait for a depthwise convolution."""

    pad: Sequence[int]

    @classmethod
    def of(cls, x: Tensor, pad: Sequence[int]) -> "Padding":
        """`pad` zeros on the left, on the right, above and below."""
        left, right, top, bottom = pad
        n, c, height, width = x.shape
        made = cls.on(x, (n, c, height + top + bottom, width + left + right), x.dtype, _state(x))
        made.pad = pad
        return made

    def compute(self) -> Tensor:
        """The padded picture."""
        return Padded.apply(self.x, *self.pad)

    def absorbed(self, weight: Tensor) -> tuple[Tensor, Pair]:
        """Kernels that give without these zeros what `weight` gives with them, and their even padding: where there is less padding, they are zero."""
        left, right, top, bottom = self.pad
        return F.pad(weight, (max(right - left, 0), max(left - right, 0), max(bottom - top, 0), max(top - bottom, 0))), (max(top, bottom), max(left, right))


class Convolution(Waiting):
    """A convolution, which waits for a batch norm, and then for a clamp in place."""

    weight: Tensor
    bias: Tensor | None
    how: How
    bounds: Bounds | None = None

    @classmethod
    def of(cls, x: Tensor, weight: Tensor, bias: Tensor | None, how: How) -> "Convolution":
        """That of `x`, with parameters that get no gradient."""
        n, _, height, width = x.shape
        filters, _, rows, columns = weight.shape
        (down, across), (top, left), (apart, aside), _ = how
        sizes = n, filters, (height + 2 * top - apart * (rows - 1) - 1) // down + 1, (width + 2 * left - aside * (columns - 1) - 1) // across + 1
        state = _state(x)
        made = cls.on(x, sizes, state[2], state)
        made.weight, made.bias, made.how = weight.detach(), bias if bias is None else bias.detach(), how
        return made

    def compute(self) -> Tensor:
        """The convolution itself."""
        return _convolved(self.x, self.weight, self.bias, self.how, self.bounds)

    def normalised(self, scale: Tensor, shift: Tensor) -> "Convolution | None":
        """The convolution times `scale` plus `shift`, both (channels,), in one; None under another gradient or autocast mode than its own, or if their precisions differ."""
        if self.state != _state(self.x) or scale.dtype != self.weight.dtype:
            return None
        made = self.on(self.x, self.sizes, self.dtype, self.state)
        made.version, made.how = self.version, self.how
        made.weight = self.weight * scale.view(-1, 1, 1, 1)
        made.bias = shift if self.bias is None else torch.addcmul(shift, self.bias, scale)
        return made

    def clamped(self, bounds: Bounds) -> Tensor | None:
        """The convolution, clamped in place; None under other modes than its own, or if it was computed before."""
        if self.computed is not None or self.state != _state(self.x):
            return None
        self.bounds = bounds
        return self.settle()


class Quick(TorchFunctionMode):
    """Inside, the functions of `QUICK` are replaced, and what `AWAITED` names waits for the call that follows it."""

    pending: Waiting | None = None
    lost: bool = False

    def __init__(self, functions: Mapping[Callable, Callable]) -> None:
        super().__init__()
        self.functions = functions

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Refuse a pass that lost a gradient."""
        super().__exit__(kind, error, trace)
        self.pending = None
        if self.lost:
            raise StaleError

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Called by torch for every function."""
        kwargs = kwargs or {}
        if func in Waiting.METADATA:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        if torch._C._are_functorch_transforms_active() or func in LOOKING:
            raise StaleError
        pending, self.pending = self.pending, None
        followed = pending is not None and func in AWAITED[type(pending)] and func in self.functions and args and args[0] is pending
        if pending is not None and not followed:
            pending.settle()
        if not followed and any(issubclass(kind, Waiting) for kind in types):
            args, kwargs = settled((args, kwargs))
        replacement = self.functions.get(func)
        if replacement is not None and kept_elsewhere():
            raise StaleError
        made = None if replacement is None else replacement(*args, **kwargs)
        if isinstance(made, Waiting):
            self.pending, made.within = made, self
        return func(*args, **kwargs) if made is None else made


def _state(x: Tensor) -> State:
    """The modes of now."""
    device = x.device.type
    automatic = torch.is_autocast_enabled(device)
    return torch.is_grad_enabled(), automatic, torch.get_autocast_dtype(device) if automatic else x.dtype


@contextmanager
def _under(state: State, device: str) -> Iterator[None]:
    """The modes of before."""
    graph, automatic, kind = state
    with torch.set_grad_enabled(graph), torch.autocast(device, kind if automatic else None, automatic):
        yield


def kept_elsewhere() -> bool:
    """Whether somebody's hooks take the tensors that a backward pass needs, as activation checkpointing does: it relies on torch's own functions."""
    return TOP_HOOKS is not None and TOP_HOOKS(False) is not None


def check_kept() -> None:
    """Refuse activation checkpointing, for methods that replace functions of the network.

    Raises:
        InputError: If the network recomputes its activations in the backward pass.
    """
    if kept_elsewhere():
        raise InputError("The network recomputes its activations in the backward pass (activation checkpointing), which this method cannot follow: switch checkpointing off in the network.")


def as_written() -> AbstractContextManager:
    """Inside, networks of torch.compile run as they were written: the compiled ones call no hooks that are new, and hide their operations."""
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules and hasattr(torch.compiler, "set_stance") else nullcontext()


class Depth(threading.local):
    """How many passes through networks this thread is in."""

    networks = 0


depth = Depth()


@contextmanager
def inside_network() -> Iterator[None]:
    """What happens inside is the network's own doing, not that of a method around it."""
    depth.networks += 1
    try:
        yield
    finally:
        depth.networks -= 1


def function_modes() -> list[TorchFunctionMode]:
    """The modes at work, the outermost first."""
    return list(torch.overrides._get_current_function_mode_stack())


def quick(network: nn.Module) -> AbstractContextManager:
    """The mode for passes of `network`.

    Nothing where another mode is at work that must see the network's own calls (one that replaces nothing but ReLU says
    so by ``only_relu``), nothing where somebody's hooks look at what its modules return, and nothing in versions of
    torch that do not tell whether activations are made anew.
    """
    outer = function_modes()
    hooked = any(module._forward_hooks or module._forward_pre_hooks for module in network.modules()) or any(getattr(nn.modules.module, name) for name in GLOBAL_HOOKS)
    if hooked or TOP_HOOKS is None or not all(getattr(mode, "only_relu", False) for mode in outer):
        return nullcontext()
    return Quick(WITHOUT_RELU if outer else QUICK)


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
    """Batch norm in evaluation mode; None where it is not, or is made from the image."""
    if training or running_mean is None or running_var is None or made_in_the_pass(running_mean, running_var, weight, bias):
        return None
    scale = torch.rsqrt(running_var + eps)
    scale = scale if weight is None else scale * weight.detach()
    shift = -running_mean * scale if bias is None else torch.addcmul(bias.detach(), running_mean, scale, value=-1)
    if isinstance(x, Convolution):
        return x.normalised(scale, shift)
    shape = (1, -1, *(1,) * (x.ndim - 2))
    return Affine.apply(x, scale.view(shape), shift.view(shape))


def _hardtanh(x: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor | None:
    """Hardtanh in place on a tensor of the network's own; None otherwise."""
    if inplace and isinstance(x, Convolution):
        return x.clamped((float(min_val), float(max_val)))
    if not inplace or not x.requires_grad or x.is_leaf or x._is_view():
        return None
    return ClampInPlace.apply(x, float(min_val), float(max_val))


def _relu6(x: Tensor, inplace: bool = False) -> Tensor | None:
    return _hardtanh(x, 0.0, 6.0, inplace)


def made_in_the_pass(*parameters: Tensor | None) -> bool:
    """Whether one of them may depend on the image: then the gradient goes through it too."""
    return any(each is not None and each.grad_fn is not None for each in parameters)


def _conv2d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1) -> Convolution | None:  # torch's names
    """A convolution that waits for a batch norm; None for one image without a batch, padding given by name, or kernels made from the image."""
    x = input
    if x.dtype == torch.float64 and torch.is_autocast_enabled(x.device.type):  # which leaves these as they are
        return None
    if isinstance(padding, str) or x.ndim != 4 or made_in_the_pass(weight, bias) or x.is_inference():
        return None
    stride, padding, dilation = (tuple(each) * (2 // len(each)) if isinstance(each, tuple | list) else (each, each) for each in (stride, padding, dilation))
    if isinstance(x, Padding):
        depthwise = weight.shape[1] == 1 and dilation == (1, 1) and padding == (0, 0) and weight.device.type == "cpu"
        if depthwise:
            (weight, padding), x = x.absorbed(weight), x.x
        else:
            x = x.values()
    return Convolution.of(x, weight, bias, (stride, padding, dilation, groups))


def _pad(x: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Padding | None:
    """Zeros on the four sides of pictures, which wait for a convolution; None for any other padding."""
    if mode != "constant" or value or x.ndim != 4 or len(pad) != 4 or min(pad) < 0 or x.is_inference():
        return None
    return Padding.of(x, pad)


def _convolved(x: Tensor, weight: Tensor, bias: Tensor | None, how: How, bounds: Bounds | None) -> Tensor:
    """The convolution, perhaps clamped, with a gradient for x alone."""
    device = x.device.type
    if torch.is_autocast_enabled(device):
        kind = torch.get_autocast_dtype(device)
        with torch.autocast(device, enabled=False):
            return _convolved(x.to(kind), weight.to(kind), bias if bias is None else bias.to(kind), how, bounds)
    if not (torch.is_grad_enabled() and x.requires_grad):
        return convolved(x, weight, bias, how, bounds)
    return Convolved.apply(x, weight, bias, how, bounds)


TOP_HOOKS = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)
"""Torch's way to tell who keeps the tensors for the backward pass; versions such as 2.4 have none."""

GLOBAL_HOOKS = ("_global_forward_hooks", "_global_forward_pre_hooks", "_global_backward_hooks", "_global_backward_pre_hooks")
"""Where torch keeps hooks on all modules."""

LOOKING = frozenset({torch.autograd.grad, Tensor.backward, Tensor.register_hook, Tensor.retain_grad, vars(torch._C.TensorBase)["grad_fn"].__get__})
"""Functions by which a network may see gradients within itself; some are changed in place."""

AWAITED: dict[type[Waiting], tuple[Callable, ...]] = {Padding: (F.conv2d, torch.conv2d), Convolution: (F.batch_norm, F.hardtanh, F.relu6)}
WITHOUT_RELU: dict[Callable, Callable] = {F.batch_norm: _batch_norm, F.pad: _pad, F.conv2d: _conv2d, torch.conv2d: _conv2d}
QUICK = WITHOUT_RELU | {F.hardtanh: _hardtanh, F.relu6: _relu6}
