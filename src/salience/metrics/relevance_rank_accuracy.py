"""Relevance rank accuracy."""

from salience.core.metric import REDUCTION, Case, Judgement, Metric, Reduction
from salience.core.options import option
from salience.core.registry import register
from salience.metrics._localisation import masks_at_input, top_share


@register("metric", "relevance_rank_accuracy", higher_is_better=True, within=(0.0, 1.0), category="localisation", needs_masks=True, cites="Arras et al. 2022")
class RelevanceRankAccuracy(Metric):
    """The share of the K most salient pixels that lie on the object of K pixels, 0 to 1.

    Pixels equal to the K-th share the places left: (hits strictly above + free places x tied pixels on the
    object / tied pixels) / K. A constant map gets the object's share of the area.

    Cost: no passes.

    Source: Arras, Osman & Samek (2022); "NoiseGrad" (2022), eq. 7, in descending order.

    Differs from the source: ties are shared, where theirs fall by the order of the sort.
    """

    reduction: Reduction | None = option(None, REDUCTION)

    def judge(self, case: Case) -> Judgement:
        """Shares of the K largest."""
        masks = masks_at_input(self, case).flatten(1)
        return Judgement(top_share(case.saliency(self.reduction).cpu().flatten(1), masks, masks.sum(1)))
