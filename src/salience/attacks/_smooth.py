"""Smooth noise: what a random flow or recolouring of full strength looks like."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from salience.core.draws import Stream, stack


def smooth_noise(streams: Sequence[Stream], name: str, channels: int, coarse: tuple[int, ...], fine: tuple[int, ...]) -> Tensor:
    """Gaussian noise on a coarse grid, enlarged linearly, each image's scaled so that its largest value is 1.

    Args:
        streams: Where each image takes its randomness from.
        name: What is drawn.
        channels: Channels of the noise.
        coarse: The grid it is drawn on.
        fine: The grid it is enlarged to.
    """
    drawn = stack(streams, lambda stream: stream.normal((channels, *coarse), name, 0))
    large = F.interpolate(drawn, size=fine, mode="bilinear" if len(fine) == 2 else "trilinear", align_corners=True)
    return (large / large.flatten(1).abs().amax(1).view(-1, *(1,) * (large.ndim - 1))).expand(len(streams), *large.shape[1:])
