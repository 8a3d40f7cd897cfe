"""What guided backpropagation and the deconvolutional network have in common: ReLUs with another backward pass."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from salience.core.classifier import Classifier
from salience.core.draws import Stream
from salience.core.errors import InputError
from salience.core.explainer import Explainer
from salience.core.montecarlo import Attribution
from salience.core.types import Images, Targets
from salience.explainers._layers import white_box
from salience.perturb.relu import ReplaceReLU


class Clip(torch.autograd.Function):
    """The forward pass of ReLU (or ReLU6), remembering where it passed its input on; subclasses define `backward`."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, ceiling: float) -> Tensor:
        """``min(max(x, 0), ceiling)``; written without clamp, which an enclosing replacement would catch."""
        passed = (inputs > 0) & (inputs < ceiling)
        ctx.save_for_backward(passed)
        outside = torch.where(inputs > 0, torch.full_like(inputs, ceiling), torch.zeros_like(inputs))
        return torch.where(passed, inputs, outside)


def with_backward_of_relu(relu: Callable[[Tensor, float], Tensor], method: Explainer, base: Explainer, model: Classifier, images: Images, targets: Targets, streams: Sequence[Stream]) -> Attribution:
    """The base's map of the network with every ReLU replaced.

    Raises:
        InputError: If there is no ReLU, so that the map would silently be the base's own.
    """
    model = white_box(model, method)
    with ReplaceReLU(relu) as mode:
        made = base.attribute(model, images, targets, streams)
    if mode.replaced == 0:
        raise InputError(f"{model.name} has no ReLU or ReLU6, so {method.name} would be the plain {base.name}: choose another method.")
    return made
