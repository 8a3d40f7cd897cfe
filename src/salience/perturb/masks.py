"""Random smooth masks, as RISE draws them: 1 keeps a pixel, 0 removes it.

A mask is a grid of s x s cells, each on with probability `keep`, enlarged by bilinear interpolation and
cut out at a random place. Both steps act on rows and columns separately: M = R G C', with the grid
G (s, s) and rows R (h, s), columns C (w, s) that depend on the place alone. So masks are made when
needed and never stored, and sums over many masks are sums over grids.

Source: Petsiuk, Das & Saenko (2018), "RISE", section 3.2, and its authors' code (the paper leaves the
interpolation open). Cells are rounded up, so that the cut fits any size.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from salience.core.draws import Stream

BLOCK = 1024
"""Draws that `RandomMasks.draw_many` takes from one generator."""


def enlarging(cells: int, length: int) -> Float[Tensor, "length cells"]:
    """Weights of bilinear interpolation from some cells to a longer axis.

    Half-pixel centres; beyond the border the cells are mirrored without repeating the outermost one,
    as ``skimage.transform.resize(order=1, mode="reflect", anti_aliasing=False)`` does.
    """
    centre = (torch.arange(length, dtype=torch.float64) + 0.5) * cells / length - 0.5
    first = centre.floor().long()
    share = (centre - first)[:, None]
    mirrored = [_mirrored(first + step, cells) for step in (0, 1)]
    lower, upper = (F.one_hot(index, cells) for index in mirrored)
    return ((1 - share) * lower + share * upper).float()


def _mirrored(index: Tensor, cells: int) -> Tensor:
    index = index.abs()
    return torch.where(index >= cells, 2 * (cells - 1) - index, index).clamp(0, cells - 1)  # the clamp is for a single cell


@dataclass(frozen=True)
class RandomMasks:
    """The distribution of the masks for images of one size: E[M] = keep at every pixel.

    Attributes:
        size: Height and width of the images, any, also smaller than the grid.
        grid: Cells a side, s.
        keep: Probability that a cell is on.
        device: Where masks are made. The draws are made on the CPU.
    """

    size: tuple[int, int]
    grid: int
    keep: float
    device: torch.device | str = "cpu"

    @property
    def places(self) -> tuple[int, int]:
        """Number of places of the cut, rows and columns: one cell, in pixels."""
        height, width = self.size
        return -(-height // self.grid), -(-width // self.grid)

    @cached_property
    def axes(self) -> tuple[Tensor, Tensor]:
        """For rows and columns the enlarged grid, ((s + 1) cell, s); place d cuts out rows d to d + size."""
        rows, columns = (enlarging(self.grid, (self.grid + 1) * cell).to(self.device) for cell in self.places)
        return rows, columns

    def draw(self, stream: Stream, number: int) -> tuple[Tensor, Tensor]:
        """The mask with a number: its grid (s, s) of 0 and 1, and the place (2,) of the cut."""
        grids, places = self._drawn(stream, 1, "masks", number)
        return grids[0], places[0]

    def draw_many(self, stream: Stream, count: int) -> tuple[Tensor, Tensor]:
        """Other masks than those of `draw`: the first `count`, grids (m, s, s) and places (m, 2)."""
        blocks = [self._drawn(stream, BLOCK, "more masks", block) for block in range(-(-count // BLOCK))]
        grids, places = (torch.cat(parts)[:count] for parts in zip(*blocks, strict=True))
        return grids, places

    def _drawn(self, stream: Stream, count: int, *name: int | str) -> tuple[Tensor, Tensor]:
        generator = stream.generator(*name)
        uniform = torch.from_numpy(generator.random((count, self.grid, self.grid), dtype="float32"))
        places = torch.from_numpy(generator.integers(0, self.places, (count, 2)))
        return (uniform < self.keep).float().to(self.device), places.to(self.device)

    def make(self, grids: Float[Tensor, "m s s"], places: Int[Tensor, "m 2"]) -> Float[Tensor, "m h w"]:
        """The masks themselves, values in [0, 1]."""
        rows, columns = (self.windows(axis)[places[:, axis]] for axis in (0, 1))
        return rows.mT @ grids @ columns

    def windows(self, axis: int, bins: int | None = None) -> Float[Tensor, "places s bins"]:
        """The interpolation weights of each place along an axis: of every pixel, or averaged in bins."""
        cut = self.axes[axis].unfold(0, self.size[axis], 1)[: self.places[axis]]
        return cut if bins is None else F.adaptive_avg_pool1d(cut, bins)

    def averages(self, bins: tuple[int, int]) -> Callable[[Tensor, Tensor], Float[Tensor, "m rows columns"]]:
        """A function from grids and places to masks averaged in rows x columns bins."""
        rows, columns = (self.windows(axis, bins[axis]) for axis in (0, 1))
        return lambda grids, places: rows[places[:, 0]].mT @ grids @ columns[places[:, 1]]

    def weighted_sum(self, weights: Float[Tensor, " m"], grids: Float[Tensor, "m s s"], places: Int[Tensor, "m 2"]) -> Float[Tensor, "h w"]:
        """Sum of weight x mask over masks, without making a mask.

        Grids are added up by place, (cell s) x (cell s) numbers in all, and enlarged once.
        """
        within = torch.arange(self.grid, device=self.device)
        rows, columns = (places[:, axis, None] * self.grid + within for axis in (0, 1))
        height, width = (count * self.grid for count in self.places)
        total = torch.zeros(height * width, device=self.device)
        total.index_add_(0, (rows[:, :, None] * width + columns[:, None]).flatten(), (weights[:, None, None] * grids).flatten())
        first, second = (self.windows(axis).flatten(0, 1) for axis in (0, 1))
        return first.T @ total.view(height, width) @ second

    def covariance(self, axis: int, bins: int) -> Float[Tensor, "bins pixels"]:
        """One axis of the covariance of bin averages and pixels, as a share of keep (1 - keep).

        The covariance of the average in bin (a, b) and of pixel (y, x) is
        keep (1 - keep) rows[a, y] columns[b, x]: cells are independent, and so are the two places.
        """
        pixels, binned = self.windows(axis), self.windows(axis, bins)
        return torch.einsum("dsa,dsy->ay", binned, pixels) / self.places[axis]

    @cached_property
    def mean_square(self) -> Float[Tensor, "h w"]:
        """E[M²] at every pixel."""
        rows, columns = (self.windows(axis).square().sum((0, 1)) / self.places[axis] for axis in (0, 1))
        return self.keep**2 + self.keep * (1 - self.keep) * rows[:, None] * columns
