"""ROAD, remove and debias."""

from typing import TYPE_CHECKING

import numpy as np
import torch

from salience.core.errors import InputError
from salience.core.metric import REDUCTION, Case, Curve, Judgement, Metric, Reduction
from salience.core.options import option
from salience.core.registry import register
from salience.core.types import Images
from salience.metrics._curves import Ties, ranks
from salience.metrics._removal import scores_of

if TYPE_CHECKING:
    from scipy.sparse import csr_array


@register("metric", "road", higher_is_better=False, category="faithfulness", axes=("share of pixels removed", "score of the class (probability)"), cites="Rong et al. 2022")
class Road(Metric):
    """The score once the most salient pixels are painted over from their surroundings: a mean, 0 to 1 for probabilities.

    For each percentage the most salient pixels are removed from the image itself. A removed pixel becomes the
    weighted mean of its eight neighbours, 1/6 for direct and 1/12 for diagonal ones, other removed pixels among
    them (one sparse linear system), plus a little noise: so the shape of what was removed tells the model less
    than with one colour. The value is the mean over percentages of the score; lower is better. The curve is over the
    share removed.

    Cost: a forward pass and a sparse factorisation (0.2 s at most at 224 px) an image and percentage.

    Source: Rong, Leemann, Borisov, Kasneci & Kasneci (2022), "A consistent and efficient evaluation strategy for
    attribution methods", noisy linear imputation, most relevant first.

    Differs from the source: the score of the map's target, not the accuracy over a data set; at the border the weights
    of the neighbours that exist are scaled up to sum to one, as in its code; noise is in [0, 1] units.
    """

    percentages: tuple[float, ...] = option((10, 20, 30, 40, 50, 60, 70, 80, 90), "percentages of the pixels removed, each above 0 and below 100")
    noise: float = option(0.01, "sd of the noise on removed pixels, in [0, 1] units", at_least=0)
    ties: Ties = option("random", "order of equal pixels: random (seeded), or original")
    reduction: Reduction | None = option(None, REDUCTION)

    def __post_init__(self) -> None:
        """Check the percentages."""
        super().__post_init__()
        if not self.percentages or not all(0 < each < 100 for each in self.percentages):
            raise InputError(f"{self.name}: percentages must lie above 0 and below 100, for example percentages=20+50.")

    def judge(self, case: Case) -> Judgement:
        """The mean score, and the curve."""
        _, c, h, w = case.images.shape
        rank = ranks(case, case.saliency(self.reduction), self.ties).cpu()
        counts = [min(round(each / 100 * h * w), h * w - 1) for each in sorted(self.percentages)]
        system = neighbours(h, w)

        def make(image: torch.Tensor, number: torch.Tensor) -> Images:
            made = case.images[image.to(case.images.device)].cpu().flatten(2)
            for picture, i, k in zip(made, image.tolist(), number.tolist(), strict=True):
                removed = rank[i] < counts[k]
                noise = self.noise * case.streams[i].normal((c, h * w), "noise", counts[k])
                picture[:, removed] = torch.from_numpy(imputed(system, picture.numpy(), removed.numpy())) + noise[:, removed]
            return made.view(-1, c, h, w).to(case.images.device)

        curve = Curve(torch.tensor(counts) / (h * w), scores_of(case, len(counts), make))
        return Judgement(curve.y.mean(1), curves={"road": curve})


def neighbours(h: int, w: int) -> "csr_array":
    """The system whose row i says that pixel i is the weighted mean of its neighbours: sum_j w_ij (x_i - x_j) = 0."""
    from scipy.sparse import coo_array, diags_array

    at = np.arange(h * w).reshape(h, w)
    pairs = ((at[:, :-1], at[:, 1:], 1 / 6), (at[:-1], at[1:], 1 / 6), (at[:-1, :-1], at[1:, 1:], 1 / 12), (at[:-1, 1:], at[1:, :-1], 1 / 12))
    first, second, values = (np.concatenate(parts) for parts in zip(*((a.ravel(), b.ravel(), np.full(a.size, weight)) for a, b, weight in pairs), strict=True))
    weights = coo_array((values, (first, second)), shape=(h * w, h * w)).tocsr()
    weights = weights + weights.T
    return (diags_array(weights.sum(1)) - weights).tocsr()


def imputed(system: "csr_array", picture: np.ndarray, removed: np.ndarray) -> np.ndarray:
    """The removed pixels (c, removed) that solve the system, the others given; picture is (c, pixels)."""
    from scipy.sparse.linalg import splu

    if not removed.any():
        return picture[:, removed]
    rows = system[removed]
    known = rows[:, ~removed] @ picture[:, ~removed].T.astype(np.float64)
    solver = splu(rows[:, removed].tocsc(), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    return solver.solve(-known).T.astype(np.float32)
