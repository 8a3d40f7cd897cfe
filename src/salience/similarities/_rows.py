"""Maps as rows of numbers, and what rows have in common."""

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from salience.core.draws import in_threads
from salience.core.types import Maps, PerImage

Rows = Float[Tensor, "n v"]


def rows(maps: Maps) -> Rows:
    """One row an image, in double precision."""
    return maps.flatten(1).double()


def unit(values: Rows) -> Rows:
    """Rows of length one; a row of zeros stays."""
    largest = values.abs().amax(1, keepdim=True)
    scaled = values / torch.where(largest > 0, largest, 1.0)
    length = scaled.norm(dim=1, keepdim=True)
    return scaled / torch.where(length > 0, length, 1.0)


def cosine_gap(first: Rows, second: Rows) -> PerImage:
    """1 - cosine of the angle: half the squared distance of the unit rows, exact near 0; of two rows of zeros 0, of one 1."""
    gap = (unit(first) - unit(second)).square().sum(1) / 2
    some = (first != 0).any(1).int() + (second != 0).any(1).int()
    return torch.where(some == 2, gap.clamp(0, 2), some.double())


def correlation(first: Rows, second: Rows) -> PerImage:
    """Pearson's correlation row by row; with a constant row 0, or 1 if the rows are equal."""
    gap = cosine_gap(centred(first), centred(second))
    either = constant(first) | constant(second)
    return torch.where(either, (first == second).all(1).double(), 1 - gap)


def constant(values: Rows) -> Bool[Tensor, " n"]:
    """Whether all values of a row are equal."""
    return (values == values[:, :1]).all(1)


def centred(values: Rows) -> Rows:
    """Rows less their mean, scaled first so that no sum overflows."""
    largest = values.abs().amax(1, keepdim=True)
    scaled = values / torch.where(largest > 0, largest, 1.0)
    return scaled - scaled.mean(1, keepdim=True)


def average_ranks(values: Rows) -> Rows:
    """Ranks from 1, of values on the CPU; equal values share the mean of their first and last place. In NumPy, whose sort is twice as fast as torch's, the rows in threads."""
    ranks = np.empty(values.shape)

    def rank(number: int) -> None:
        row = values[number].numpy()
        order = row.argsort()
        ordered = row[order]
        first = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
        last = np.append(first[1:], len(row))
        ranks[number, order] = np.repeat((first + 1 + last) / 2, last - first)

    in_threads(rank, range(len(values)))
    return torch.from_numpy(ranks)
