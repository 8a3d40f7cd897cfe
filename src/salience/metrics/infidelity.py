"""Infidelity."""

import torch
import torch.nn.functional as F

from salience.core.draws import stack
from salience.core.errors import InputError, UndefinedError, nth
from salience.core.metric import Case, Judgement, Metric
from salience.core.options import option
from salience.core.registry import register
from salience.core.types import Images
from salience.metrics._removal import scores_of
from salience.perturb.fills import Fill, filled


@register("metric", "infidelity", higher_is_better=False, within=(0.0, None), category="faithfulness", cites="Yeh et al. 2019")
class Infidelity(Metric):
    """How far a map is from what squares of the image are worth: a mean squared error of the score, 0 or more.

    Every square Q is removed alone. With I = x - fill on Q and 0 elsewhere, the map predicts s = sum I * map; the
    score changes by d = f(x) - f(x - I). The value is the mean of (d - b s)², with b = mean(d s) / mean(s²), the
    best scale, if `scale`, else 1. Maps are signed; one channel is shared out equally among the image's.

    `multiply` is for maps that are a sensitivity, such as gradients. Maps that are a contribution already, such as
    those of input_x_gradient or occlusion, take ``multiply=false``: s = sum of the map on Q.

    Cost: 1 + `samples` forward passes an image, or one for every position of every side.

    Source: Yeh et al. (2019), "On the (In)fidelity and Sensitivity of Explanations", "Square", and its best scale.
    "Smoothed explanations" has ``sides=29+30,samples=none,multiply=false``.

    Differs from the source: positions are a random sample unless ``samples=none``, which is why there is an error; x - fill is
    Yeh's x for the mean colour, which is zero in the model's normalised space. Smoothed explanations adds up maps
    in normalised units: the same up to a factor where all channels have one std.
    """

    own_score = "logit"

    sides: tuple[int, ...] | None = option(None, "sides of the squares, in pixels; none: an eighth of the image's shorter side")
    samples: int | None = option(400, "squares drawn at random among all positions of all sides; none: every one once", at_least=2)
    multiply: bool = option(True, "multiply the map by the image less the fill")
    scale: bool = option(True, "bring the map to its best scale first")
    fill: Fill = option("mean", "what replaces removed pixels: mean, black, white, grey or blur")

    def judge(self, case: Case) -> Judgement:
        """The mean squared error and, for a sample of squares, its error.

        Raises:
            InputError: If a square does not fit the image.
            UndefinedError: If a map predicts no change, for any square or for any that was drawn, and is to be scaled.
        """
        images, device = case.images, case.images.device
        n, channels, h, w = images.shape
        sides = self.sides or (max(1, min(h, w) // 8),)
        if min(sides) < 1 or max(sides) > min(h, w):
            raise InputError(f"{self.name}: sides must be from 1 to {min(h, w)} pixels for images of {h} x {w}.")
        fill = filled(self.fill, case.model, images)
        weights = case.maps.expand_as(images) * (case.maps.shape[1] / channels) * (images - fill if self.multiply else 1)
        pooled = weights.sum(1, keepdim=True).cpu().double()
        sums = torch.cat([F.avg_pool2d(pooled, side, 1).flatten(1) * side**2 for side in sides], 1)
        squares = torch.cat([torch.cartesian_prod(torch.tensor([side]), torch.arange(h - side + 1), torch.arange(w - side + 1)) for side in sides])
        if self.samples is None:
            chosen = torch.arange(len(squares)).expand(n, -1)
        else:
            numbers = range(self.samples)
            chosen = stack(case.streams, lambda stream: torch.tensor([int(stream.generator("square", i).integers(len(squares))) for i in numbers])).expand(n, -1)

        def make(image: torch.Tensor, number: torch.Tensor) -> Images:
            side, top, left = squares[chosen[image, number]].T[..., None]
            rows, columns = torch.arange(h), torch.arange(w)
            inside = ((rows >= top) & (rows < top + side))[:, :, None] & ((columns >= left) & (columns < left + side))[:, None]
            image = image.to(device)
            return torch.where(inside[:, None].to(device), fill[image], images[image])

        clean = case.model.using(progress=None).target_scores(images, case.targets).cpu().double()
        changes, predicted = clean[:, None] - scores_of(case, chosen.shape[1], make), sums.gather(1, chosen)
        if self.scale:
            size = predicted.square().mean(1, keepdim=True)
            if (size == 0).any():
                image = int((size == 0).nonzero()[0, 0])
                missed = f"of the {self.samples} squares drawn, but it does for others: take more samples, or samples=none" if sums[image].any() else "square"
                raise UndefinedError(f"{self.name} has no scale for {nth(image, len(size))}: its map predicts no change for any {missed}; scale=false judges it as it is.")
            predicted = predicted * (changes * predicted).mean(1, keepdim=True) / size
        errors = (changes - predicted).square()
        return Judgement(errors.mean(1).float(), None if self.samples is None else (errors.std(1) / errors.shape[1] ** 0.5).float())
