"""Relevance mass accuracy."""

from salience.core.metric import REDUCTION, Case, Judgement, Metric, Reduction
from salience.core.options import option
from salience.core.registry import register
from salience.metrics._localisation import masks_at_input, mass_share


@register("metric", "relevance_mass_accuracy", higher_is_better=True, within=(0.0, 1.0), category="localisation", needs_masks=True, cites="Arras et al. 2022")
class RelevanceMassAccuracy(Metric):
    """The share of the map's mass that lies on the object, 0 to 1.

    Sum of R on the object / sum of R, with R the positive part of the saliency, or its absolute value. A
    constant positive map gets the object's share of the area.

    Cost: no passes.

    Source: Arras, Osman & Samek (2022), who reduce channels to non-negative values in several ways.

    Differs from the source: a map whose R is zero everywhere is undefined.
    """

    absolute: bool = option(False, "count negative saliency by its size; otherwise it is left out")
    reduction: Reduction | None = option(None, REDUCTION)

    def judge(self, case: Case) -> Judgement:
        """Shares of the mass."""
        saliency = case.saliency(self.reduction).cpu()
        return Judgement(mass_share(self, saliency.abs() if self.absolute else saliency.clamp_min(0), masks_at_input(self, case)))
