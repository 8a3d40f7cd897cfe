"""Beta-smoothing."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from salience.core.classifier import Classifier
from salience.core.draws import Stream
from salience.core.explainer import Base
from salience.core.montecarlo import Attribution, Done
from salience.core.options import option
from salience.core.registry import register
from salience.core.types import Images, Outputs, Targets
from salience.explainers._rectified import OtherReLU
from salience.explainers.gradient import Gradient
from salience.perturb.relu import softplus


@register("explainer", "beta_smoothing", signed=True, stochastic=False, needs_gradient=True, cites="Dombrowski et al. 2019")
class BetaSmoothing(OtherReLU):
    """A base explanation of the network with every ReLU replaced by softplus(beta x) / beta.

    ReLU6(x) becomes sp(x) - sp(x - 6). The target always comes from the unmodified network; the record
    tells the smoothed network's score and whether it keeps the class: at small beta many networks do not.

    Cost: that of the base, and one forward pass.

    Source: Dombrowski et al. (2019), "Explanations can be manipulated and geometry is to blame"; "Smoothed
    explanations" (2022) uses beta 0.8.

    Differs from the source: beta 10 by default, since 0.8 destroys modern networks; ``forward=relu`` keeps the
    ReLU forward and smooths only the backward pass; ``relative`` divides beta by the spread of
    each layer's inputs, so that it does not depend on the scale of the activations.
    """

    base: Base = option(Gradient, "the explanation of the smoothed network")
    beta: float = option(10.0, "sharpness: softplus tends to ReLU as beta grows", above=0)
    forward: Literal["softplus", "relu"] = option("softplus", "softplus: smooth both passes; relu: only the backward pass")
    relative: bool = option(False, "divide beta by the spread (sd) of each layer's inputs")

    def attribute(self, model: Classifier, images: Images, targets: Targets, streams: Sequence[Stream]) -> Attribution:
        """The base's map under the replacement, and what became of the class; not the outputs, which are another network's."""
        with self.replaced(model):
            made = self.base.attribute(model, images, targets, streams)
            outputs = model.outputs(images) if made.outputs is None else made.outputs
        return dataclasses.replace(made, outputs=None, notes=made.notes | noted(model, images, targets, outputs))

    def explain_view(self, model: Classifier, images: Images, targets: Targets, streams: Sequence[Stream], tolerance: float | None) -> Done:
        """As `attribute`, with the base's error if it has one."""
        with self.replaced(model):
            done = self.base.explain_view(model, images, targets, streams, tolerance)
            outputs = model.outputs(images) if done.outputs is None else done.outputs
        return dataclasses.replace(done, notes=done.notes | noted(model, images, targets, outputs), retarget=None)

    def relu(self, inputs: Tensor, ceiling: float) -> Tensor:
        """Softplus, forward and backward or backward only."""
        beta = self.beta / _spread(inputs) if self.relative else self.beta
        smooth = softplus(inputs, ceiling, beta)
        if self.forward == "softplus":
            return smooth
        return smooth + (inputs.detach().clamp(0, ceiling) - smooth.detach())


def noted(model: Classifier, images: Images, targets: Targets, outputs: Outputs) -> dict[str, Tensor]:
    """The smoothed network's score, and whether it keeps the class, from its outputs."""
    kept = outputs.argmax(1) == model.outputs(images).argmax(1)
    return {"smoothed_score": model.bound_score.of(outputs, targets), "class_kept": kept.float()}


def _spread(inputs: Tensor) -> Tensor:
    """The standard deviation of each sample's values, shaped to broadcast."""
    spread = inputs.detach().flatten(1).std(1, correction=0).clamp_min(1e-12)
    return spread.view(-1, *(1,) * (inputs.ndim - 1))
