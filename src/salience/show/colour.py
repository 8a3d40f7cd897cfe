"""From map values to colours: scales, colour maps, and which pixels are within their error of nothing."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from salience.core import registry
from salience.core.errors import InputError
from salience.core.explanation import Explanation
from salience.core.reduction import is_flat, less_mean
from salience.core.spec import build

PERCENTILE = 99.5
"""Share of pixels within the colour scale, in percent: single extreme pixels do not set it."""

LEVEL = 0.95
"""Confidence of the intervals that decide which pixels are shown grey."""

OFFSET = 0.25
"""An unsigned map that stays above this share of its top has no natural zero: it is compared with its mean."""

AGAINST = ((0.02, 0.13, 0.45), (0.05, 0.33, 0.78), (0.30, 0.60, 0.96), (0.80, 0.80, 0.80))
"""Blues from the strongest evidence against the class to none."""

FOR = ((0.80, 0.80, 0.80), (1.00, 0.50, 0.40), (0.89, 0.15, 0.15), (0.50, 0.00, 0.12))
"""Reds from no evidence to the strongest for the class."""

HEAT = ((1.00, 0.98, 0.78), (0.99, 0.80, 0.36), (0.97, 0.50, 0.20), (0.82, 0.16, 0.22), (0.42, 0.01, 0.22))
"""From little to much, without a sign."""

INK = ((0.99, 0.99, 0.99), (0.80, 0.84, 0.88), (0.50, 0.58, 0.68), (0.22, 0.30, 0.42), (0.05, 0.09, 0.18))
"""For errors, so that they are never taken for a map."""


@dataclass(frozen=True)
class Scale:
    """How values become colours.

    Attributes:
        low: Value of the first colour.
        high: Value of the last colour.
        signed: Whether the colours diverge from the middle, the value that says nothing.
        colours: Anchors of the colour map, evenly spaced.
    """

    low: float
    high: float
    signed: bool
    colours: tuple[tuple[float, float, float], ...]

    def colour(self, values: np.ndarray) -> np.ndarray:
        """RGB in [0, 1] of values of any shape; what lies outside the scale takes its end."""
        place = np.clip((values - self.low) / (self.high - self.low), 0, 1)
        anchors = np.linspace(0, 1, len(self.colours))
        return np.stack([np.interp(place, anchors, channel) for channel in zip(*self.colours, strict=True)], -1)

    def strength(self, values: np.ndarray) -> np.ndarray:
        """How far along the scale values are, from 0 (nothing) to 1 (full colour)."""
        base = (self.low + self.high) / 2 if self.signed else self.low
        return np.clip(np.abs(values - base) / (self.high - base), 0, 1)


def scale_of(values: np.ndarray, *, signed: bool, middle: float = 0.0) -> Scale:
    """The colour scale of a map: symmetric about its middle if it is signed, else from its bottom to its top.

    Args:
        values: The map, any shape.
        signed: Whether it is shown in diverging colours.
        middle: The value that says nothing, of a signed map.
    """
    if signed:
        distance = np.abs(values - middle)
        limit = _positive(np.percentile(distance, PERCENTILE), distance)
        return Scale(middle - limit, middle + limit, True, AGAINST + FOR[1:])
    high = _positive(np.percentile(values, PERCENTILE), values)
    low = float(np.percentile(values, 100 - PERCENTILE))
    return Scale(low if OFFSET * high < low < high else 0.0, high, False, HEAT)


def error_scale(values: np.ndarray) -> Scale:
    """The colour scale of a map of standard errors: from zero, or from its bottom if it is nearly even."""
    known = values[np.isfinite(values)]
    return replace(scale_of(known, signed=False), colours=INK) if known.size else Scale(0.0, 1.0, False, INK)


def _positive(limit: float, values: np.ndarray) -> float:
    """A usable end of a scale; a map of zeros has none of its own."""
    if limit > 0:
        return float(limit)
    return float(values.max()) if values.size and values.max() > 0 else 1.0


def is_signed(e: Explanation) -> bool:
    """Whether the maps have two signs: by their values, unless a random unsigned method is only noisy about zero."""
    noisy_zero = e.stderr is not None and facts(e).get("signed") is False
    return bool((e.maps < 0).any()) and not noisy_zero


def about_its_mean(e: Explanation) -> bool:
    """Whether a value says nothing where it is the map's mean, not where it is 0: of masks that show a pixel, for example, scores are left whatever it is."""
    return facts(e).get("signed") is not False and declared(e, "neutral") == "mean"


