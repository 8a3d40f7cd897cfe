"""Spatial flow: every pixel takes its colour from a place nearby."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from salience.core.types import Images

Flow = Float[Tensor, "n h w 2"]
"""For every pixel how far to the right and down it looks, where the picture is 2 wide and 2 high, from -1 to 1."""

INSIDE = 4e-7
"""So far from the edge of the square a place is surely within the outermost cell, in float32."""

TINY = 1e-10
"""Under the root of the roughness, so that it has a gradient at 0."""


def identity(images: Images) -> Float[Tensor, "1 h w 2"]:
    """Where the pixels themselves are, (1, h, w, 2)."""
    across, down = (torch.linspace(-1, 1, size, device=images.device) for size in (images.shape[3], images.shape[2]))
    return torch.stack(torch.meshgrid(across, down, indexing="xy"), -1)[None]


def moved(images: Images, flow: Flow) -> Images:
    """Each pixel from where the flow points to, bilinear; the corners of the square from -1 to 1 are centres of pixels.

    The slope at the edge is that of the cell inside, where torch has none: pixels of the border could never be moved.
    """

    def sampled(places: Flow) -> Images:
        return F.grid_sample(images, places, mode="bilinear", padding_mode="border", align_corners=True)

    places = identity(images) + flow
    at_edge = (places.abs() - 1).abs() <= INSIDE
    sloped = sampled(places - (at_edge * (places - places.clamp(INSIDE - 1, 1 - INSIDE))).detach())
    return sampled(places).detach() + (sloped - sloped.detach())


def roughness(field: Float[Tensor, "n c *grid"]) -> Float[Tensor, " n"]:
    """How unlike neighbours are: the sum over points and both neighbours along every axis of the length of the difference.

    At the edge a point is its own neighbour there, as in the authors' code.
    """
    total = torch.zeros(len(field), device=field.device)
    for axis in range(2, field.ndim):
        between = field.diff(dim=axis).square().sum(1).add(TINY).sqrt().flatten(1).sum(1)
        at_edges = 2 * TINY**0.5 * field[0, 0].numel() / field.shape[axis]
        total = total + 2 * between + at_edges
    return total
