"""Superpixels: how an image is cut into pieces of like colour."""

from typing import Literal

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from salience.core.types import Images

Segmentation = Literal["quickshift", "grid"]

FEWEST = 10
"""With fewer superpixels than this a map says next to nothing: a finer segmentation is tried."""

GRID = 6
"""Cells along each side of the grid that is used when quickshift finds no pieces."""


def superpixels(images: Images, how: Segmentation = "quickshift") -> Int[Tensor, "n h w"]:
    """The number of the superpixel of every pixel, from 0, without gaps.

    ``quickshift`` has the settings of the LIME package (kernel size 4, distance 200, ratio 0.2). On small
    images these give one or two pieces for the whole picture; then kernel sizes 2 and 1 are tried, and
    if even they find fewer than 10 pieces, a grid. Grey images are segmented as grey RGB.

    Args:
        images: (n, c, h, w) in [0, 1].
        how: ``quickshift``, or ``grid``: 6 x 6 rectangles, fewer where they would be narrower than 2 pixels.
    """
    found = [_grid(images.shape[-2], images.shape[-1]) if how == "grid" else _quickshift(image) for image in images]
    return torch.from_numpy(np.stack(found)).to(images.device)


def _quickshift(image: Tensor) -> np.ndarray:
    from skimage.segmentation import quickshift

    colours = image if len(image) == 3 else image.mean(0, keepdim=True).expand(3, -1, -1)
    pixels = colours.permute(1, 2, 0).double().cpu().numpy().clip(0, 1)
    for kernel_size in (4, 2, 1):
        labels = np.unique(quickshift(pixels, kernel_size=kernel_size, max_dist=200, ratio=0.2), return_inverse=True)[1].reshape(pixels.shape[:2])
        if labels.max() + 1 >= FEWEST:
            return labels.astype(np.int64)
    return _grid(pixels.shape[0], pixels.shape[1])


def _grid(height: int, width: int) -> np.ndarray:
    down, across = (max(1, min(GRID, length // 2)) for length in (height, width))
    return ((np.arange(height) * down // height)[:, None] * across + np.arange(width) * across // width).astype(np.int64)
