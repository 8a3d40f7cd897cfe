"""Gini index."""

import numpy as np
import torch

from salience.core.metric import Case, Judgement, Metric, Reduction
from salience.core.options import option
from salience.core.registry import register
from salience.metrics._complexity import VALUES, magnitudes


@register("metric", "gini", higher_is_better=True, within=(0.0, 1.0), category="complexity", cites="Hurley & Rickard 2009")
class Gini(Metric):
    """How sparse the map is, by the Gini index of its absolute values: 0 for a constant map, 1 - 1/v for one value of v.

    sum over k of (2k - v - 1) a_k / (v sum a), a_1 <= ... <= a_v the sorted absolute values. It does not depend
    on the map's scale. A map of zeros counts as constant.

    Cost: no passes.

    Source: Hurley & Rickard (2009); for maps Chalasani et al. (2020). "Smoothed explanations" (2022)
    takes all values of all channels, as the default does; "NoiseGrad" (2022) is ``reduction=abs_sum``.

    Differs from the source: those two add 1e-7 to every value, which makes maps of small scale look less sparse.
    """

    reduction: Reduction | None = option(None, VALUES)

    def judge(self, case: Case) -> Judgement:
        """Gini indices."""
        values = torch.from_numpy(np.sort(magnitudes(case, self.reduction).numpy(), 1))  # which sorts faster than torch
        v = values.shape[1]
        weights = torch.arange(1 - v, v, 2, dtype=values.dtype)
        return Judgement((values @ weights / (v * values.sum(1))).float())
