"""Mean squared error."""

from salience.core.registry import register
from salience.core.similarity import Similarity
from salience.core.types import Maps, PerImage
from salience.similarities._rows import rows


@register("similarity", "mse", higher_is_better=False, within=(0.0, None), of="maps", cites="Dombrowski et al. 2019")
class MSE(Similarity):
    """The mean squared difference over all pixels and channels, 0 for equal maps.

    It depends on the maps' scale: bring both to one scale first.

    Cost: no passes.

    Source: for maps Dombrowski et al. (2019).

    Differs from the source: they divide each map by its sum first; here maps are taken as they are.
    """

    def compare(self, first: Maps, second: Maps) -> PerImage:
        """Mean squared errors."""
        return (rows(first) - rows(second)).square().mean(1)
