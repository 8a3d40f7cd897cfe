"""White boxes: a network together with the preprocessing it expects, as one module from [0, 1] to scores."""

import hashlib
import numbers
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import CheckpointError

from salience.core.classifier import OUTPUTS, Classifier, class_names, joined, pair
from salience.core.device import check_precision
from salience.core.errors import InputError, unknown
from salience.core.network import at_work
from salience.core.quick import StaleError, function_modes, inside_network, quick
from salience.core.score import Score
from salience.core.types import Images, Outputs, Targets

CHANNEL_ORDERS = {"RGB": (0, 1, 2), "BGR": (2, 1, 0), "L": (0,)}
VIEW_ERRORS = "view size is not compatible", "Cannot view a tensor"
"""What torch says, and torch.compile, of a `view` that needs channels first."""
LEAST_FORWARD, LEAST_GRADIENT = 2**17, 2**15
"""Pixels in a pass from which on `quick` saves more time than it costs (`bench/quick.py` measures it)."""


@dataclass
class Found:
    """What has been found out about a network, shared by all views of it.

    Attributes:
        memory_format: The order of values that it takes: channels last, which is faster, unless it cannot.
        quick: Whether its passes may be made by `quick`.
    """

    memory_format: torch.memory_format = torch.channels_last
    quick: bool = True


