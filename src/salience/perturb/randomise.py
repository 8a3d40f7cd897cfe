"""Random numbers in place of trained parameters, module by module, and everything put back whatever happens."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from salience.core.classifier import Classifier
from salience.core.draws import Stream
from salience.core.errors import InputError
from salience.core.model import Model
from salience.core.network import forget


@dataclass(frozen=True)
class Part:
    """A module and the parameters that it owns itself.

    Attributes:
        name: Its name in the network; empty for the network itself (tokens of a transformer, for example).
        module: The module.
        parameters: Its own floating-point parameters, by their name in the module; tied ones belong to their first owner.
    """

    name: str
    module: nn.Module
    parameters: dict[str, nn.Parameter]

    @property
    def size(self) -> int:
        """How many numbers the parameters hold."""
        return sum(parameter.numel() for parameter in self.parameters.values())


def parts_of(model: Classifier) -> list[Part]:
    """All modules of a network that own parameters, or the running statistics of a normalisation, in the order in which they were registered.

    That is the order of execution in nearly all networks, from the image to the scores.

    Raises:
        InputError: If the model is a black box, or has no parameters.
    """
    if not isinstance(model, Model):
        raise InputError(f"{model.name} is a black box, so its parameters cannot be randomised: give the network itself as sal.Model(module).")
    found, met = [], set[int]()
    for name, module in model.module.named_modules():
        own = {key: each for key, each in module.named_parameters(recurse=False) if each.is_floating_point() and each.numel() and id(each) not in met}
        met |= {id(each) for each in own.values()}
        if own or isinstance(getattr(module, "running_mean", None), Tensor):
            found.append(Part(name, module, own))
    if not any(part.parameters for part in found):
        raise InputError(f"{model.name} has no parameters, so there is nothing to randomise.")
    return found


@contextmanager
def randomised(parts: Sequence[Part], stream: Stream) -> Iterator[None]:
    """Inside, the parameters of some modules are random; afterwards the original tensors, bit for bit.

    Each parameter has a draw of its own, keyed by its full name:

    - The affine part of a normalisation (a module whose weight has one dimension, and that has an epsilon) is not drawn: its
      weight is 1 and its bias 0, and its running mean is 0 and its running variance 1, as at the start of training.
    - All others are U(-a, a), a = sqrt(6 / (fan in + fan out)) (Xavier's initialisation): weights, biases, class and
      position tokens, scales. A vector counts as a matrix of one column. Groups of a convolution count as separate layers.

    Args:
        parts: Which modules.
        stream: Where the numbers come from; images that share their draws of weights share these.
    """
    changed: list[tuple[Tensor, Tensor]] = []
    try:
        for part in parts:
            for key, parameter in part.parameters.items():
                drawn = _drawn(part, key, parameter, stream)
                changed.append((parameter, parameter.data))
                parameter.data = drawn
            for key, value in (("running_mean", 0.0), ("running_var", 1.0)):
                buffer = getattr(part.module, key, None)
                if isinstance(buffer, Tensor):
                    changed.append((buffer, buffer.data))
                    buffer.data = torch.full_like(buffer, value)
            forget(part.module)
        yield
    finally:
        for tensor, original in reversed(changed):
            tensor.data = original
        for part in parts:
            forget(part.module)


def _drawn(part: Part, key: str, parameter: Tensor, stream: Stream) -> Tensor:
    weight = getattr(part.module, "weight", None)
    normalisation = isinstance(weight, Tensor) and weight.ndim == 1 and any("eps" in name for name in vars(part.module))
    if key in ("weight", "bias") and normalisation:
        return torch.full_like(parameter, 1.0 if key == "weight" else 0.0, requires_grad=False)
    outputs, inputs, *window = (*parameter.shape, 1, 1)[: max(parameter.ndim, 2)]
    groups = getattr(part.module, "groups", 1) if parameter.ndim > 2 else 1
    bound = math.sqrt(6 / ((inputs + outputs / groups) * math.prod(window)))
    uniform = torch.from_numpy(stream.weight_generator("random weights", f"{part.name}.{key}").random(tuple(parameter.shape), dtype="float32"))
    return torch.empty_like(parameter, requires_grad=False).copy_(bound * (2 * uniform - 1))
