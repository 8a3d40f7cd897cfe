"""One optimiser for all threats: projected Adam, its step made smaller half-way."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from salience.core.draws import Stream
from salience.core.threat import Threat
from salience.core.types import Images, PerImage

LATER = 0.4
"""What the step is multiplied by after half of the steps."""

Parameters = list[Tensor]
Loss = Callable[[Images, int], PerImage]
"""From changed images and the number of the step to a number an image."""


def composed(threats: Sequence[Threat], images: Images, parameters: Parameters) -> tuple[Images, Parameters]:
    """The images after all threats, each projected to its budget, and the projected parameters."""
    kept = []
    for threat, values in zip(threats, parameters, strict=True):
        kept.append(threat.project(images, values))
        images = threat.apply(images, kept[-1])
    return images, kept


def random_change(threats: Sequence[Threat], images: Images, streams: Sequence[Stream], draw: int) -> Parameters:
    """Random parameters that use every threat's budget."""
    return [threat.random(images, [stream.at("random change", draw) for stream in streams]) for threat in threats]


def penalised(threats: Sequence[Threat], images: Images, parameters: Parameters, loss: Loss, step: int) -> PerImage:
    """The loss of the changed images and the threats' penalties, differentiable in the parameters."""
    with torch.enable_grad():
        for threat, values in zip(threats, parameters, strict=True):
            images = threat.apply(images, values)
        total = loss(images, step)
        for threat, values in zip(threats, parameters, strict=True):
            if threat.weight:
                total = total + threat.weight * threat.penalty(values)
    return total


def descend(threats: Sequence[Threat], images: Images, start: Parameters, loss: Loss, steps: int, tell: Callable[[int], None]) -> tuple[Images, Parameters, Tensor]:
    """Make the loss of each image small, every threat within its budget.

    Args:
        threats: In the order in which they are applied.
        images: (n, c, h, w), as they are.
        start: Where the parameters begin.
        loss: What is made small; images do not influence each other, nor do steps of Adam mix them.
        steps: How many.
        tell: Called with the number of steps done.

    Returns:
        The images of the last step, the parameters, and the loss before every step, (steps, n).
    """
    parameters = [values.clone().requires_grad_(True) for values in start]
    optimiser = torch.optim.Adam([{"params": [values], "lr": threat.step(images)} for threat, values in zip(threats, parameters, strict=True)])
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, [max(steps // 2, 1)], LATER)
    history = []
    for step in range(steps):
        value = penalised(threats, images, parameters, loss, step)
        for values, gradient in zip(parameters, torch.autograd.grad(value.sum(), parameters), strict=True):
            values.grad = gradient.nan_to_num(0, 0, 0)
        optimiser.step()
        schedule.step()
        with torch.no_grad():
            for values, inside in zip(parameters, composed(threats, images, parameters)[1], strict=True):
                values.copy_(inside)
        history.append(value.detach().cpu())
        tell(step + 1)
    final = [values.detach() for values in parameters]
    return composed(threats, images, final)[0], final, torch.stack(history)
