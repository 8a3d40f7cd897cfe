"""Grid pointing game."""

from salience.core.metric import REDUCTION, Case, Judgement, Metric, Reduction
from salience.core.options import option
from salience.core.registry import register
from salience.metrics._localisation import masks_at_input, mass_share


@register("metric", "grid_pointing_game", higher_is_better=True, within=(0.0, 1.0), category="localisation", needs_masks=True, cites="Böhle et al. 2021")
class GridPointingGame(Metric):
    """The share of positive attribution that lies in the right cell of a mosaic of images, 0 to 1.

    With A+ the positive part of the map summed over channels: sum of A+ in the cell / sum of A+. The mask is
    the cell of the class explained; a constant positive map gets the cell's share of the area.

    Cost: no passes.

    Source: Böhle, Fritz & Schiele (2021).

    Differs from the source: nothing for one cell of the class; a map without a positive value is undefined.
    The network sees across cells, so that the right answer is itself approximate.
    """

    reduction: Reduction = option("sum", REDUCTION.split(";")[0])

    def judge(self, case: Case) -> Judgement:
        """Shares of the positive attribution."""
        return Judgement(mass_share(self, case.saliency(self.reduction).cpu().clamp_min(0), masks_at_input(self, case)))