def declared(e: Explanation, fact: str) -> Any:
    """What was declared of the method, or else of the nearest method within it that declares it; None if none does."""
    try:
        found = [each.facts.get(fact) for each in build("explainer", e.method).nested()]
    except InputError:  # a user's own function
        return None
    return next((each for each in found if each is not None), None)


def facts(e: Explanation) -> dict:
    """What was declared of the method when it was registered; nothing for a user's own function."""
    name, _, rest = e.method.partition(":")
    known = registry.entries("explainer")
    entry = known.get(name) or (known.get(f"{name}:*") if rest else None)
    return entry.facts if entry is not None else {}


@dataclass(frozen=True)
class Shown:
    """One image's map as it is drawn: (h, w) arrays in the geometry of the model's input.

    Attributes:
        values: The map, its channels summed; exactly constant if it is so up to rounding.
        stderr: Its standard error; None if the method is deterministic, or the error of the sum is not known.
        undecided: Pixels whose interval includes `reference`; None where there is no error.
        interval: What interval that is: in a file without blocks, of a map that is read against its mean, only that of the values is known.
        reference: The value that says nothing: zero; the mean of a map that is read against its mean, or of an unsigned one far from zero.
        scale: The colours.
    """

    values: np.ndarray
    stderr: np.ndarray | None
    undecided: np.ndarray | None
    interval: str
    reference: float
    scale: Scale


def shown(e: Explanation) -> list[Shown]:
    """What is drawn of each image: the map summed over its channels, and which pixels its error leaves open."""
    sums, errors = e.saliency("sum").double(), _errors(e)
    values = torch.stack([each[:1, :1].expand_as(each) if is_flat(each) else each for each in sums]).numpy()
    centred = about_its_mean(e)
    signed = centred or is_signed(e)
    distances = e.stderr_of(lambda maps: less_mean(maps).sum(-3)).double().numpy() if centred and e.stderr is not None and e.blocks is not None else errors
    interval = f"{LEVEL:.0%} interval" + (" of the value alone (saved without blocks)" if centred and e.blocks is None else "")
    found = []
    for index, each in enumerate(values):
        mean = float(each.mean() if np.ptp(each) else each[0, 0])  # the mean of equal numbers may differ from them in its last bit
        scale = scale_of(each, signed=signed, middle=mean if centred else 0.0)
        reference = mean if centred or (not signed and scale.low > 0) else 0.0
        undecided = None if distances is None else ~(np.abs(each - reference) > _quantile(e, index, distances is errors and e.maps.shape[1] == 1) * distances[index])
        found.append(Shown(each, None if errors is None else errors[index], undecided, interval, reference, scale))
    return found


def _errors(e: Explanation) -> np.ndarray | None:
    """Standard errors of the channel sums (n, h, w), if they can be had."""
    if e.stderr is None:
        return None
    if e.stderr.shape[1] == 1:
        return e.stderr[:, 0].double().numpy()
    try:
        return e.saliency_stderr("sum").double().numpy()
    except InputError:  # saved without its blocks
        return None


def _quantile(e: Explanation, index: int, plain: bool) -> float:
    """Student's t for a two-sided interval of a `plain` error, of the map's own values, or of one from blocks of draws; infinite where a single draw leaves the error unknown."""
    from scipy.stats import t

    freedom = float((torch.as_tensor(e.df) if plain else e.saliency_df)[index])
    return float(t.ppf((1 + LEVEL) / 2, freedom)) if freedom > 0 else float("inf")
