"""Gaussian blur of images and maps."""

import math

import torch
import torch.nn.functional as F

from salience.core.types import Images


def gaussian_blur(images: Images, sd: float) -> Images:
    """Blur with a Gaussian, edges replicated, kernel cut at four standard deviations.

    Args:
        images: (n, c, h, w).
        sd: Standard deviation in pixels.

    Returns:
        (n, c, h, w).
    """
    radius = max(1, math.ceil(4 * sd))
    offsets = torch.arange(-radius, radius + 1, dtype=images.dtype, device=images.device)
    kernel = torch.exp(-0.5 * (offsets / sd) ** 2)
    kernel = kernel / kernel.sum()
    n, c, h, w = images.shape
    flat = images.reshape(n * c, 1, h, w)
    flat = F.conv2d(F.pad(flat, (radius, radius, 0, 0), mode="replicate"), kernel.view(1, 1, 1, -1))
    flat = F.conv2d(F.pad(flat, (0, 0, radius, radius), mode="replicate"), kernel.view(1, 1, -1, 1))
    return flat.view(n, c, h, w)
