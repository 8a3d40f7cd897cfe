"""The linear model that LIME fits around an image: weighted ridge regression, with a jackknife error."""

import torch
from torch import Tensor

from salience.core.montecarlo import BLOCKS, Estimate, jackknife
from salience.core.types import Maps, PerImage, Targets
from salience.explainers._all_classes import of_targets


class Surrogate:
    """Collects draws (which superpixels were on, and the scores) and fits them at any time.

    Draw 0 is the whole image. It is part of every fit and of no block; draw i > 0 is in block
    (i - 1) modulo 20. Leaving one block out at a time gives the error (delete-a-group jackknife).

    Kept: superpixels + classes numbers a draw and image.

    Args:
        segments: The superpixel of every pixel, (n, h, w).
        targets: Class fitted, (n,).
        samples: Draws at most.
        width: Width of the kernel that weighs draws by their cosine distance from the whole image.
        alpha: Ridge penalty.
    """

    def __init__(self, segments: Tensor, targets: Targets, samples: int, width: float, alpha: float) -> None:
        self.segments = segments
        self.sizes = (segments.flatten(1).amax(1) + 1).tolist()
        self.targets = targets
        self.blocks = min(BLOCKS, samples - 1)
        self.width = width
        self.alpha = alpha
        self.kept: list[list[Tensor]] = [[] for _ in segments]

    def add(self, draws: range, active: Tensor, values: Tensor) -> None:
        """Take in (draws, images, superpixels + classes): what was on, then the scores."""
        for place, image in enumerate(active.tolist()):
            self.kept[image].append(values[:, place])

    def estimate(self, images: Tensor, targets: Targets | None = None) -> Estimate:
        """The coefficients painted on their superpixels, of the targets or of other classes."""
        chosen = self.targets if targets is None else targets.to(self.targets.device)
        coefficients = torch.zeros(1 + self.blocks, len(images), max(self.sizes), dtype=torch.float64, device=self.segments.device)
        for place, image in enumerate(images.tolist()):
            grams = self._grams(image, chosen[image])
            whole = grams.sum(0)
            fits = torch.cat([whole[None], whole - grams[1:]])
            coefficients[:, place, : self.sizes[image]] = ridge(fits, self.alpha)[0]
        counts = torch.stack([self._counts(image) for image in images.tolist()], 1)
        stderr, pseudo = jackknife(coefficients[0], coefficients[1:], counts)
        df = torch.full((len(images),), float(self.blocks - 1))
        return Estimate(self._painted(coefficients[0], images), self._painted(stderr, images), df, torch.stack([self._painted(each, images) for each in pseudo]), counts)

    def fit(self, targets: Targets) -> PerImage:
        """Share of the scores' weighted variance that each image's surrogate explains (R²), (n,)."""
        chosen = targets.to(self.targets.device)
        return torch.stack([ridge(self._grams(image, target).sum(0), self.alpha)[1] for image, target in enumerate(chosen)]).float()

    def _counts(self, image: int) -> Tensor:
        draws = sum(map(len, self.kept[image])) - 1
        return torch.tensor([float(len(range(block, draws, BLOCKS))) for block in range(self.blocks)])

    def _grams(self, image: int, target: Tensor) -> Tensor:
        """Sums of w d d', d = (1, on or off, score): of draw 0, and of each block; (1 + blocks, s + 2, s + 2)."""
        rows = torch.cat(self.kept[image]).double()
        on, scored = rows[:, : self.sizes[image]], of_targets(rows[None, :, max(self.sizes) :], target[None])[0]
        design = torch.cat([torch.ones_like(on[:, :1]), on, scored[:, None]], 1)
        distance = 1 - (on.sum(1) / on.shape[1]).sqrt()
        weighted = design * torch.exp(-(distance**2) / self.width**2).sqrt()[:, None]
        parts = [slice(0, 1), *(slice(1 + block, None, BLOCKS) for block in range(self.blocks))]
        return torch.stack([weighted[part].T @ design[part] for part in parts])

    def _painted(self, values: Tensor, images: Tensor) -> Maps:
        segments = self.segments[images.to(self.segments.device)]
        return values.gather(1, segments.flatten(1)).view(len(images), 1, *segments.shape[-2:]).float()


def ridge(gram: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Weighted ridge regression with a free intercept, from sums.

    Args:
        gram: Weighted sums of the products of (1, features, response), (..., s + 2, s + 2).
        alpha: Penalty on the squared coefficients.

    Returns:
        The coefficients (..., s), and the share of the response's weighted variance explained (...).
    """
    total, means = gram[..., :1, :1], gram[..., :1, 1:] / gram[..., :1, :1]
    centred = gram[..., 1:, 1:] - total * means.mT * means
    among, against, spread = centred[..., :-1, :-1], centred[..., :-1, -1:], centred[..., -1, -1]
    found = torch.linalg.solve(among + alpha * torch.eye(among.shape[-1]).to(among), against)
    left = spread - (2 * found * against).sum((-2, -1)) + (found.mT @ among @ found)[..., 0, 0]
    return found[..., 0], torch.where(spread > 0, 1 - left / spread.clamp_min(torch.finfo(spread.dtype).tiny), 0.0)
