"""Linear operations as rules of relevance see them: their contributions by sign, and their transposes."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from salience.explainers._layers import positive

Bounds = tuple[Tensor, Tensor]
"""The least and the greatest value of each input."""


@dataclass(frozen=True, eq=False)
class Linear:
    """A linear operation: a layer with weights, or one whose weights are all positive.

    Attributes:
        run: From inputs and weights to outputs, without bias.
        weight: The weights, or None if they are built in and positive.
        bias: What is added to the outputs, or None.
    """

    run: Callable[[Tensor, Tensor | None], Tensor]
    weight: Tensor | None = None
    bias: Tensor | None = None

    def whole(self, inputs: Tensor) -> Tensor:
        """The sum of all contributions x_i w_ij."""
        return self.run(inputs, self.weight)

    def split(self, above: Tensor, below: Tensor | None = None) -> Tensor:
        """Sum of above_i max(w_ij, 0) + below_i min(w_ij, 0): the positive contributions, for the input's positive and negative parts."""
        if self.weight is None:
            return self.run(above, None)
        total = self.run(above, positive(self.weight))
        return total if below is None else total - self.run(below, positive(-self.weight))

    def size(self, inputs: Tensor) -> Tensor:
        """The sum of the contributions' sizes, |x_i w_ij|."""
        return self.run(inputs.abs(), None if self.weight is None else self.weight.abs())

    def scaled(self, scale: Tensor | float, bias: Tensor | None) -> "Linear":
        """A layer whose output units have their weights multiplied, and another bias."""
        if self.weight is None:
            return self
        wide = scale.view(-1, *(1,) * (self.weight.ndim - 1)) if isinstance(scale, Tensor) else scale
        return Linear(self.run, self.weight * wide, bias)


Rule = Callable[[Linear, Tensor, Tensor, Bounds | None], Tensor]
"""From a linear operation, its inputs, its outputs' relevance and, at the image, the inputs' bounds to the inputs' relevance."""


def pullback(function: Callable[..., Tensor], *at: Tensor) -> tuple[Tensor, Callable[[Tensor], tuple[Tensor, ...]]]:
    """The value of a linear function, and its transpose."""
    with torch.enable_grad():
        leaves = [each.detach().requires_grad_(True) for each in at]
        value = function(*leaves)

    def transposed(pulled: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(value, leaves, pulled.to(value.dtype), allow_unused=True, materialize_grads=True)

    return value.detach(), transposed


def stabilised(values: Tensor, epsilon: float) -> Tensor:
    """Values moved away from zero by epsilon, zero itself upwards."""
    return values + epsilon * torch.where(values >= 0, 1.0, -1.0).to(values.dtype)
