"""Guided backpropagation."""

from typing import Any

from torch import Tensor

from salience.core.explainer import Base
from salience.core.options import option
from salience.core.registry import register
from salience.explainers._rectified import Clip, OtherReLU
from salience.explainers.gradient import Gradient


@register("explainer", "guided_backprop", signed=True, stochastic=False, needs_gradient=True, cites="Springenberg et al. 2015")
class GuidedBackprop(OtherReLU):
    """A base explanation with ReLUs that pass on only what is positive, forward and backward.

    Backwards through y = ReLU(x) the gradient g becomes g * [g > 0] * [x > 0]; through ReLU6 it is stopped at
    x >= 6 as well.

    Cost: that of the base (by default one forward and one backward pass an image).

    Source: Springenberg, Dosovitskiy, Brox & Riedmiller (2015), "Striving for simplicity", section 3.4.

    Differs from the source: ReLUs are found wherever they are called, also as functions; other activations keep
    their gradient, and a network without any ReLU is refused. The map hardly depends on the class or on the upper layers'
    weights (Adebayo et al. 2018): it shows what the image contains rather than what the network decided.
    """

    base: Base = option(Gradient, "the explanation of the network with guided ReLUs")

    def relu(self, inputs: Tensor, ceiling: float) -> Tensor:
        """ReLU with another backward pass."""
        return _Guided.apply(inputs, ceiling)


class _Guided(Clip):
    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]  # autograd hands a context first
        (passed,) = ctx.saved_tensors
        return gradient * (passed & (gradient > 0)), None
