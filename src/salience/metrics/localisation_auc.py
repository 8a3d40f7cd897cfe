"""Area under the ROC curve of a map as a detector of the object."""

import torch
from torch import Tensor

from salience.core.metric import REDUCTION, Case, Judgement, Metric, Reduction
from salience.core.options import option
from salience.core.registry import register
from salience.metrics._localisation import masks_at_input, refuse


@register("metric", "localisation_auc", higher_is_better=True, within=(0.0, 1.0), category="localisation", needs_masks=True, cites="Fawcett 2006")
class LocalisationAUC(Metric):
    """The probability that a pixel of the object is more salient than one outside it: area under the ROC curve, 0 to 1.

    (pairs with the object's pixel above + half the tied pairs) / pairs, exact for any number of ties; a constant
    map gets 0.5.

    Cost: no passes.

    Source: Fawcett (2006).

    Differs from the source: nothing. An empty mask and a mask of all pixels are undefined.
    """

    reduction: Reduction | None = option(None, REDUCTION)

    def judge(self, case: Case) -> Judgement:
        """Areas under the ROC curves."""
        masks = masks_at_input(self, case)
        refuse(self, masks.flatten(1).all(1), "its mask covers the model's whole input, so nothing is outside the object")
        return Judgement(torch.stack([_area(values[mask], values[~mask]) for values, mask in zip(case.saliency(self.reduction).cpu(), masks, strict=True)]))


def _area(inside: Tensor, outside: Tensor) -> Tensor:
    """The share of pairs in which the first is larger, ties counted half."""
    ordered = outside.sort().values
    below = torch.searchsorted(ordered, inside) + torch.searchsorted(ordered, inside, right=True)
    return (below.sum().double() / (2 * len(inside) * len(outside))).float()
