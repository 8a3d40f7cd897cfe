"""Entropy of a map."""

import math

import torch

from salience.core.metric import Case, Judgement, Metric, Reduction
from salience.core.options import option
from salience.core.registry import register
from salience.metrics._complexity import VALUES, magnitudes


@register("metric", "entropy", higher_is_better=False, within=(0.0, None), category="complexity", cites="Bhatt et al. 2020")
class Entropy(Metric):
    """How spread out the map is, by the entropy of its absolute values as shares of their sum, in nats.

    -sum of p ln p, p = |a| / sum of |a|: 0 for one value alone, ln v for a constant map of v values. It does not
    depend on the map's scale. A map of zeros counts as constant.

    Cost: no passes.

    Source: Bhatt, Weller & Moura (2020), who call it complexity.

    Differs from the source: nothing; ``relative=true`` divides by ln v, so that maps of different sizes compare.
    """

    relative: bool = option(False, "divide by the entropy of a constant map, so that it lies from 0 to 1")
    reduction: Reduction | None = option(None, VALUES)

    def judge(self, case: Case) -> Judgement:
        """Entropies."""
        values = magnitudes(case, self.reduction)
        found = torch.special.entr(values / values.sum(1, keepdim=True)).sum(1)
        return Judgement((found / math.log(max(values.shape[1], 2)) if self.relative else found).float())
