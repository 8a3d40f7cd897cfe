"""Spearman's rank correlation."""

from collections.abc import Callable

import torch

from salience.core.registry import register
from salience.core.similarity import Similarity
from salience.core.types import Maps, PerImage
from salience.similarities._rows import average_ranks, constant, rows


@register("similarity", "spearman", higher_is_better=True, within=(-1.0, 1.0), of="maps", cites="Spearman 1904")
class Spearman(Similarity):
    """Spearman's rank correlation of two maps over all pixels and channels: -1 to 1, whatever keeps the order of values.

    Pearson's correlation of the ranks; equal values share the mean of their ranks. With a constant map it is 0, or
    1 if the maps are equal.

    Cost: no passes; sorts every map once.

    Source: Spearman (1904); for maps Adebayo et al. (2018).

    Differs from the source: it is defined for constant maps.
    """

    def compare(self, first: Maps, second: Maps) -> PerImage:
        """Rank correlations."""
        return self.against(first)(second)

    def against(self, first: Maps) -> Callable[[Maps], PerImage]:
        """The first maps are sorted once."""
        a = rows(first)
        mean = (a.shape[1] + 1) / 2
        one = average_ranks(a) - mean

        def compared(second: Maps) -> PerImage:
            b = rows(second)
            other = average_ranks(b) - mean
            lengths = [each.square().sum(1) for each in (one, other)]
            found = (sum(lengths) - (one - other).square().sum(1)) / (2 * (lengths[0] * lengths[1]).sqrt())  # exactly 1 for equal ranks
            return torch.where(constant(a) | constant(b), (a == b).all(1).double(), found)

        return compared
