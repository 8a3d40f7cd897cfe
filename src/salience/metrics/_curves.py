"""What deletion and insertion have in common: a picture that turns into another, the most salient pixels first."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from salience.core.metric import Case, Curve
from salience.core.types import Images, PerImage, Saliency
from salience.metrics._removal import scores_of

Ties = Literal["random", "original"]


def ranks(case: Case, saliency: Saliency, ties: Ties) -> Int[Tensor, "n pixels"]:
    """The place of every pixel in the order of falling saliency, 0 first.

    Args:
        case: Its streams order equal pixels at random.
        saliency: (n, h, w).
        ties: ``random``, or ``original``: of equal pixels the last in raster order first, as NumPy's reversed sort has it.
    """
    flat = saliency.flatten(1)
    pixels = flat.shape[1]
    last_first = torch.arange(pixels - 1, -1, -1)
    orders = []
    for values, stream in zip(flat, case.streams, strict=True):
        shuffled = last_first if ties == "original" else torch.from_numpy(stream.generator("ties").permutation(pixels))
        shuffled = shuffled.to(flat.device)
        orders.append(shuffled[values[shuffled].argsort(descending=True, stable=True)])
    order = torch.stack(orders)
    return torch.empty_like(order).scatter_(1, order, torch.arange(pixels, device=flat.device).expand_as(order))


def transition(case: Case, start: Images, finish: Images, rank: Int[Tensor, "n pixels"], steps: int) -> Curve:
    """The score while `start` turns into `finish`, a few pixels at a time: steps + 1 forward passes an image.

    Args:
        case: The model and targets.
        start: (n, c, h, w).
        finish: (n, c, h, w).
        rank: Pixels in the order in which they change.
        steps: Steps at most; each but the last changes ceil(pixels / steps) pixels.

    Returns:
        The score over the share of steps done; the first point is `start`, the last is `finish`.
    """
    n, pixels = rank.shape
    step = -(-pixels // steps)
    points = -(-pixels // step) + 1
    rank = rank.view(n, 1, *start.shape[-2:])

    def mixed(image: Tensor, number: Tensor) -> Images:
        image, changed = image.to(rank.device), number.to(rank.device) * step
        return torch.where(rank[image] < changed[:, None, None, None], finish[image], start[image])

    return Curve(torch.linspace(0, 1, points), scores_of(case, points, mixed))


def area(curve: Curve) -> PerImage:
    """Area under the curve by the trapezoidal rule, its x-axis from 0 to 1."""
    return torch.trapezoid(curve.y, curve.x, dim=1)


def box_blur(case: Case, images: Images, size: int, sd: float) -> Float[Tensor, "n c h w"]:
    """The blur of the authors of RISE: a small, almost flat kernel, the model's mean colour beyond the edges.

    The kernel is a Gaussian of `sd` cut to `size` and mirrored at its own edges, so that it sums to one.
    """
    reach = int(4 * sd + 0.5)
    offsets = torch.arange(-reach, reach + 1)
    weights = torch.exp(-0.5 * (offsets / sd) ** 2)
    period = 2 * size
    folded = (offsets + size // 2) % period
    kernel = torch.zeros(size).index_add_(0, torch.where(folded < size, folded, period - 1 - folded), weights / weights.sum()).to(images)
    colour = case.model.mean_colour.to(images)[None, :, None, None]
    n, c, h, w = images.shape
    centred = (images - colour).reshape(n * c, 1, h, w)
    rows = torch.nn.functional.conv2d(centred, kernel.view(1, 1, -1, 1), padding=(size // 2, 0))
    return torch.nn.functional.conv2d(rows, kernel.view(1, 1, 1, -1), padding=(0, size // 2)).view(n, c, h, w) + colour
