"""The deconvolutional network's backward pass."""

from typing import Any

from torch import Tensor

from salience.core.explainer import Base
from salience.core.options import option
from salience.core.registry import register
from salience.explainers._rectified import Clip, OtherReLU
from salience.explainers.gradient import Gradient


@register("explainer", "deconvnet", signed=True, stochastic=False, needs_gradient=True, cites="Zeiler & Fergus 2014")
class DeconvNet(OtherReLU):
    """A base explanation with ReLUs that rectify the gradient instead of gating it.

    Backwards through y = ReLU(x) the gradient g becomes max(g, 0), whatever the sign of x was; likewise through ReLU6.

    Cost: that of the base (by default one forward and one backward pass an image).

    Source: Zeiler & Fergus (2014), "Visualizing and understanding convolutional networks"; the form as a modified
    gradient is from Simonyan et al. (2014), section 4.

    Differs from the source: starts from the target's score instead of a feature map, as is usual; max pooling goes
    back to the place of its maximum. In a network without max pooling nothing in the map depends on the image (Springenberg et al. 2015). ReLUs are found also where they are called as functions; a network without any is refused.
    """

    base: Base = option(Gradient, "the explanation of the network with rectified gradients")

    def relu(self, inputs: Tensor, ceiling: float) -> Tensor:
        """ReLU with another backward pass."""
        return _Deconv.apply(inputs, ceiling)


class _Deconv(Clip):
    @staticmethod
    def backward(_: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]  # autograd hands a context first
        return gradient * (gradient > 0), None
