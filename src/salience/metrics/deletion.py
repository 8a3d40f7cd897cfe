"""Deletion."""

from salience.core.metric import REDUCTION, Case, Judgement, Metric, Reduction
from salience.core.options import option
from salience.core.registry import register
from salience.metrics._curves import Ties, area, ranks, transition
from salience.perturb.fills import Fill, filled


@register("metric", "deletion", higher_is_better=False, category="faithfulness", axes=("share of pixels removed", "score of the class (probability)"), cites="Petsiuk et al. 2018")
class Deletion(Metric):
    """How fast the score falls as the most salient pixels are removed: area under the curve, 0 to 1 for probabilities.

    The curve's first point is the image itself, its last the fill alone; the x-axis is the share of steps.

    Cost: `steps` + 1 forward passes an image; fewer where so many steps of whole pixels do not fit.

    Source: Petsiuk, Das & Saenko (2018), algorithm 1; their tables use 28 steps at 224 px, single curves 224.

    Differs from the source: equal pixels go in seeded random order (``ties=original`` is theirs, which favours
    one end of the image); the class scored is the map's target.
    """

    steps: int = option(28, "steps at most; each removes the same number of pixels, rounded up, the last what is left", at_least=1)
    fill: Fill = option("mean", "what replaces removed pixels: mean, black, white, grey or blur")
    ties: Ties = option("random", "order of equal pixels: random (seeded), or original")
    reduction: Reduction | None = option(None, REDUCTION)

    def judge(self, case: Case) -> Judgement:
        """Area under the curve, and the curve."""
        rank = ranks(case, case.saliency(self.reduction), self.ties)
        curve = transition(case, case.images, filled(self.fill, case.model, case.images), rank, self.steps)
        return Judgement(area(curve), curves={"deletion": curve})
