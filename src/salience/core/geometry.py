"""The way between the original picture and the model's input."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from salience.core.types import Maps


@dataclass(frozen=True)
class Geometry:
    """Where the pixels of a model's input lie in the original picture.

    Attributes:
        original: (height, width) of the picture.
        size: (height, width) of the model's input.
        box: Top, left, bottom, right of the input's area in the picture's pixels; it may lie outside.
    """

    original: tuple[int, int]
    size: tuple[int, int]
    box: tuple[float, float, float, float]

    def to_original(self, maps: Maps, size: tuple[int, int] | None = None) -> Float[Tensor, "n m rows columns"]:
        """Maps (n, c, h, w) of the input, bilinearly resampled onto the original picture; 0 outside.

        Args:
            maps: Maps in the geometry of the model's input.
            size: (height, width) to draw the whole picture at; by default its own.
        """
        height, width = size or self.original
        top, left, bottom, right = self.box
        rows = ((torch.arange(height) + 0.5) * self.original[0] / height - top) / (bottom - top) * 2 - 1
        columns = ((torch.arange(width) + 0.5) * self.original[1] / width - left) / (right - left) * 2 - 1
        grid = torch.stack(torch.broadcast_tensors(columns[None, :], rows[:, None]), -1).to(maps)
        inside = (grid.abs() <= 1).all(-1)
        sampled = F.grid_sample(maps, grid.expand(len(maps), *grid.shape), mode="bilinear", padding_mode="border", align_corners=False)
        return sampled * inside

    def to_input(self, mask: Bool[Tensor, "rows columns"]) -> Bool[Tensor, "h w"]:
        """A mask of the original picture at the model's input: the nearest pixel; False outside the picture."""
        top, left, bottom, right = self.box
        (height, width), (h, w) = self.original, self.size
        rows = (top + (torch.arange(h) + 0.5) * (bottom - top) / h).floor().long()
        columns = (left + (torch.arange(w) + 0.5) * (right - left) / w).floor().long()
        inside = ((rows >= 0) & (rows < height))[:, None] & ((columns >= 0) & (columns < width))
        return mask[rows.clamp(0, height - 1)[:, None], columns.clamp(0, width - 1)] & inside


def names_of(images: Any) -> list[str] | None:
    """The names of photographs; None for a plain tensor, which in earlier versions of torch has names of another kind."""
    return images.names if hasattr(images, "geometry") else None
