"""Small random changes of training pictures that leave their classes as they are."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from salience.core.options import Options, option
from salience.core.types import Images

DRAWS = 9
"""Uniform numbers that a picture needs: flip, two shifts, angle, size, shear, three colour factors."""


@dataclass(frozen=True, repr=False, kw_only=True)
class Augmentation(Options):
    """What is drawn for each picture anew in every epoch. What comes into view is black."""

    flip: bool = option(False, "whether half of the pictures are mirrored, left and right; not for digits")
    shift: int = option(0, "pixels that a picture moves at most, each way", at_least=0)
    degrees: float = option(0.0, "degrees that a picture turns at most, either way", at_least=0, at_most=180)
    shrink: float = option(0.0, "share of its size that a picture loses at most", at_least=0, at_most=0.9)
    shear: float = option(0.0, "degrees by which its rows are slanted at most", at_least=0, at_most=80)
    jitter: float = option(0.0, "largest relative change of brightness, of contrast and of saturation", at_least=0, at_most=1)

    def augmented(self, images: UInt8[Tensor, "n c h w"], draws: Float[Tensor, "n 9"]) -> Images:
        """The pictures, changed, as floats in [0, 1].

        Args:
            images: (n, c, h, w).
            draws: Uniform numbers in [0, 1): `DRAWS` a picture.
        """
        if self.flip:
            images = torch.where(draws[:, 0, None, None, None] < 0.5, images, images.flip(3))
        if self.shift:
            images = self._shifted(images, draws[:, 1:3])
        pixels = images.float() / 255
        if self.degrees or self.shrink or self.shear:
            pixels = self._turned(pixels, draws[:, 3:6])
        return self._coloured(pixels, draws[:, 6:9]) if self.jitter else pixels

    def _shifted(self, images: Tensor, draws: Tensor) -> Tensor:
        (h, w), most = images.shape[2:], 2 * self.shift + 1
        places = (draws * most).long().clamp_max(most - 1)
        windows = F.pad(images, (self.shift,) * 4).unfold(2, h, 1).unfold(3, w, 1)
        return windows[torch.arange(len(images)), :, places[:, 0], places[:, 1]]

    def _turned(self, pixels: Tensor, draws: Tensor) -> Tensor:
        angle = math.radians(self.degrees) * (2 * draws[:, 0] - 1)
        size = 1 / (1 - self.shrink * draws[:, 1])
        slant = torch.tan(math.radians(self.shear) * (2 * draws[:, 2] - 1))
        (h, w), zero = pixels.shape[2:], torch.zeros_like(angle)
        cos, sin = angle.cos() * size, angle.sin() * size
        matrix = torch.stack([cos, (cos * slant - sin) * h / w, zero, sin * w / h, sin * slant + cos, zero], 1).view(-1, 2, 3)
        return F.grid_sample(pixels, F.affine_grid(matrix, list(pixels.shape), align_corners=False), align_corners=False)

    def _coloured(self, pixels: Tensor, draws: Tensor) -> Tensor:
        brightness, contrast, saturation = (1 + self.jitter * (2 * draws[:, :, None, None] - 1)).unbind(1)
        pixels = (pixels * brightness[:, None]).clamp(0, 1)
        grey = pixels.mean((1, 2, 3), keepdim=True)
        pixels = (grey + contrast[:, None] * (pixels - grey)).clamp(0, 1)
        grey = pixels.mean(1, keepdim=True)
        return (grey + saturation[:, None] * (pixels - grey)).clamp(0, 1)
