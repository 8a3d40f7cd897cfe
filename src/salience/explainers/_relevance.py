"""Backward passes that hand relevance down instead of gradients, for LRP and excitation backpropagation.

A `TorchFunctionMode` sees every operation of the network, in modules and functional calls alike. Each one that
depends on the image gets a backward pass that shares its relevance among its inputs:

* layers with weights (convolutions, linear) and sums by the method's rule; average pooling and other means
  are layers whose weights are all positive, a residual sum is one whose weights are one;
* batch normalisation after a layer with weights is merged into that layer, for the rule only;
* activations, scaling by constants and max pooling hand everything to their input (the maximum);
* sigmoids are gates: what they multiply takes everything (Arras et al. 2017);
* operations that only move values move relevance, which their gradient does;
* an operation in place makes what it changes anew; where it changes a part through a view, what was known of
  the whole no longer holds;
* anything else is refused, by name if it has one, so that no map is half relevance, half gradient.

No module, weight or hook is touched.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.weak import WeakTensorKeyDictionary

from salience.core.errors import InputError
from salience.core.quick import check_kept
from salience.explainers._linear import Linear, Rule

WEIGHTED = {"conv1d", "conv2d", "conv3d", "linear"}
MEANS = {"avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "mean", "sum"}
ACTIVATIONS = {
    *("relu", "relu6", "hardtanh", "clamp", "clamp_min", "clip", "leaky_relu", "prelu", "rrelu", "elu", "celu", "selu"),
    *("silu", "gelu", "hardswish", "mish", "softplus", "tanh", "threshold"),
}
GATES = {"sigmoid", "hardsigmoid"}
SUMS = {"add", "radd", "iadd", "sub", "rsub", "isub", "subtract"}
PRODUCTS = {"mul", "rmul", "imul", "multiply", "neg"}
QUOTIENTS = {"div", "truediv", "itruediv", "divide"}
MOVES = {
    *("flatten", "unflatten", "reshape", "reshape_as", "view", "view_as", "permute", "transpose", "movedim", "swapaxes", "swapdims", "moveaxis", "t", "squeeze", "unsqueeze"),
    *("getitem", "get", "narrow", "select", "index_select", "chunk", "split", "tensor_split", "unbind", "cat", "concat", "concatenate", "stack", "hstack", "vstack", "expand", "expand_as"),
    *("repeat", "repeat_interleave", "pad", "roll", "flip", "rot90", "unfold", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "native_channel_shuffle"),
    *("contiguous", "clone", "to", "type", "type_as", "float", "double", "half", "bfloat16", "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout"),
    *("max_pool1d", "max_pool2d", "max_pool3d", "adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d", "amax", "max", "maximum", "detach", "as_subclass"),
}
"""Moves, copies (whose relevance adds up) and choices of the largest: their gradient carries relevance as it is."""


class RelevancePass(TorchFunctionMode):
    """Inside, the backward pass of the network hands down relevance.

    Args:
        method: Name of the method, for messages.
        network: Name of the network, for messages.
        rule: How linear operations share their relevance.
        biases: Whether biases and other added constants take their part; otherwise they are left out of the rule.

    Attributes:
        top: The last layer with weights, with its inputs.
        negative: Whether the top layer's weights count as negated now.
    """

    def __init__(self, method: str, network: str, rule: Rule, *, biases: bool = False) -> None:
        super().__init__()
        self.method, self.network, self.rule, self.biases = method, network, rule, biases
        self.seen = WeakTensorKeyDictionary()
        self.layers = WeakTensorKeyDictionary()
        self.bounds = WeakTensorKeyDictionary()
        self.varying = WeakTensorKeyDictionary()
        self.changed = WeakTensorKeyDictionary()
        self.top: tuple[Linear, Tensor] | None = None
        self.negative = False

    def enter_images(self, images: Tensor) -> Tensor:
        """The images as the network's input, with the bounds of their pixels: 0 and 1, or wider where noise goes beyond."""
        start = images.clone()
        self.seen[start] = start._version
        pixels = images.detach()
        self.bounds[start] = (torch.minimum(pixels, torch.zeros_like(pixels)), torch.maximum(pixels, torch.ones_like(pixels)))
        return start

    @contextmanager
    def top_negated(self) -> Iterator[None]:
        """Inside, the weights of the last layer with weights count as negated."""
        self.negative = True
        try:
            yield
        finally:
            self.negative = False

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Called by torch for every function."""
        kwargs = kwargs or {}
        tensors = _tensors((args, kwargs))
        live = [each for each in tensors if each.grad_fn is not None]
        if not live:
            with torch.no_grad() if tensors else nullcontext():
                return func(*args, **kwargs)
        check_kept()
        self.check_seen(live)
        self._check_views(live)
        result = self._done(func, args, kwargs, live)
        self.seen.update((each, each._version) for each in _tensors(result) if each.grad_fn is not None)
        return result

    def check_seen(self, tensors: list[Tensor]) -> None:
        """Refuse tensors that were made by operations which cannot be seen here: those of TorchScript, or with a backward pass of their own.

        Raises:
            InputError: If one of the tensors was made by such an operation.
        """
        if any(each not in self.seen and type(each.grad_fn).__name__ != "BackwardHookFunctionBackward" for each in tensors):
            raise InputError(
                f"{self.method} cannot see all operations of {self.network}: it is, or has in it, TorchScript or a function with a backward pass of its own. "
                "Give the network as plain modules, or choose another method, such as integrated_gradients or rise."
            )

    def _check_views(self, tensors: list[Tensor]) -> None:
        """Refuse tensors that were changed through a view, if it is no longer known what their pixels' bounds are, or which of their units vary."""
        if any(_whole(each) in self.changed and each._version != self.seen.get(each, each._version) for each in tensors):
            raise self._in_place()

    def _in_place(self) -> InputError:
        return InputError(
            f"{self.method} cannot follow what {self.network} changes in place, through a view (as in x[:, 0].sub_(mean)) or after a layer has used it: "
            "let it make new tensors (x = (x - mean) / std), or choose another method, such as integrated_gradients or rise."
        )

    def _done(self, func: Callable, args: tuple, kwargs: dict, live: list[Tensor]) -> Any:
        """The operation's result, with the backward pass of its kind."""
        name = func.__name__.strip("_")
        in_place = (func.__name__.endswith("_") and not func.__name__.endswith("__")) or func.__name__.startswith("__i") or bool(kwargs.get("inplace"))
        if name in MOVES and (not in_place or "dropout" in name):
            result = func(*args, **kwargs)
            self._carry_bounds(func, args, kwargs, live, result)
            self._carry_varying(func, args, kwargs, live, result)
            return result
        target = args[0] if args else kwargs["input"]
        if in_place and args:
            func = _on_a_copy(func)
        result = self._shared(func, name, target, args, kwargs, live)
        if result is None:
            result = func(*args, **kwargs)
            if in_place or name == "setitem" or any(each.grad_fn is not None for each in _tensors(result)):
                raise InputError(f"{self.method} has no rule for the operation {name!r} in {self.network}: choose another method, such as gradcam, integrated_gradients or rise.")
        return self._put(target, result) if in_place else result

    def _put(self, target: Tensor, result: Tensor) -> Tensor:
        """What an operation in place does, with all that is known of the result."""
        target.copy_(result)
        for known in (self.bounds, self.varying):
            if target in known or result in known:
                self.changed[_whole(target)] = True
            known.pop(target, None)
            if result in known:
                known[target] = known[result]
        return target

    def _shared(self, func: Callable, name: str, first: Any, args: tuple, kwargs: dict, live: list[Tensor]) -> Tensor | None:
        """The operation's result, with the backward pass of its kind; None if it is of no kind."""
        alone = len(live) == 1 and live[0] is first
        if alone and name in WEIGHTED:
            return self._weighted(func, first, args, kwargs)
        if alone and func is F.batch_norm:
            return self._batch_norm(first, args, kwargs)
        if alone and name in MEANS:
            rest = {key: value for key, value in kwargs.items() if key != "input"}
            return self._linear(lambda: func(*args, **kwargs), Linear(lambda x, _: func(x, *args[1:], **rest)), first)
        if alone and name in GATES:
            with torch.no_grad():
                return func(*args, **kwargs)
        if alone and name in ACTIVATIONS:
            return self._passed(lambda: func(*args, **kwargs), first)
        if name in SUMS:
            return self._sum(func, name, args, kwargs, live)
        if len(live) == 1 and (name in PRODUCTS or (alone and name in QUOTIENTS)):
            result = self._passed(lambda: func(*args, **kwargs), live[0])
            self._carry_bounds(func, args, kwargs, live, result)
            return result
        return None

    def _weighted(self, func: Callable, inputs: Tensor, args: tuple, kwargs: dict) -> Tensor:
        names = ("input", "weight", "bias")
        given = dict(zip(names, args[:3], strict=False)) | {key: value for key, value in kwargs.items() if key in names}
        rest = {key: value for key, value in kwargs.items() if key not in names}
        bias = given.get("bias")
        if bias is not None:
            bias = bias.detach().view(-1, *(1,) * (0 if func is F.linear else inputs.ndim - 2))
        layer = Linear(lambda x, weight: func(x, weight, None, *args[3:], **rest), given["weight"].detach(), bias)
        return self._layer(lambda: func(*args, **kwargs), layer, inputs)

    def _layer(self, compute: Callable[[], Tensor], layer: Linear, inputs: Tensor) -> Tensor:
        result = self._linear(compute, layer, inputs)
        self.top = layer, inputs
        self.layers[result] = layer, inputs, inputs._version, result._version
        return result

    def _layer_before(self, result: Tensor) -> tuple[Linear, Tensor] | None:
        """The layer with weights that made a tensor, if that is still as it was made, and the layer's inputs."""
        if result not in self.layers:
            return None
        layer, inputs, given, made = self.layers[result]
        if inputs._version != given:
            raise self._in_place()
        return (layer, inputs) if result._version == made else None

    def _batch_norm(self, inputs: Tensor, args: tuple, kwargs: dict) -> Tensor:
        """Merged into the layer before it; otherwise it scales, and its shift is a bias."""
        call = inspect.signature(F.batch_norm).bind(*args, **kwargs)
        call.apply_defaults()
        given = call.arguments
        mean, variance = given["running_mean"], given["running_var"]
        if given["training"] or mean is None:
            raise InputError(f"{self.method} cannot explain {self.network}: its batch normalisation uses the statistics of the batch, so that images depend on each other; set track_running_stats.")
        scale = (variance.detach() + given["eps"]).rsqrt()
        scale = scale if given["weight"] is None else scale * given["weight"].detach()
        shift = -mean.detach() * scale
        shift = shift if given["bias"] is None else shift + given["bias"].detach()
        wide = (-1, *(1,) * (inputs.ndim - 2))
        scale, shift = scale.view(wide), shift.view(wide)

        def compute() -> Tensor:
            return F.batch_norm(*args, **kwargs)

        found = self._layer_before(inputs)
        if found is not None:
            layer, before = found
            bias = shift if layer.bias is None else shift + scale * layer.bias.view(wide)
            return self._layer(compute, layer.scaled(scale, bias), before)
        if self.biases and inputs not in self.bounds:
            return self._linear(compute, Linear(lambda x, weight: x if weight is None else x * weight, scale, shift), inputs)
        result = self._passed(compute, inputs)
        self._carry_bounds(F.batch_norm, args, kwargs, [inputs], result)
        return result

    def _passed(self, compute: Callable[[], Tensor], inputs: Tensor) -> Tensor:
        """An operation that hands all relevance to its input."""
        shape = inputs.shape
        result = _Redirected.apply(compute, lambda relevance: (relevance.sum_to_size(shape),), False, inputs)
        if inputs in self.varying:
            self.varying[result] = self.varying[inputs].expand(result.shape)
        return result

    def _linear(self, compute: Callable[[], Tensor], operation: Linear, inputs: Tensor) -> Tensor:
        """A linear operation. Where biases take no part, units without any active input are constants: they count as biases further up."""
        bounds, varying = self.bounds.get(inputs), self.varying.get(inputs)

        def shares(relevance: Tensor, inputs: Tensor) -> tuple[Tensor]:
            chosen = operation.scaled(-1, operation.bias) if self.negative and self.top is not None and self.top[0] is operation else operation
            if varying is not None:
                constant = operation.whole(torch.where(varying, torch.zeros_like(inputs), inputs))
                chosen = replace(chosen, bias=constant if chosen.bias is None else constant + chosen.bias)
                inputs = torch.where(varying, inputs, torch.zeros_like(inputs))
            return (self.rule(chosen, inputs, relevance, bounds),)

        result = _Redirected.apply(compute, shares, True, inputs)
        if bounds is None and not self.biases:
            active = operation.size(inputs.detach() if varying is None else inputs.detach() * varying) > 0
            if not active.all():
                self.varying[result] = active
        return result

    def _sum(self, func: Callable, name: str, args: tuple, kwargs: dict, live: list[Tensor]) -> Tensor:
        """A sum of two activations is a layer with weights of one; a constant in a sum is a bias."""
        result = func(*args, **kwargs).detach()
        if len(live) == 1 and (not self.biases or live[0] in self.bounds):
            passed = self._passed(lambda: result, live[0])
            self._carry_bounds(func, args, kwargs, live, passed)
            return passed
        first, second = [*args, *(kwargs[key] for key in ("input", "other") if key in kwargs)]
        factor = kwargs.get("alpha", 1) * (-1 if "sub" in name else 1)
        first, second = (first * factor, second) if name == "rsub" else (first, second * factor)
        terms = torch.stack([torch.as_tensor(each).detach().to(result).expand(result.shape) for each in (first, second)])
        masks = [self.varying.get(each) for each in live]
        if len(live) == 1:
            place = 0 if isinstance(first, Tensor) and first.grad_fn is not None else 1
            identity = Linear(lambda x, _: x, None, terms[1 - place])
            made = _Redirected.apply(lambda: result, lambda relevance: (self.rule(identity, terms[place], relevance, None).sum_to_size(live[0].shape),), False, live[0])
        else:
            shapes = [each.shape for each in live]
            shown = torch.stack([torch.ones_like(result) if mask is None else mask.to(result).expand(result.shape) for mask in masks])
            total = Linear(lambda x, _: x.sum(0), None, (terms * (1 - shown)).sum(0))

            def shares(relevance: Tensor) -> tuple[Tensor, ...]:
                parts = self.rule(total, terms * shown, relevance, None)
                return tuple(part.sum_to_size(shape) for part, shape in zip(parts, shapes, strict=True))

            made = _Redirected.apply(lambda: result, shares, False, *live)
        if not self.biases and len(live) > 1:  # where both terms are zero, what a batch norm makes of the sum is a constant
            active = ((terms != 0) & (shown > 0)).any(0)
            if not active.all():
                self.varying[made] = active
        elif all(mask is not None for mask in masks):
            self.varying[made] = torch.stack([mask.expand(result.shape) for mask in masks]).any(0)
        return made

    def _carry_bounds(self, func: Callable, args: tuple, kwargs: dict, live: list[Tensor], result: Any) -> None:
        """The bounds of the pixels, through what happens to them before the first layer."""
        if not all(each in self.bounds for each in live):
            return
        ends = []
        for end in (0, 1):

            def limit(each: Tensor, end: int = end) -> Tensor:
                return self.bounds[each][end].clone() if each in self.bounds else each

            at_end, named_at_end = tree_map_only(Tensor, limit, (args, kwargs))
            ends.append(_tensors(func(*at_end, **named_at_end)))
        for made, one, other in zip(_tensors(result), *ends, strict=True):
            self.bounds[made] = (torch.minimum(one, other), torch.maximum(one, other))

    def _carry_varying(self, func: Callable, args: tuple, kwargs: dict, live: list[Tensor], result: Any) -> None:
        """Which units vary with the image, through what moves them."""
        if not any(each in self.varying for each in live):
            return

        def mask(each: Tensor) -> Tensor:
            if each in self.varying:
                return self.varying[each].float()
            return torch.ones_like(each) if each.grad_fn is not None else torch.zeros_like(each) if each.is_floating_point() else each

        masks, named_masks = tree_map_only(Tensor, mask, (args, kwargs))
        for each, shown in zip(_tensors(result), _tensors(func(*masks, **named_masks)), strict=True):
            if each.grad_fn is not None:
                self.varying[each] = shown > 0


class _Redirected(torch.autograd.Function):
    """An operation whose backward pass is given: from relevance (and, if kept, the inputs) to the inputs' relevance."""

    @staticmethod
    def forward(ctx: Any, compute: Callable[[], Tensor], shares: Callable[..., tuple[Tensor, ...]], keep: bool, *inputs: Tensor) -> Tensor:
        ctx.shares = shares
        ctx.save_for_backward(*(inputs if keep else ()))
        return compute()

    @staticmethod
    def backward(ctx: Any, relevance: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        return None, None, None, *ctx.shares(relevance, *ctx.saved_tensors)


def _on_a_copy(func: Callable) -> Callable:
    """An operation in place that leaves its first argument as it is: contributions and bounds are still to be taken from that."""
    return lambda first, *rest, **kwargs: func(first.clone(), *rest, **kwargs)


def _whole(tensor: Tensor) -> Tensor:
    """The tensor that this one is a view of, or itself."""
    return tensor if tensor._base is None else tensor._base


def _tensors(value: Any) -> list[Tensor]:
    """All tensors in arguments or results."""
    return [each for each in tree_leaves(value) if isinstance(each, Tensor)]
