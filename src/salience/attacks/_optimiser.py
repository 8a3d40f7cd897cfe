"""One optimiser for all threats: projected Adam, its step made smaller half-way."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

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


class Descent(NamedTuple):
    """What a run of the optimiser comes to.

    Attributes:
        images: Those of the last step.
        parameters: Theirs.
        history: The loss before every step, (steps, n).
        blind: In how many steps a part of the gradient was not finite, and was taken for 0, (n,).
    """

    images: Images
    parameters: Parameters
    history: Tensor
    blind: Tensor

    def after(self, earlier: "Descent", better: Tensor) -> "Descent":
        """This run for the images (n,) where it is better, an earlier one for the others; the earlier one's history, the blind steps of both."""

        def chosen(new: Tensor, old: Tensor) -> Tensor:
            return torch.where(better.view(-1, *(1,) * (new.ndim - 1)), new, old)

        parameters = [chosen(*pair) for pair in zip(self.parameters, earlier.parameters, strict=True)]
        return Descent(chosen(self.images, earlier.images), parameters, earlier.history, self.blind + earlier.blind)


def joined(parts: Sequence[Descent]) -> Descent:
    """Runs of some images each as one of all."""
    parameters = [torch.cat(each) for each in zip(*(part.parameters for part in parts), strict=True)]
    return Descent(torch.cat([part.images for part in parts]), parameters, torch.cat([part.history for part in parts], 1), torch.cat([part.blind for part in parts]))


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


def descend(threats: Sequence[Threat], images: Images, start: Parameters, loss: Loss, steps: int, tell: Callable[[int], None]) -> Descent:
    """Make the loss of each image small, every threat within its budget.

    Args:
        threats: In the order in which they are applied.
        images: (n, c, h, w), as they are.
        start: Where the parameters begin.
        loss: What is made small; images do not influence each other, nor do steps of Adam mix them.
        steps: How many.
        tell: Called with the number of steps done.

    Returns:
        The images of the last step, and how they came about.
    """
    parameters = [values.clone().requires_grad_(True) for values in start]
    optimiser = torch.optim.Adam([{"params": [values], "lr": threat.step(images)} for threat, values in zip(threats, parameters, strict=True)])
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, [max(steps // 2, 1)], LATER)
    history, blind = [], torch.zeros(len(images), dtype=torch.int64)
    for step in range(steps):
        value = penalised(threats, images, parameters, loss, step)
        gradients = torch.autograd.grad(value.sum(), parameters)
        blind += torch.stack([~each.isfinite().reshape(len(each), -1).all(1) for each in gradients]).any(0).cpu()
        for values, gradient in zip(parameters, gradients, strict=True):
            values.grad = gradient.nan_to_num(0, 0, 0)
        optimiser.step()
        schedule.step()
        with torch.no_grad():
            for values, inside in zip(parameters, composed(threats, images, parameters)[1], strict=True):
                values.copy_(inside)
        history.append(value.detach().cpu())
        tell(step + 1)
    return Descent(*composed(threats, images, [values.detach() for values in parameters]), torch.stack(history), blind)


@contextmanager
def without_denormals() -> Iterator[None]:
    """Numbers too small for the usual form count as 0 inside: with them softplus is several times slower."""
    flushed = (torch.full((1,), torch.finfo(torch.float32).tiny) / 2).item() == 0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(flushed)
