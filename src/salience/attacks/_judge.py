"""What an attack is judged by: maps of the network itself, and whether a method's maps can be attacked at all."""

import dataclasses
from dataclasses import dataclass

from salience.core import registry
from salience.core.classifier import Classifier
from salience.core.draws import Stream
from salience.core.errors import InputError
from salience.core.explainer import Explainer, MonteCarlo
from salience.core.types import Images, Maps, Targets

HELD_OUT = 50
"""Draws of a random method, at least, for the figures that are reported."""


@dataclass(frozen=True)
class Judge:
    """The maps that are reported: those of the network itself, a random method's from draws held out.

    Attributes:
        view: The network, with the score bound.
        method: The explanation.
        targets: Class explained, (n,).
        streams: Where each image takes its randomness from.
        draws: Name of the draws: what chooses the best of several runs must not be what judges it.
    """

    view: Classifier
    method: Explainer
    targets: Targets
    streams: list[Stream]
    draws: str = "held out"

    def maps(self, images: Images) -> Maps:
        """The maps, on the images' device."""
        return with_draws(self.method).attribute(self.view, images.detach(), self.targets, [stream.at(self.draws) for stream in self.streams]).maps.detach().float()

    def chooser(self, part: slice) -> "Judge":
        """What chooses among runs of some of the images."""
        return dataclasses.replace(self, targets=self.targets[part], streams=self.streams[part], draws="choice")


def is_random(method: Explainer) -> bool:
    """Whether a method draws at random, itself or in its base."""
    base = getattr(method, "base", None)
    return isinstance(method, MonteCarlo) or (isinstance(base, Explainer) and is_random(base))


def with_draws(method: Explainer) -> Explainer:
    """The method with at least `HELD_OUT` independent draws, if it is random: its own, or those of what it wraps."""
    base = getattr(method, "base", None)
    if isinstance(method, MonteCarlo):
        return dataclasses.replace(method, samples=max(method.samples, HELD_OUT)) if hasattr(method, "samples") else method  # type: ignore[call-arg]  # it has the field
    return dataclasses.replace(method, base=with_draws(base)) if isinstance(base, Explainer) else method  # type: ignore[call-arg]  # it has a base


def not_differentiable(method: Explainer) -> InputError:
    return InputError(
        f"The maps of {method} are not differentiable, so they cannot be attacked: take gradient, input_x_gradient, integrated_gradients, smoothgrad, uniformgrad, beta_smoothing or gradcam."
    )


def check_differentiable(method: Explainer) -> None:
    """Refuse what is known to use scores only; what else has no derivative shows when it is run."""
    base = getattr(method, "base", None)
    if isinstance(base, Explainer):
        check_differentiable(base)
    entry = registry.entries("explainer").get(method.name)
    if entry is not None and not entry.facts.get("needs_gradient", True):
        raise not_differentiable(method)
