"""Mean average precision, as one number a picture."""

import numpy as np
from jaxtyping import Bool, Float


def average_precisions(scores: Float[np.ndarray, "n k"], positives: Bool[np.ndarray, "n k"]) -> Float[np.ndarray, " n"]:
    """Mean average precision as a mean over pictures: jackknife values n m - (n - 1) m(without the picture), moved to have the mean m.

    Of a class, the mean over its pictures i of the precision among the pictures with at least i's score; tied pictures come
    in together, as in scikit-learn. A class that is left without a picture is left out of m.

    Args:
        scores: Of every class.
        positives: Which classes a picture has; each class has at least one.

    Returns:
        One number a picture, of any size: their mean is the mean average precision.

    Source: Efron & Tibshirani (1993), An introduction to the bootstrap, chapter 11. Differs from the source: the shift, which takes off
    the jackknife's correction of the bias.
    """
    n, k = scores.shape
    whole, without = np.empty(k), np.empty((k, n))
    for place in range(k):
        mine = positives[:, place]
        first = scores[:, None, place] <= scores[None, :, place]
        first, count = first[mine], mine.sum()
        right, all_of = first[:, mine].sum(1), first.sum(1)
        whole[place] = (right / all_of).mean()
        left = np.divide(right[:, None] - first * mine, all_of[:, None] - first, out=np.zeros(first.shape), where=~np.eye(n, dtype=bool)[mine])
        without[place] = np.divide(left.sum(0), count - mine, out=np.full(n, np.nan), where=count > mine)
    known = np.isfinite(without)
    left_out = np.where(known.any(0), np.where(known, without, 0).sum(0) / np.maximum(known.sum(0), 1), whole.mean())
    values = n * whole.mean() - (n - 1) * left_out
    return values - values.mean() + whole.mean()
