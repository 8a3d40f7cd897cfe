"""What metrics of localisation have in common: the object at the model's input, and shares of a map inside it."""

from jaxtyping import Bool, Float, Int
from torch import Tensor

from salience.core.errors import UndefinedError, nth
from salience.core.metric import Case, Metric
from salience.core.types import PerImage


def masks_at_input(metric: Metric, case: Case) -> Bool[Tensor, "n h w"]:
    """Where the object is in the model's input, on the CPU.

    Raises:
        UndefinedError: If no pixel of an image's object is in the input.
    """
    masks = case.input_masks().cpu()
    refuse(metric, ~masks.flatten(1).any(1), "its mask has no pixel in the model's input")
    return masks


def refuse(metric: Metric, bad: Bool[Tensor, " n"], why: str) -> None:
    """Stop at the first image for which the metric has no value.

    Raises:
        UndefinedError: If there is one.
    """
    found = bad.nonzero()
    if len(found):
        raise UndefinedError(f"{metric.name} is not defined for {nth(int(found[0]), len(bad))}: {why}.")


def top_share(values: Float[Tensor, "n v"], inside: Bool[Tensor, "n v"], k: Int[Tensor, " n"]) -> PerImage:
    """The share of each row's k largest values that lie inside.

    Values equal to the k-th largest share the places left for them: it is the mean over all their orders.

    Args:
        values: One row an image.
        inside: Which values count.
        k: How many are taken of each row.
    """
    smallest = values.sort(1, descending=True).values.gather(1, k[:, None] - 1)
    above, tied = values > smallest, values == smallest
    free = k - above.sum(1)
    hits = (above & inside).sum(1) + free * (tied & inside).sum(1).double() / tied.sum(1)
    return (hits / k).float()


def mass_share(metric: Metric, values: Float[Tensor, "n h w"], inside: Bool[Tensor, "n h w"]) -> PerImage:
    """The share of each map's sum that lies inside.

    Args:
        metric: Named in the message.
        values: Not negative.
        inside: Where the object is.

    Raises:
        UndefinedError: If a map has no value above zero, so that there is nothing to share.
    """
    total = values.double().sum((1, 2))
    refuse(metric, total == 0, "its map has no value that counts, so no share of it lies anywhere")
    return ((values.double() * inside).sum((1, 2)) / total).float()
