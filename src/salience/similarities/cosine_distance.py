"""Cosine distance."""

from salience.core.registry import register
from salience.core.similarity import Similarity
from salience.core.types import Maps, PerImage
from salience.similarities._rows import cosine_gap, rows


@register("similarity", "cosine_distance", higher_is_better=False, within=(0.0, 2.0), of="maps", cites="Ajalloeian et al. 2022")
class CosineDistance(Similarity):
    """One less the cosine of the angle between two maps, all channels flattened: 0 to 2, at most 1 for maps without negative values.

    1 - sum of a b / (|a| |b|). Of two maps of zeros it is 0, of one and another 1.

    Cost: no passes.

    Source: "Smoothed explanations" (2022), section 4, of absolute maps summed over channels.

    Differs from the source: maps are taken as they are; reduce them first, as e.saliency() does, for theirs.
    """

    def compare(self, first: Maps, second: Maps) -> PerImage:
        """Distances."""
        return cosine_gap(rows(first), rows(second))
