"""Occlusion by a sliding window."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from salience.core.classifier import Classifier
from salience.core.draws import Stream
from salience.core.errors import InputError
from salience.core.explainer import Explainer
from salience.core.montecarlo import Attribution, Done
from salience.core.options import option
from salience.core.registry import register
from salience.core.types import Images, Maps, Targets
from salience.explainers._all_classes import of_targets, scores, scores_all_classes
from salience.perturb.fills import Fill, filled


@register("explainer", "occlusion", signed=True, stochastic=False, needs_gradient=False, unit="{score}", cites="Zeiler & Fergus 2014")
class Occlusion(Explainer):
    """How much the score falls when a window is covered: mean of f(x) - f(x without W) over the windows W that hold a pixel.

    The window slides by `stride` and stops flush with the far borders too, so every pixel is covered.
    By default it scales with the image: its side is 2/7 of the shorter side (at least 1), its stride an
    eighth of that (at least 1): 64 and 8 pixels at 224 x 224, 9 and 1 at 32 x 32.

    Cost: one forward pass a window (441 at 224 x 224) and image. All classes are scored at once, so
    ``e.for_target`` needs no further pass. Works on black boxes.

    Source: Zeiler & Fergus (2014), "Visualizing and understanding convolutional networks"; window and
    stride as in "RISE" (2018), section 4.

    Differs from the source: the drop of the probability is shown, not the probability left; the papers
    give neither fill nor how windows become pixels: here the model's mean colour (zero in its
    normalised space), and the mean over the windows that hold a pixel.
    """

    window: int | None = option(None, "side of the square window in pixels; 2/7 of the image's shorter side if not given", at_least=1)
    stride: int | None = option(None, "step of the window in pixels; an eighth of the window if not given", at_least=1)
    fill: Fill = option("mean", "what covers the window: mean, black, white, grey or blur")

    own_score = "probability"

    def attribute(self, model: Classifier, images: Images, targets: Targets, streams: Sequence[Stream]) -> Attribution:
        """The map of the target."""
        return Attribution(self._painted(self._drops(model, images, targets, every=False), targets, images.shape[-2:]))

    def explain_view(self, model: Classifier, images: Images, targets: Targets, streams: Sequence[Stream], tolerance: float | None) -> Done:
        """The map of the target, and the way to that of any other class."""
        every = scores_all_classes(model)
        drops = self._drops(model, images, targets, every)

        def done(wanted: Targets) -> Done:
            return Done(self._painted(drops, wanted, images.shape[-2:]), retarget=done if every else None)

        return done(targets)

    def geometry(self, size: Sequence[int]) -> tuple[int, int]:
        """Window and stride for an image of a size.

        Raises:
            InputError: If the window is larger than the image, or the stride larger than the window.
        """
        window = self.window or max(1, round(min(size) * 2 / 7))
        stride = self.stride or max(1, window // 8)
        if window > min(size):
            raise InputError(f"occlusion: the window of {window} pixels does not fit into images of {size[0]} x {size[1]}: give a window of at most {min(size)}.")
        if stride > window:
            raise InputError(f"occlusion: a stride of {stride} leaves pixels between windows of {window} uncovered: give a stride of at most {window}.")
        return window, stride

    def _inside(self, size: Sequence[int], device: torch.device) -> list[Tensor]:
        """Per axis, which pixels each position of the window holds, (positions, pixels)."""
        window, stride = self.geometry(size)
        starts = [torch.tensor([*range(0, length - window, stride), length - window], device=device)[:, None] for length in size]
        return [(torch.arange(length, device=device) >= start) & (torch.arange(length, device=device) < start + window) for length, start in zip(size, starts, strict=True)]

    def _drops(self, model: Classifier, images: Images, targets: Targets, every: bool) -> Float[Tensor, "n rows columns k"]:
        """The fall of each class's score at each position of the window."""
        rows, columns = self._inside(images.shape[-2:], images.device)
        cover, windows = filled(self.fill, model, images), len(rows) * len(columns)
        total, step, covered = len(images) * windows, model.images_at_once(images.shape[-2:], gradients=False), []
        for start in range(0, total, step):
            number = torch.arange(start, min(start + step, total), device=images.device)
            image, place = number // windows, number % windows
            hidden = rows[place // len(columns)][:, None, :, None] & columns[place % len(columns)][:, None, None, :]
            covered.append(scores(model, torch.where(hidden, cover[image], images[image]), targets[image], every))
            if model.progress is not None:
                model.progress(start + len(number), total)
        full = scores(model, images, targets, every)
        return full[:, None, None] - torch.cat(covered).view(len(images), len(rows), len(columns), -1)

    def _painted(self, drops: Tensor, targets: Targets, size: Sequence[int]) -> Maps:
        """Each pixel's mean over the windows that hold it."""
        rows, columns = (inside.to(drops) for inside in self._inside(size, drops.device))
        total = torch.einsum("npq,ph,qw->nhw", of_targets(drops, targets), rows, columns)
        return (total / (rows.sum(0)[:, None] * columns.sum(0)))[:, None]
