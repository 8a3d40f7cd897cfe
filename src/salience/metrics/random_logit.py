"""Sensitivity to the class explained."""

import torch

from salience.core.errors import InputError
from salience.core.metric import REDUCTION, Case, Judgement, Reduction
from salience.core.options import option
from salience.core.registry import register
from salience.metrics._alike import Alike, ComparesMaps
from salience.similarities.ssim import SSIM


@register("metric", "random_logit", higher_is_better=False, within=(-1.0, 1.0), category="randomisation", needs_explainer=True, cites="Sixt et al. 2020")
class RandomLogit(ComparesMaps):
    """How alike the map of the target and that of a random other class are: 1 for a method that ignores the class.

    The other class is drawn for each image. Both maps have the same draws and are scaled from 0 to 1; the
    maps given are not used.

    Cost: 2 maps an image.

    Source: Sixt, Granz & Landgraf (2020), "When explanations lie", section 5: structural similarity.

    Differs from the source: the channels are reduced and the map scaled as here; another similarity may be chosen.
    """

    similarity: Alike = option(SSIM, "how alike the maps are: ssim, spearman, ...; larger must mean more alike")
    reduction: Reduction | None = option(None, REDUCTION)

    def judge(self, case: Case) -> Judgement:
        """The similarity with another class's map."""
        classes = case.model.outputs(case.images[:1]).shape[1]
        if classes < 2:
            raise InputError(f"{case.model.name} has one class, so there is no other to compare with: give a model with at least two.")
        drawn = torch.tensor([int(stream.generator("class", 0).integers(classes - 1)) for stream in case.streams]).to(case.targets)
        others = drawn + (drawn >= case.targets)
        every = range(len(case.images))
        own, other = (self.made(case, every, targets, case.draws) for targets in (case.targets, others))
        return Judgement(torch.tensor(self.alike(own)(other)))
