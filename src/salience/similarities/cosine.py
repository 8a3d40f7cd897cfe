"""Cosine similarity."""

from salience.core.registry import register
from salience.core.similarity import Similarity
from salience.core.types import Maps, PerImage
from salience.similarities._rows import cosine_gap, rows


@register("similarity", "cosine", higher_is_better=True, within=(-1.0, 1.0), of="maps", cites="Salton & McGill 1983")
class Cosine(Similarity):
    """The cosine of the angle between two maps, all channels flattened: -1 to 1.

    sum of a b / (|a| |b|). Of two maps of zeros it is 1, of one and another 0.

    Cost: no passes.

    Source: Salton & McGill (1983).

    Differs from the source: nothing.
    """

    def compare(self, first: Maps, second: Maps) -> PerImage:
        """Cosines."""
        return 1 - cosine_gap(rows(first), rows(second))
