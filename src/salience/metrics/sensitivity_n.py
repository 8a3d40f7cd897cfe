"""Sensitivity-n."""

import torch

from salience.core.errors import InputError
from salience.core.metric import REDUCTION, Case, Curve, Judgement, Metric, Reduction
from salience.core.options import option
from salience.core.registry import register
from salience.metrics._removal import correlation, random_removals
from salience.perturb.fills import Fill, filled


@register(
    "metric", "sensitivity_n", higher_is_better=True, within=(-1.0, 1.0), category="faithfulness", axes=("share of pixels removed at once (logarithmic)", "correlation"), cites="Ancona et al. 2018"
)
class SensitivityN(Metric):
    """How well a map predicts what n random pixels are worth, over sizes n: a mean correlation, -1 to 1.

    For each n, Pearson's correlation over random sets S of n pixels between sum_(i in S) map_i and
    f(x) - f(x without S), each image by itself; the value is the mean over n, the curve is over the share of
    pixels. It is 0 where either side is constant. The error is the jackknife's, over sets.

    Cost: `samples` forward passes an image and size.

    Source: Ancona, Ceolini, Öztireli & Gross (2018), "Towards better understanding of gradient-based attribution
    methods": 100 sets a size, sizes spread by their logarithm from one feature to 80 % of them.

    Differs from the source: it draws the curve and gives no mean; whole pixels are removed, all channels at once.
    """

    own_score = "logit"

    shares: tuple[float, ...] = option((0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 0.8), "shares of the pixels removed at once, each above 0 and below 1")
    samples: int = option(100, "random sets of each size", at_least=3)
    fill: Fill = option("mean", "what replaces removed pixels: mean, black, white, grey or blur")
    reduction: Reduction | None = option("sum", REDUCTION)

    def __post_init__(self) -> None:
        """Check the shares."""
        super().__post_init__()
        if not self.shares or not all(0 < share < 1 for share in self.shares):
            raise InputError(f"{self.name}: shares must lie above 0 and below 1, for example shares=0.1+0.5.")

    def judge(self, case: Case) -> Judgement:
        """The mean correlation, its error, and the curve over sizes."""
        pixels = case.images[0, 0].numel()
        sizes = sorted({max(1, min(round(share * pixels), pixels - 1)) for share in self.shares})
        fill = filled(self.fill, case.model, case.images)
        sums, changes = random_removals(case, case.saliency(self.reduction), fill, sizes, self.samples)
        values, stderr = correlation(sums, changes)
        curve = Curve(torch.tensor(sizes) / pixels, values)
        return Judgement(values.mean(1), stderr.square().sum(1).sqrt() / len(sizes), {"sensitivity_n": curve})
