"""What the methods that add noise to the input have in common."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from salience.core.classifier import Classifier
from salience.core.draws import Stream, in_threads, stack
from salience.core.explainer import Explainer, MonteCarlo
from salience.core.montecarlo import Draws
from salience.core.types import Images, Maps, Targets
from salience.perturb.noise import check_strength, strength


class InputNoise(MonteCarlo):
    """Averages a base explanation over noise in the input; subclasses say which noise and what of the map.

    All have the fields ``base``, ``samples``, ``noise_level``, ``sigma`` and most have ``absolute``.
    """

    base: Explainer
    samples: int
    noise_level: float | None
    sigma: float | None

    def __post_init__(self) -> None:
        """Check the options, and that only one strength is given."""
        super().__post_init__()
        check_strength(self.name, self.noise_level, self.sigma)

    def noise(self, stream: Stream, shape: Sequence[int], draw: int) -> Tensor:
        """Noise of unit strength for one draw; Gaussian unless a method says otherwise."""
        return stream.normal(shape, "input noise", draw)

    def value(self, maps: Maps) -> Maps:
        """What is averaged: the map, or its absolute value if ``absolute`` is set."""
        return maps.abs() if getattr(self, "absolute", False) else maps

    def sampler(self, model: Classifier, images: Images, targets: Targets, streams: Sequence[Stream]) -> Callable[[range, Tensor], Draws]:
        """One draw: the base's map of the image with noise added."""
        scale = strength(images, self.noise_level, self.sigma)
        shape = images.shape[1:]

        def draw(draws: range, active: Tensor) -> Draws:
            chosen = [streams[image] for image in active.tolist()]
            clean, size = images[active], scale[active]
            drawn = in_threads(lambda i: stack(chosen, partial(self.noise, shape=shape, draw=i)), draws)
            noisy = [torch.addcmul(clean, size, noise.to(images.device)) for noise in drawn]
            inner = [stream.at(i) for i in draws for stream in chosen]
            made = self.base.attribute(model, torch.cat(noisy), targets[active].repeat(len(draws)), inner)
            return Draws(*tree_map_only(Tensor, lambda each: each.unflatten(0, (len(draws), len(active))), (self.value(made.maps), made.notes)))

        return draw
