"""Faithfulness correlation."""

from salience.core.errors import InputError
from salience.core.metric import REDUCTION, Case, Judgement, Metric, Reduction
from salience.core.options import option
from salience.core.registry import register
from salience.metrics._removal import correlation, random_removals
from salience.perturb.fills import Fill, filled


@register("metric", "faithfulness_correlation", higher_is_better=True, within=(-1.0, 1.0), category="faithfulness", cites="Bhatt et al. 2020")
class FaithfulnessCorrelation(Metric):
    """How well a map predicts what random pixels are worth: a correlation, -1 to 1.

    For random subsets S of one size, Pearson's correlation between sum_(i in S) map_i and f(x) - f(x without S).
    It is 0 where either is constant. The error is the jackknife's, over subsets.

    Cost: `samples` forward passes an image.

    Source: Bhatt, Weller & Moura (2020), "Evaluating and aggregating feature-based model explanations". "NoiseGrad" (2022), at 32 px, has ``single_channels=true,reduction=abs_sum``.

    Differs from the source: the baseline is the model's mean colour. NoiseGrad's is each image's minimum, to which
    ``fill=black`` comes near.
    """

    own_score = "logit"

    samples: int = option(100, "random subsets", at_least=3)
    subset: int | None = option(None, "pixels removed at once; none: the square root of their number", at_least=1)
    single_channels: bool = option(False, "remove single channels of pixels, each worth the pixel's saliency, rather than whole pixels")
    fill: Fill = option("mean", "what replaces removed pixels: mean, black, white, grey or blur")
    reduction: Reduction | None = option("sum", REDUCTION)

    def judge(self, case: Case) -> Judgement:
        """The correlation and its error.

        Raises:
            InputError: If the subset is larger than the image.
        """
        channels = case.images.shape[1] if self.single_channels else 1
        total = channels * case.images[0, 0].numel()
        size = self.subset or round((total / channels) ** 0.5)
        if size > total:
            raise InputError(f"{self.name}: subset={size} is more than the {total} there are in an image: give fewer.")
        fill = filled(self.fill, case.model, case.images)
        sums, changes = random_removals(case, case.saliency(self.reduction), fill, [size], self.samples, channels=channels)
        values, stderr = correlation(sums[:, 0], changes[:, 0])
        return Judgement(values, stderr)
