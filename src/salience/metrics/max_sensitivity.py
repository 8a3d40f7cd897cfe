"""Max-sensitivity."""

from operator import methodcaller

import torch

from salience.core.draws import stack
from salience.core.errors import UndefinedError, nth
from salience.core.metric import Case, Curve, Judgement, Metric
from salience.core.options import option
from salience.core.registry import register


@register("metric", "max_sensitivity", higher_is_better=False, within=(0.0, None), category="robustness", needs_explainer=True, axes=("draw", "relative change of the map"), cites="Yeh et al. 2019")
class MaxSensitivity(Metric):
    """How far the map moves when the image moves a little: max over samples of |E(x + d) - E(x)| / |E(x)|.

    d ~ U(-radius, radius) in every value, not clamped to [0, 1], as in the source; norms are Euclidean, over the signed map
    with all its channels. The target stays the same. E(x) is computed again from the explainer's seed, so
    that both maps have the same draws; the maps given are not used. With ``common_draws=false`` every E(x + d) has draws
    of its own, which adds the method's Monte-Carlo noise to its sensitivity.

    Cost: `samples` + 1 maps an image.

    Source: Yeh et al. (2019), "On the (in)fidelity and sensitivity of explanations", eq. 8; the NoiseGrad paper takes 10 samples, Yeh 50.

    Differs from the source: the radius is in [0, 1] units, theirs is 0.2 after normalisation: multiply by the std of
    the normalisation (about 0.225 for ImageNet's, which gives the default). The maximum over more samples is larger.
    """

    samples: int = option(10, "draws of the change", at_least=1)
    radius: float = option(0.045, "largest change of a value, in [0, 1] units", above=0)
    common_draws: bool = option(True, "make all maps with the same draws; false: fresh ones for each")

    def judge(self, case: Case) -> Judgement:
        """The largest relative change, and the curve of all of them."""
        n, shape = len(case.images), case.images.shape[1:]
        clean = case.explained(case.images, case.targets, case.draws).cpu().double()
        norm = clean.flatten(1).norm(dim=1)
        if (norm == 0).any():
            raise UndefinedError(f"{self.name} is not defined for {nth(int((norm == 0).nonzero()[0]), len(norm))}: its map is zero everywhere, so a change relative to it has no size.")
        together, found = max(1, case.model.images_at_once(shape[1:]) // n), []
        for start in range(0, self.samples, together):
            numbers = range(start, min(start + together, self.samples))
            noise = torch.stack([stack(case.streams, methodcaller("uniform", shape, "change", number)).expand(n, *shape) for number in numbers])
            moved = case.images + self.radius * (2 * noise.to(case.images) - 1)
            draws = [stream if self.common_draws else stream.at(self.name, number) for number in numbers for stream in case.draws]
            maps = case.explained(moved.flatten(0, 1), case.targets.repeat(len(numbers)), draws).cpu().double()
            found.append((maps.unflatten(0, (len(numbers), n)) - clean).flatten(2).norm(dim=2) / norm)
            if case.model.progress is not None:
                case.model.progress(numbers.stop, self.samples)
        changes = torch.cat(found).T.float()
        return Judgement(changes.amax(1), curves={"change": Curve(torch.arange(1.0, self.samples + 1), changes)})
