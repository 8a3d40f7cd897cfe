"""Pearson's correlation."""

from salience.core.registry import register
from salience.core.similarity import Similarity
from salience.core.types import Maps, PerImage
from salience.similarities._rows import correlation, rows


@register("similarity", "pearson", higher_is_better=True, within=(-1.0, 1.0), of="maps", cites="Pearson 1895")
class Pearson(Similarity):
    """Pearson's correlation of two maps over all pixels and channels: -1 to 1, whatever their scale and offset.

    cov(a, b) / (sd(a) sd(b)). With a constant map it is 0, or 1 if the maps are equal.

    Cost: no passes.

    Source: Pearson (1895).

    Differs from the source: it is defined for constant maps.
    """

    def compare(self, first: Maps, second: Maps) -> PerImage:
        """Correlations."""
        return correlation(rows(first), rows(second))
