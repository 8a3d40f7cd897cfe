"""What NoiseGrad and FusionGrad have in common."""

import warnings
from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from salience.core.classifier import Classifier
from salience.core.draws import Stream
from salience.core.errors import CollapseWarning
from salience.core.explainer import Explainer, MonteCarlo
from salience.core.montecarlo import Done, Draws
from salience.core.types import Images, Targets
from salience.perturb.tune import tuned_weight_sigma
from salience.perturb.weights import WeightNoise

Sigma = float | Literal["auto"]


class AverageOverWeights(MonteCarlo):
    """Averages an explanation over draws of weights, each shared by all images of a call."""

    base: Explainer
    weight_samples: int
    weight_sigma: Sigma
    absolute: bool
    auto_share: ClassVar[float] = 1.0

    @property
    def draws(self) -> int:
        """The draws of weights are the independent ones."""
        return self.weight_samples

    @property
    def averaged(self) -> Explainer:
        """The explanation made with each draw of weights."""
        return self.base

    def prepare(self, model: Classifier, images: Images) -> Classifier:
        """With ``weight_sigma=auto``, the level of noise of this model: one for all draws and all that happens within."""
        if self.weight_sigma == "auto" and model.weight_sigma is None:
            model = model.using(weight_sigma=tuned_weight_sigma(model, images))
        return super().prepare(model, images)

    def at_once(self, model: Classifier, images: Images) -> int:
        """Draws of weights are made one at a time; the explanation within chunks its images itself."""
        return 1

    def sampler(self, model: Classifier, images: Images, targets: Targets, streams: Sequence[Stream]) -> Callable[[range, Tensor], Draws]:
        """One draw: the weights multiplied by noise, and the explanation of all images under them."""
        weights = WeightNoise(model)
        clean = model.outputs(images).argmax(1)
        sigma = self.auto_share * tuned_weight_sigma(model, images) if self.weight_sigma == "auto" else self.weight_sigma

        score = model.bound_score

        def under_noise(group: Tensor, number: int) -> tuple[Tensor, dict[str, Tensor]]:
            """Maps and notes of images that share their weight draws."""
            chosen = [streams[image] for image in group.tolist()]
            with weights.applied(chosen[0], number, sigma):
                made = self.averaged.attribute(model, images[group], targets[group], [stream.at(number) for stream in chosen])
                outputs = model.outputs(images[group]) if made.outputs is None else made.outputs
            noted = {
                "noisy_score": score.of(outputs, targets[group]),
                "class_kept": (outputs.argmax(1) == clean[group]).float(),
                "weight_sigma": torch.full((len(group),), float(sigma)),
            }
            return made.maps.abs() if self.absolute else made.maps, made.notes | noted

        def draw(draws: range, active: Tensor) -> Draws:
            keys = [streams[image].weights for image in active.tolist()]
            groups = [torch.tensor([place for place, key in enumerate(keys) if key == each]) for each in dict.fromkeys(keys)]
            parts = [under_noise(active[group], draws.start) for group in groups]
            back = torch.cat(groups).argsort()
            maps = torch.cat([maps for maps, _ in parts])[back]
            notes = {name: torch.cat([noted[name].detach().float().cpu() for _, noted in parts])[back] for name in parts[0][1]}
            return Draws(maps[None], notes={name: note[None] for name, note in notes.items()})

        return draw

    def sample(self, model: Classifier, images: Images, targets: Targets, streams: Sequence[Stream], tolerance: float | None = None, errors: bool = True) -> Done:
        """Make the draws, and warn if the noise destroyed the network."""
        done = super().sample(model, images, targets, streams, tolerance, errors)
        kept = done.notes["class_kept"]
        if (kept < 0.5).any():
            share, sigma = kept.min().item(), done.notes["weight_sigma"].max().item()
            warnings.warn(
                f"{self.name}: with weight noise {sigma:.3g} only {share:.0%} of the draws keep the predicted class of an image: most of its map is of networks that see another. Use a smaller weight_sigma, unless two classes are nearly tied there.",
                CollapseWarning,
                stacklevel=2,
            )
        return done
