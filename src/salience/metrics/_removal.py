"""What metrics that remove many different parts of an image have in common."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from salience.core.draws import Stream
from salience.core.metric import Case
from salience.core.types import Images, Saliency


def scores_of(case: Case, versions: int, make: Callable[[Tensor, Tensor], Images]) -> Float[Tensor, "n versions"]:
    """The score of several versions of every image, made a chunk at a time.

    Args:
        case: The model and targets.
        versions: How many versions there are of an image: as many forward passes.
        make: From indices of images (m,) and numbers of versions (m,) to those versions, (m, c, h, w).
    """
    model, n, found = case.model.using(progress=None), len(case.images), []
    total, at_once = n * versions, model.images_at_once(case.images.shape[-2:], gradients=False)
    for begin in range(0, total, at_once):
        which = torch.arange(begin, min(begin + at_once, total))
        number, image = which // n, which % n
        found.append(model.target_scores(make(image, number), case.targets[image]).cpu())
        if case.model.progress is not None:
            case.model.progress(min(begin + at_once, total), total)
    return torch.cat(found).view(versions, n).T


def random_removals(
    case: Case, saliency: Saliency, fill: Images, sizes: Sequence[int], samples: int, *, channels: int = 1
) -> tuple[Float[Tensor, "n sizes samples"], Float[Tensor, "n sizes samples"]]:
    """Remove random subsets of an image.

    Args:
        case: The images and the streams that subsets come from, each keyed by its size and number.
        saliency: (n, h, w).
        fill: What replaces removed pixels.
        sizes: How many entries a subset has.
        samples: Subsets of each size.
        channels: 1 if an entry is a whole pixel; the number of channels if each channel has its own entries.

    Returns:
        The sum of the saliency over each subset, and the change of the score, up to a constant of the image.
    """
    n, _, h, w = case.images.shape
    total, device = channels * h * w, case.images.device
    sums = torch.zeros(n, len(sizes) * samples, dtype=torch.float64)

    def make(image: Tensor, number: Tensor) -> Images:
        made: dict[tuple, Tensor] = {}
        for i, k in zip(image.tolist(), number.tolist(), strict=True):
            stream = case.streams[i]
            if (stream.key, k) not in made:
                made[stream.key, k] = _subset(stream, sizes[k // samples], k % samples, total)
        removed = torch.stack([made[case.streams[i].key, k] for i, k in zip(image.tolist(), number.tolist(), strict=True)]).view(-1, channels, h, w)
        weights = saliency[image.to(device), None].cpu().double()
        sums[image, number] = (weights * removed).sum((1, 2, 3))
        image = image.to(device)
        return torch.where(removed.to(device), fill[image], case.images[image])

    scores = scores_of(case, len(sizes) * samples, make)
    return sums.view(n, len(sizes), samples), -scores.reshape(n, len(sizes), samples)


def _subset(stream: Stream, size: int, number: int, total: int) -> Bool[Tensor, " total"]:
    removed = torch.zeros(total, dtype=torch.bool)
    removed[torch.from_numpy(stream.generator("subset", size, number).choice(total, size, replace=False, shuffle=False))] = True
    return removed


def correlation(first: Float[Tensor, "*lead draws"], second: Float[Tensor, "*lead draws"]) -> tuple[Float[Tensor, "*lead"], Float[Tensor, "*lead"]]:
    """Pearson's correlation over draws and its jackknife error, both 0 where either side is constant up to rounding."""
    draws = first.shape[-1]
    a, b = _centred(first), _centred(second)
    aa, bb, ab = (a * a).sum(-1, keepdim=True), (b * b).sum(-1, keepdim=True), (a * b).sum(-1, keepdim=True)
    share = draws / (draws - 1)
    without = _ratio(ab - share * a * b, aa - share * a * a, bb - share * b * b, 1e-10 * aa, 1e-10 * bb)
    error = ((draws - 1) * without.var(-1, correction=0)).sqrt()
    nothing = torch.zeros_like(aa)
    return _ratio(ab, aa, bb, nothing, nothing)[..., 0].float(), error.float()


def _centred(values: Tensor) -> Tensor:
    """As shares of the largest, so that no square of them overflows, less their mean; exactly zero if they differ by rounding only."""
    largest = values.abs().amax(-1, keepdim=True)
    constant = values.amax(-1, keepdim=True) - values.amin(-1, keepdim=True) <= 8 * torch.finfo(values.dtype).eps * largest
    values = values.double() / largest
    return torch.where(constant, 0.0, values - values.mean(-1, keepdim=True))


def _ratio(ab: Tensor, aa: Tensor, bb: Tensor, least_aa: Tensor, least_bb: Tensor) -> Tensor:
    defined = (aa > least_aa) & (bb > least_bb)
    return torch.where(defined, ab / torch.where(defined, aa * bb, 1.0).sqrt(), 0.0).clamp(-1, 1)
