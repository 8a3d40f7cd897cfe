"""Insertion."""

from salience.core.errors import InputError
from salience.core.metric import REDUCTION, Case, Judgement, Metric, Reduction
from salience.core.options import option
from salience.core.registry import register
from salience.metrics._curves import Ties, area, box_blur, ranks, transition


@register("metric", "insertion", higher_is_better=True, category="faithfulness", axes=("share of pixels shown", "score of the class (probability)"), cites="Petsiuk et al. 2018")
class Insertion(Metric):
    """How fast the score rises as the most salient pixels of a blurred image are sharpened: area under the curve.

    The curve's first point is the blurred image, its last the image itself; the x-axis is the share of steps.

    Cost: `steps` + 1 forward passes an image; fewer where so many steps of whole pixels do not fit.

    Source: Petsiuk, Das & Saenko (2018), algorithm 2, and their code: an almost flat 11 x 11 blur.

    Differs from the source: equal pixels go in seeded random order (``ties=original`` is theirs); the first
    score is that of the blurred image, where the printed algorithm has the whole one; the class scored is the map's target.
    """

    steps: int = option(28, "steps at most; each inserts the same number of pixels, rounded up, the last what is left", at_least=1)
    blur: int = option(11, "side of the blur's kernel, in pixels; odd", at_least=1)
    blur_sd: float = option(5.0, "sd of the Gaussian that the kernel is cut from, in pixels", above=0)
    ties: Ties = option("random", "order of equal pixels: random (seeded), or original")
    reduction: Reduction | None = option(None, REDUCTION)

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        if self.blur % 2 == 0:
            raise InputError(f"{self.name}: blur must be odd, not {self.blur}.")

    def judge(self, case: Case) -> Judgement:
        """Area under the curve, and the curve."""
        rank = ranks(case, case.saliency(self.reduction), self.ties)
        curve = transition(case, box_blur(case, case.images, self.blur, self.blur_sd), case.images, rank, self.steps)
        return Judgement(area(curve), curves={"insertion": curve})