class Model(Classifier, nn.Module):
    """A network and its preprocessing: an `nn.Module` from RGB images in [0, 1] to scores.

    A call leaves the module's weights, buffers, modes and hooks as they were; calls from several threads take turns. Inside, images are
    in channels-last order, which is faster on CPUs and current GPUs alike.

    Args:
        module: Any `nn.Module` from (n, c, h, w) to (n, k); an output with ``.logits`` or ``["logits"]`` will do.
        mean: Subtracted per channel: numbers, or one for all, in the module's own units and channel order. None subtracts nothing.
        std: Divided by per channel, likewise.
        size: (height, width) of the input, or one int for a square; None takes images as they come.
        labels: Class names in index order, or by index in a dictionary.
        channels: Order of the module's channels: ``RGB``, ``BGR``, or ``L`` for grey images.
        value_range: What white is for the module: 1, or 255.
        name: How records call it; by default the class of the module.
        outputs: ``logits``; ``probabilities`` if the module ends in a softmax; ``multilabel`` for logits of classes that do not exclude each other.
        precision: ``float32``, or ``bfloat16`` (autocast) for speed.

    Raises:
        InputError: For arguments that do not fit together.
    """

    white_box = True
    module: nn.Module
    found: Found
    value_range: float
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        module: Any,
        *,
        mean: Any = None,
        std: Any = None,
        size: Any = None,
        labels: Sequence[str] | Mapping[Any, str] | None = None,
        channels: str = "RGB",
        value_range: float = 1,
        name: str | None = None,
        outputs: str = "logits",
        precision: str = "float32",
    ) -> None:
        super().__init__()
        if not isinstance(module, nn.Module):
            raise InputError(f"Model needs an nn.Module, not {type(module).__name__}: wrap a function with sal.BlackBox(fn).")
        if channels not in CHANNEL_ORDERS:
            raise unknown("channel order", str(channels), CHANNEL_ORDERS)
        if outputs not in OUTPUTS:
            raise unknown("kind of outputs", outputs, OUTPUTS)
        self.order = CHANNEL_ORDERS[channels]
        count = len(self.order)
        mean, std = _by_channel(mean, 0.0, count), _by_channel(std, 1.0, count)
        if mean is None or std is None or not all(each > 0 for each in std):
            raise InputError(f"mean and std need {count} numbers each (or one for all) for channels={channels!r}, and std must be positive.")
        if not (isinstance(value_range, numbers.Real) and value_range > 0):
            raise InputError(f"value_range is what white is for the network, 1 or 255, not {value_range!r}.")
        if max(mean) > value_range or (value_range == 255 and 0 < max(mean) <= 1):
            raise InputError(
                f"mean ({', '.join(f'{each:g}' for each in mean)}) does not go with value_range={value_range:g}: both are in the network's own units; ImageNet's mean is (0.485, 0.456, 0.406) for value_range=1 and (123.7, 116.3, 103.5) for 255."
            )
        self.module = module
        self.value_range = float(value_range)
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)
        colour = torch.tensor(mean) / self.value_range
        self.mean_colour = torch.empty(count).index_copy(0, torch.tensor(self.order), colour).clamp(0, 1)
        self.size = pair(size)
        self.labels = class_names(labels)
        self.name = name or type(module).__name__
        self.probabilities, self.multilabel = outputs == "probabilities", outputs == "multilabel"
        self.precision = precision
        self.found = Found()
        self.training = module.training
        parameter = next(module.parameters(), None)
        if parameter is not None and parameter.device.type == "meta":
            raise InputError(f"The weights of {self.name} are on the meta device, where they have no values: load them first.")
        if any(isinstance(each, nn.modules.batchnorm._BatchNorm) and each.running_mean is None for each in module.modules()):
            warnings.warn(
                f"{self.name} normalises by the images that pass together (batch norm without running statistics), so its maps depend on them: use chunk=1 and single images.",
                UserWarning,
                stacklevel=2,
            )
        self.to_device(parameter.device if parameter is not None else torch.device("cpu"))
        check_precision(precision, self.device)

    def to_device(self, device: torch.device | str) -> "Model":
        """Move the network (in place, as `nn.Module.to` does) and work there."""
        self.to(device)
        self.device = torch.device(device)
        return self

    def normalise(self, images: Images) -> Images:
        """[0, 1] RGB to what the module was trained on."""
        if self.order != tuple(range(len(self.order))):
            images = images[:, list(self.order)]
        if self.value_range != 1:
            images = images * self.value_range
        return (images - self.mean) / self.std

    def forward(self, images: Images) -> Any:
        """Images (n, c, h, w) in [0, 1] to outputs (n, k), differentiable."""
        inputs = self.normalise(images)
        weight = next(self.module.parameters(), inputs)
        inputs = inputs.to(weight.dtype) if weight.is_floating_point() else inputs
        with inside_network(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            try:
                outputs = self.module(inputs.contiguous(memory_format=self.found.memory_format))
            except RuntimeError as error:
                if self.found.memory_format == torch.contiguous_format or not any(text in str(error) for text in VIEW_ERRORS):
                    raise
                self.found.memory_format = torch.contiguous_format  # it flattens maps by `view`, which needs channels first
                self.module.to(memory_format=torch.contiguous_format)
                outputs = self.module(inputs.contiguous())
        outputs = logits_of(outputs)
        return outputs.float() if isinstance(outputs, Tensor) else outputs

    def _forward(self, images: Images) -> Any:
        """`forward` without a gradient."""
        return self._quickly(LEAST_FORWARD, self._under, images)

    def _quickly(self, least: int, run: Callable, images: Images, *args: Any) -> Any:
        """What `run` returns for a mode to call the network in, `images` and `args`: a mode that takes less time if they have `least` pixels and the network allows it."""
        if self.found.quick and images[:, 0].numel() >= least:
            try:
                return run(quick(self.module), images, *args)
            except (StaleError, CheckpointError):
                self.found.quick = False
        return run(nullcontext(), images, *args)

    def _under(self, mode: AbstractContextManager, images: Images) -> Any:
        """`forward` in `mode`."""
        with mode:
            return self(images)

    def gradient(self, images: Images, targets: Targets, score: str | Callable | Score | None = None) -> Images:
        """Gradient of the target's score with respect to the image, in [0, 1] pixel space, in evaluation mode.

        Args:
            images: (n, c, h, w) in [0, 1].
            targets: (n,) class indices.
            score: What is differentiated; None takes the bound score, else the logit.

        Returns:
            (n, c, h, w), in score units per unit of pixel value. One forward and one backward pass an image.

        Raises:
            InputError: If the model's outputs are unfit, or do not depend differentiably on the image.
        """
        return self.gradient_and_outputs(images, targets, score)[0]

    def gradient_and_outputs(self, images: Images, targets: Targets, score: str | Callable | Score | None = None) -> tuple[Images, Outputs]:
        """The gradient, as `gradient`, and the outputs (n, k) of the forward pass it needed."""
        chosen = self.named_score(score) if score is not None else self.bound_score
        gradients, outputs = [], []
        with self.frozen():
            for part in self.chunks(images):
                if self.tape is None or not images.requires_grad:
                    gradient, values = self._quickly(LEAST_GRADIENT, self._pass, images[part].detach().requires_grad_(True), targets[part], chosen, False)
                    values = values.detach()
                elif self.tape.keeps(len(images[part])):
                    gradient, values = self._quickly(0, self._pass, images[part], targets[part], chosen, True)
                else:
                    gradient, values = RecomputedGradient.apply(images[part], self, targets[part], chosen)
                gradients.append(gradient)
                outputs.append(values)
        return joined(gradients), joined(outputs)

    def _pass(self, mode: AbstractContextManager, inputs: Images, targets: Targets, score: Score, again: bool) -> tuple[Images, Outputs]:
        """Gradient and outputs of one pass forward, in `mode`, and back; `again` says whether both can be differentiated."""
        with torch.enable_grad():
            values = self.checked(self._under(mode, inputs), inputs)
            total = score.of(values, targets).sum()
            gradient = torch.autograd.grad(total, inputs, create_graph=again, allow_unused=True)[0] if total.requires_grad else None
            if gradient is None:
                raise without_gradient(self.name)
            return gradient, values

    def frozen(self) -> AbstractContextManager[None]:
        """Every module in evaluation mode inside; its own mode and the buffers are as before afterwards. Freed memory is kept, and other threads wait for the network, meanwhile."""
        return at_work(self.module)

    def extra_repr(self) -> str:
        """As `Classifier.extra_repr`, with the normalisation; torch prints the network below it."""
        mean, std = ([float(f"{each:.4g}") for each in values.flatten().tolist()] for values in (self.mean, self.std))
        order = next(name for name, order in CHANNEL_ORDERS.items() if order == self.order)
        return f"{super().extra_repr()}\nmean={mean}, std={std}, channels={order!r}, value_range={self.value_range:g}, precision={self.precision!r}"

    @property
    def settings(self) -> dict[str, Any]:
        """As `Classifier.settings`; of the network's structure what it prints of itself, without addresses."""
        structure = re.sub(r" at 0x[0-9a-fA-F]+", "", repr(self.module))
        own = {"mean": self.mean.flatten().tolist(), "std": self.std.flatten().tolist(), "value_range": self.value_range, "channels": list(self.order)}
        return super().settings | own | {"structure": hashlib.sha256(structure.encode()).hexdigest()[:16]}

    def weights_hash(self) -> str:
        """SHA-256 over the names and values of all weights and buffers of the module."""
        digest = hashlib.sha256()
        for key, value in self.module.state_dict().items():
            digest.update(key.encode())
            for each in tree_leaves(value):  # quantised layers keep more than one tensor, and what is none, under a name
                digest.update(_bytes_of(each) if isinstance(each, Tensor) else repr(each).encode())
        return digest.hexdigest()


def without_gradient(name: str) -> InputError:
    """What to say of a network through which no gradient goes."""
    return InputError(f"The outputs of {name} do not depend differentiably on the image: it works under no_grad, detaches, or is quantised; use rise, occlusion or lime.")


def _bytes_of(value: Tensor) -> bytes:
    value = value.detach().cpu()
    value = value.dequantize() if value.is_quantized else value
    return value.contiguous().view(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b""


def _by_channel(values: Any, default: float, count: int) -> tuple[float, ...] | None:
    """One number a channel; None if they are not that many."""
    try:
        each = np.asarray(default if values is None else values, dtype=np.float64).reshape(-1).tolist()
    except (TypeError, ValueError):
        return None
    return tuple(each * count if len(each) == 1 else each) if len(each) in (1, count) else None


def logits_of(outputs: Any) -> Any:
    """What a network returned, or the ``.logits`` or ``["logits"]`` of it."""
    return outputs["logits"] if isinstance(outputs, Mapping) and "logits" in outputs else getattr(outputs, "logits", outputs)


class RecomputedGradient(torch.autograd.Function):
    """Gradient and outputs that can be differentiated, though no graph is kept: it is made again, under the same modes."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, model: Model, targets: Tensor, score: Score) -> tuple[Tensor, Tensor]:
        """The plain pass."""
        ctx.save_for_backward(images, targets)
        ctx.model, ctx.score, ctx.modes = model, score, function_modes()
        return model.using(tape=None).gradient_and_outputs(images, targets, score)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        """The pass once more with its graph, and back through it."""
        images, targets = ctx.saved_tensors
        with ExitStack() as stack, torch.enable_grad():
            for mode in ctx.modes:
                stack.enter_context(mode)
            inputs = images.detach().requires_grad_(True)
            made = ctx.model._quickly(0, ctx.model._pass, inputs, targets, ctx.score, True)
            return torch.autograd.grad(made, inputs, gradients)[0], None, None, None
