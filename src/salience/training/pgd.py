"""Projected gradient descent: how many pictures keep their class when each pixel may change a little."""

from collections.abc import Callable

import torch
from jaxtyping import Bool
from torch import Tensor

from salience.core.draws import Stream
from salience.core.model import Model
from salience.core.types import Images, Targets

EPSILON = 8 / 255


def start_within(images: Images, epsilon: float, draws: Images) -> Images:
    """A point within the budget around each image, for uniform `draws` in [0, 1)."""
    return (images + epsilon * (2 * draws - 1)).clamp(0, 1)


def ascend(model: Model, images: Images, labels: Targets, start: Images, *, epsilon: float, stride: float, steps: int) -> Images:
    """Images near the given ones at which the cross-entropy of their labels is large.

    Steps of one size along the sign of the gradient, after each of which every pixel is brought back to within `epsilon` of its own
    value and into [0, 1].

    Args:
        model: The network.
        images: (n, c, h, w) in [0, 1].
        labels: (n,) class indices.
        start: Where the steps begin, (n, c, h, w).
        epsilon: Budget of a pixel, in [0, 1] units.
        stride: Size of a step, in the same units.
        steps: How many; each costs a forward and a backward pass.
    """
    low, high = (images - epsilon).clamp(0, 1), (images + epsilon).clamp(0, 1)
    changed = start
    for _ in range(steps):
        gradient = model.gradient(changed, labels, "log_probability")
        changed = torch.clamp(changed - stride * gradient.sign(), low, high)
    return changed


def pgd(
    model: Model,
    images: Images,
    labels: Targets,
    *,
    epsilon: float = EPSILON,
    steps: int = 20,
    restarts: int = 5,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Bool[Tensor, " n"]:
    """Whether each image has the class of its label, and keeps it under an attack from every one of several random starts.

    Each start is drawn for one image and one restart, so neither the other images nor more restarts change it, and more
    restarts never let more images survive. A step has 2.5 epsilon / steps.

    Args:
        model: A network; its gradient is needed.
        images: (n, c, h, w) in [0, 1].
        labels: (n,) class indices.
        epsilon: Budget: how much a pixel may change, in [0, 1] units.
        steps: Gradient steps from each start; each costs a forward and a backward pass for every image that still survives.
        restarts: Random starts.
        seed: Seed of the starts.
        progress: Called as ``progress(done, total)`` in starts of an image.

    Source: Madry et al. (2018), "Towards deep learning models resistant to adversarial attacks".

    Differs from the source: nothing.
    """
    stream, total = Stream((seed,), (seed,)), restarts * len(images)
    survived = model.outputs(images).argmax(1) == labels
    for restart in range(restarts):
        left = survived.nonzero()[:, 0]
        for part in model.chunks(images[left]):
            rows = left[part]
            draws = torch.stack([stream.uniform(images.shape[1:], "pgd", int(row), restart) for row in rows]).to(images)
            start = start_within(images[rows], epsilon, draws)
            changed = ascend(model, images[rows], labels[rows], start, epsilon=epsilon, stride=2.5 * epsilon / steps, steps=steps)
            survived[rows] = model.outputs(changed).argmax(1) == labels[rows]
            if progress is not None:
                progress(len(images) * restart + len(images) * min(part.stop, len(left)) // len(left), total)
    return survived
