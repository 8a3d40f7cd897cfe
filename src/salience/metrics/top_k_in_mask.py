"""Share of the largest entries of a map that lie on the object."""

import torch

from salience.core.errors import InputError
from salience.core.metric import Case, Judgement, Metric
from salience.core.options import option
from salience.core.registry import register
from salience.metrics._localisation import masks_at_input, top_share


@register("metric", "top_k_in_mask", higher_is_better=True, within=(0.0, 1.0), category="localisation", needs_masks=True, cites="Ajalloeian et al. 2022")
class TopKInMask(Metric):
    """The share of the k largest entries of the signed map, over all channels and pixels, that lie on the object, 0 to 1.

    Judged once with the target's map and its object and once with another class's, it tells whether a method
    is sensitive to the class. Entries equal to the k-th share the places left.

    Cost: no passes.

    Source: "Smoothed explanations" (2022), table 1, and its code: 20 entries of the signed map.

    Differs from the source: ties are shared; the mask is brought to the input by the nearest pixel, not bilinearly.
    """

    k: int = option(20, "how many of the largest entries are looked at", at_least=1)

    def judge(self, case: Case) -> Judgement:
        """Shares of the k largest."""
        maps = case.maps.cpu().flatten(1)
        if self.k > maps.shape[1]:
            raise InputError(f"{self.name}: k must be at most {maps.shape[1]}, the number of values of a map, not {self.k}.")
        masks = masks_at_input(self, case)[:, None].expand(case.maps.shape).flatten(1)
        return Judgement(top_share(maps, masks, torch.full((len(maps),), self.k)))
