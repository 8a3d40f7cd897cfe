"""Away from what mattered most."""

from salience.core.objective import Objective
from salience.core.options import option
from salience.core.registry import register
from salience.core.types import PerImage, Saliency


@register("objective", "top_k", targeted=False, cites="Ghorbani et al. 2019")
class TopK(Objective):
    """Empty the pixels that mattered most: the share of the map that falls on its former largest values.

    Source: Ghorbani, Abid & Zou (2019), "Interpretation of neural networks is fragile", the top-k attack.

    Differs from the source: k is a share of the pixels (2 %: 1000 of 224 x 224, as there).
    """

    share: float = option(0.02, "share of the pixels that count as the largest", above=0, at_most=1)

    def loss(self, maps: Saliency, clean: Saliency, aim: Saliency | None) -> PerImage:
        """What is left there."""
        k = max(round(self.share * clean[0].numel()), 1)
        return maps.flatten(1).gather(1, clean.flatten(1).topk(k, dim=1).indices).sum(1)
