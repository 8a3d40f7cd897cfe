"""What a threat is: a way to change images, with parameters, a budget and a penalty of its own."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from salience.core import registry
from salience.core.draws import Stream
from salience.core.options import Options
from salience.core.types import Images, PerImage

INSIDE = 1e-6
"""Projection stops this share short of the budget, so that rounding cannot carry the parameters over it."""

ROUNDING = 2.0**-24
"""What rounding can add to a change of a pixel in [0, 1], in float32."""


class Threat(Options):
    """Base of all threats: a frozen dataclass with a docstring and the functions below.

    All have the fields ``budget`` (its unit is the threat's own), ``rate`` (the optimiser's step, as a share of the budget)
    and ``weight`` (of `penalty` in the loss).

    Attributes:
        place: Where it comes when several are combined: the lower the earlier.
    """

    kind = "threat"
    expected = "A threat is a name such as 'delta', or a threat such as sal.Delta(budget=0.05)"
    place: ClassVar[int]
    budget: float
    rate: float
    weight: float

    def start(self, images: Images) -> Tensor:
        """Parameters (n, ...) that leave the images as they are."""
        raise NotImplementedError

    def apply(self, images: Images, parameters: Tensor) -> Images:
        """The changed images (n, c, h, w) in [0, 1], differentiable in both arguments."""
        raise NotImplementedError

    def project(self, images: Images, parameters: Tensor) -> Tensor:
        """The nearest parameters within the budget that keep the images in [0, 1]."""
        raise NotImplementedError

    def random(self, images: Images, streams: Sequence[Stream]) -> Tensor:
        """Parameters drawn at random that use the whole budget."""
        raise NotImplementedError

    def penalty(self, parameters: Tensor) -> PerImage:
        """What keeps the change inconspicuous: 0 for threats that have nothing but their budget."""
        return parameters.new_zeros(len(parameters))

    def step(self, images: Images) -> float:
        """How far one step of the optimiser moves a parameter."""
        return self.rate * self.budget

    def used(self, parameters: Tensor) -> PerImage:
        """How much of the budget is used, in its unit."""
        return parameters.reshape(len(parameters), -1).abs().amax(1)


class Threats:
    """The type of a field that takes one threat or several; it holds a tuple of them."""

    @staticmethod
    def from_value(value: object) -> tuple[Threat, ...]:
        """Threats from a text in which ``+`` joins them, from one threat, or from several in a list."""
        parts = value.split("+") if isinstance(value, str) else value if isinstance(value, tuple | list) else (value,)
        return tuple(Threat.from_value(part.removeprefix("(").removesuffix(")") if isinstance(part, str) else part) for part in parts)


def list_threats() -> list[str]:
    """The names of all threats."""
    return list(registry.entries("threat"))
