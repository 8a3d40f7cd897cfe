"""What an attack came to."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from salience.core.types import Images, Maps, PerImage, Saliency, Targets
from salience.similarities.lpips import LPIPS, SMALLEST
from salience.similarities.ssim import SSIM

if TYPE_CHECKING:
    from salience.attacks.attack import Attack


@dataclass(frozen=True, repr=False)
class Attacked:
    """What an attack came to, measured on the network itself. All tensors are on the CPU.

    Attributes:
        attack: The attack.
        images: As they were, (n, c, h, w).
        perturbed: As they are now.
        targets: Class explained, (n,).
        labels: Its names.
        new_labels: Names of the classes predicted after.
        predictions: Predicted classes before and after, (n,) each.
        probability_before: Of the class explained.
        probability_after: Likewise.
        maps: Before and after, (n, c, h, w); for random methods from draws that the attack has not seen.
        aim: Shares of the map aimed at, (n, h, w); None without one.
        budget: For each threat what it used, (n,).
        flow: The spatial flow (n, h, w, 2), if that threat was there.
        distance_to_target_before: Cosine distance of the map before to the one aimed at; None without one.
        distance_to_target_after: Likewise of the map after.
        distance_to_original: Cosine distance of the maps before and after.
        random_distance_to_target: What random changes of the same budget reach, the median.
        random_distance_to_original: Likewise.
        objective_before: What the attack makes small (`Objective.loss` of the map's shares).
        objective_after: Likewise.
        random_objective: What random changes of the same budget reach, the median.
        own_draws: Of a `fixed` attack of one run: the cosine distance to the map aimed at (or to the map before, without one) on the very draws
            that the attack was made with, which flatter it; else None.
        history: The loss before each step, (steps, n).
        blind: In how many steps, of all runs, a part of the gradient was not finite and was taken for 0, (n,): where it is not 0, the attack was weaker than it could be.
        model: Name of the network.
        weights: Hash of its weights.
    """

    attack: "Attack"
    images: Images
    perturbed: Images
    targets: Targets
    labels: list[str]
    new_labels: list[str]
    predictions: tuple[Tensor, Tensor]
    probability_before: Tensor
    probability_after: Tensor
    maps: tuple[Maps, Maps]
    aim: Saliency | None
    budget: dict[str, PerImage]
    flow: Tensor | None
    distance_to_target_before: PerImage | None
    distance_to_target_after: PerImage | None
    distance_to_original: PerImage
    random_distance_to_target: PerImage | None
    random_distance_to_original: PerImage | None
    objective_before: PerImage
    objective_after: PerImage
    random_objective: PerImage | None
    own_draws: PerImage | None
    history: Tensor
    blind: Tensor
    model: str
    weights: str

    def __repr__(self) -> str:
        moved = "; ".join(f"{'class kept' if kept else 'class lost'}, map {moved:.3f} from its own" for kept, moved in zip(self.class_kept.tolist(), self.distance_to_original.tolist(), strict=True))
        return f"Attacked({self.attack}: {moved})"

    def show(self) -> Any:
        """A matplotlib figure: of each image before and after, the difference, the flow and the maps."""
        from salience.show.attack import attack_figure

        return attack_figure(self)

    def _repr_png_(self) -> bytes:
        """How Jupyter displays it."""
        from salience.show.overlay import to_png

        return to_png(self.show())

    @property
    def class_kept(self) -> Tensor:
        """Whether the predicted class is the same as before, (n,)."""
        return self.predictions[0] == self.predictions[1]

    @property
    def bounds(self) -> dict[str, float]:
        """The budget of each threat: what it may use, where `budget` is what it did."""
        return {threat.name: threat.budget for threat in self.attack.threats}

    @cached_property
    def ssim(self) -> PerImage:
        """Structural similarity of the images before and after, (n,)."""
        return SSIM()(self.images, self.perturbed)

    @cached_property
    def lpips(self) -> PerImage | None:
        """Perceptual distance of the images before and after, (n,); None where its network is not at hand, or the images are too small for it."""
        perceptual = LPIPS()
        return perceptual(self.images, self.perturbed) if perceptual.at_hand and min(self.images.shape[-2:]) >= SMALLEST else None

    @property
    def fall(self) -> PerImage | None:
        """By what share the distance to the map aimed at fell, (n,); NaN where it was 0."""
        return _fall(self.distance_to_target_before, self.distance_to_target_after)

    @property
    def random_fall(self) -> PerImage | None:
        """By what share random changes made it fall."""
        return _fall(self.distance_to_target_before, self.random_distance_to_target)


def _fall(before: PerImage | None, after: PerImage | None) -> PerImage | None:
    return None if before is None or after is None else torch.where(before > 0, 1 - after / before, torch.nan)
