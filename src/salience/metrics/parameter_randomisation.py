"""Sensitivity to the network's parameters."""

import warnings
from contextlib import ExitStack

import torch
from torch import Tensor

from salience.core.draws import Stream
from salience.core.errors import CollapseWarning
from salience.core.metric import REDUCTION, Case, Curve, Judgement, Reduction
from salience.core.options import option
from salience.core.registry import register
from salience.core.types import Saliency
from salience.metrics._alike import Alike, ComparesMaps
from salience.perturb.randomise import Part, parts_of, randomised
from salience.similarities.spearman import Spearman


@register(
    "metric",
    "parameter_randomisation",
    shares_weights=True,
    higher_is_better=False,
    within=(-1.0, 1.0),
    category="randomisation",
    needs_explainer=True,
    axes=("share of parameters randomised", "similarity to the map of the network itself"),
    cites="Adebayo et al. 2018",
)
class ParameterRandomisation(ComparesMaps):
    """How much of a map survives when the network's parameters become random, from the logits down to the image.

    The mean over steps of the rank correlation of |map| between the network and the one randomised so far; 0 if one
    of the two is constant, 1 if both are. Every parameter is randomised, and the running statistics of batch normalisation
    (`perturb.randomise.randomised` says how). Modules go in their order of registration, which in
    nearly all networks is that of execution. The target stays the same.

    The curve runs over the share of parameters up to each step; its first point, the network itself (1), is not in the mean.
    All maps have the same draws, so that a method cannot pass by being noisy; the curve ``noise floor`` is the
    similarity of two maps of the network itself with different draws. The maps given are not used.

    Cost: `steps` + 2 maps an image. White boxes only.

    Source: Adebayo et al. (2018), "Sanity checks for saliency maps"; Xavier's initialisation as in "Smoothed explanations" (2022).

    Differs from the source: channels are reduced first; biases, shortcuts, tokens and scales are randomised
    too; the target is not predicted again; the curve is reduced to one number.
    """

    steps: int | None = option(10, "steps, each of about as many modules; none: one a module", at_least=1)
    from_input: bool = option(False, "begin at the image instead of the logits")
    independent: bool = option(False, "randomise the modules of each step alone, the others as trained")
    absolute: bool = option(True, "compare absolute values")
    similarity: Alike = option(Spearman, "how alike the maps are: spearman, ssim, ...; larger must mean more alike")
    reduction: Reduction | None = option(None, REDUCTION)

    def judge(self, case: Case) -> Judgement:
        """The mean similarity, its curve and the noise floor."""
        parts = parts_of(case.model)[:: 1 if self.from_input else -1]
        split = torch.arange(len(parts)).tensor_split(min(self.steps or len(parts), len(parts)))
        steps = [[parts[place] for place in step.tolist()] for step in split]
        sizes = torch.tensor([0, *(sum(part.size for part in step) for step in steps)]).cumsum(0)
        values, floor = torch.empty(len(case.images), len(sizes)), torch.empty(len(case.images), len(sizes))
        keys = [stream.weights for stream in case.streams]
        for key in dict.fromkeys(keys):  # images that share their draws of weights
            group = [place for place, each in enumerate(keys) if each == key]
            values[group], floor[group] = self._cascade(case, group, steps)
        share = sizes / sizes[-1]
        return Judgement(values[:, 1:].mean(1), curves={"similarity": Curve(share, values), "noise floor": Curve(share, floor)})

    def _cascade(self, case: Case, group: list[int], steps: list[list[Part]]) -> tuple[Tensor, Tensor]:
        """Some images' similarity after 0, 1, 2, ... steps, and their noise floor."""
        draws = [case.draws[image] for image in group]
        clean = self._saliency(case, group, draws)
        alike = self.alike(clean)
        floor = alike(self._saliency(case, group, [stream.at("fresh") for stream in draws]))
        found = [alike(clean)]
        with ExitStack() as stack:
            for done, step in enumerate(steps, start=1):
                if self.independent:
                    stack.close()
                stack.enter_context(randomised(step, case.streams[group[0]]))
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", CollapseWarning)  # that random networks do not keep the class says nothing
                    found.append(alike(self._saliency(case, group, draws)))
                if case.model.progress is not None:
                    case.model.progress(done, len(steps))
        return torch.tensor(found).T, torch.tensor(floor)[:, None]

    def _saliency(self, case: Case, group: list[int], draws: list[Stream]) -> Saliency:
        maps = self.made(case, group, case.targets[group], draws)
        return maps.abs() if self.absolute else maps
