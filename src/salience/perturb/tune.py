"""The level of noise, in the weights or in the image, at which a network begins to lose its classes.

What `salience tune` found is kept in files, so that ``weight_sigma=auto`` need not search again.
"""

import json
import math
import os
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from salience.core.classifier import Classifier
from salience.core.draws import Stream, in_threads
from salience.core.errors import InputError
from salience.core.files import write_whole
from salience.core.types import Images, Outputs
from salience.perturb.noise import strength
from salience.perturb.weights import WeightNoise

TARGET_DROP = 0.05 - 1e-9
"""The relative drop of the accuracy that is sought: 5 %, less what rounding can take from it. With few images a drop of just 5 % is common."""

DRAWS = 20
LARGEST = 1.0

WEIGHT_LEVELS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, LARGEST)
"""Weight noise that is tried first, until the drop is reached."""

LEVEL = "weight_sigma"
"""Name of the record that says which level ``weight_sigma=auto`` takes."""

BRACKET = 0.05
"""Relative width of the bracket at which a search ends."""

SMALLEST = 1e-5
"""Where a search downwards ends: a network that loses its classes below has lost them without noise."""

UnitNoise = Callable[[Stream, Sequence[int], int], Tensor]
"""One draw of input noise of strength 1: from a stream, for a shape, with a number."""


class CacheWarning(UserWarning):
    """A file of noise levels cannot be read or written; the levels are searched again."""


def gaussian(stream: Stream, shape: Sequence[int], draw: int) -> Tensor:
    """Standard normal input noise, as in SmoothGrad."""
    return stream.normal(shape, "input noise", draw)


class Noisy:
    """A network under noise: draw i is the same noise at every strength (common random numbers).

    All images share the noise in the weights, as in the methods; each image has input noise of its own.

    Args:
        model: The network, a white box if its weights get noise; frozen by the caller.
        images: (n, c, h, w), on the model's device.
        seed: Seed of the draws.
        noise: Input noise of strength 1.
    """

    def __init__(self, model: Classifier, images: Images, *, seed: int = 0, noise: UnitNoise = gaussian) -> None:
        self.model, self.images, self.noise = model, images, noise
        self.streams = [Stream((seed, "tune", place), (seed,)) for place in range(len(images))]

    @cached_property
    def weights(self) -> WeightNoise:
        """Draws of weights."""
        return WeightNoise(self.model)

    def outputs(self, draw: int, weight_sigma: float, noise_level: float = 0.0) -> Outputs:
        """What the network returns in one draw, unchecked: strong noise can make scores overflow.

        Args:
            draw: Number of the draw.
            weight_sigma: sd of the multiplicative weight noise.
            noise_level: Strength of the input noise, as a share of each image's range.

        Returns:
            (n, k). One forward pass an image.
        """
        with self.weights.applied(self.streams[0], draw, weight_sigma) if weight_sigma else nullcontext(), torch.no_grad():
            return torch.cat([self.model._forward(self._noisy(part, draw, noise_level)) for part in self.model.chunks(self.images, gradients=False)])

    def _noisy(self, part: slice, draw: int, level: float) -> Images:
        images = self.images[part]
        if not level:
            return images
        chosen = self.streams[part]
        drawn = torch.stack(in_threads(lambda place: self.noise(chosen[place], images.shape[1:], draw), range(len(chosen))))
        return torch.addcmul(images, strength(images, level, None), drawn.to(images.device))


def predictions(outputs: Outputs) -> Tensor:
    """Predicted classes; a network whose scores overflow under noise predicts none (-1)."""
    return torch.where(torch.isfinite(outputs).all(1), outputs.nan_to_num().argmax(1), -1)


def accuracy_drop(model: Classifier, images: Images, sigma: float, *, draws: int = DRAWS, seed: int = 0) -> float:
    """Relative accuracy drop under weight noise, with the clean predictions as labels.

    1 - (ACC(sigma) - ACC(inf)) / (ACC(0) - ACC(inf)) with ACC(0) = 1 and ACC(inf) = 1 / classes. The same
    draws serve every sigma (common random numbers).

    Args:
        model: A white box.
        images: (n, c, h, w).
        sigma: sd of the multiplicative weight noise.
        draws: Draws of weights averaged over.
        seed: Seed of the draws.

    Raises:
        InputError: If the model has a single output, so that there is no class to lose.

    Source: "NoiseGrad" (2022), eq. 5. Cost: draws x n forward passes.
    """
    clean = model.outputs(images)
    if clean.shape[1] == 1:
        raise InputError(f"{model.name} has a single output, so noise in its weights can never change the class, which is how its level is found: give weight_sigma, for example 0.1.")
    labels, chance = clean.argmax(1), 1 / clean.shape[1]
    noisy = Noisy(model, images, seed=seed)
    kept = sum((predictions(noisy.outputs(draw, sigma)) == labels).float().mean().item() for draw in range(draws))
    return 1 - (kept / draws - chance) / (1 - chance)


def smallest_crossing(drop: Callable[[float], float], levels: Sequence[float]) -> float | None:
    """The smallest level at which a drop reaches 5 %: levels upwards, then bisection below the first that does, to 5 % of the level.

    A drop need not grow with the noise, so no level above the first that reaches 5 % is asked. A
    crossing and its return between two neighbouring levels go unseen. (The drop itself is no measure to stop the bisection
    by: with few images it moves in steps.)

    Args:
        drop: The drop at a level; without noise it is 0.
        levels: Tried first, upwards.

    Returns:
        The upper end of the last bracket, where the drop is at least 5 %; None if no level reaches it.
    """
    low = 0.0
    for high in levels:
        if drop(high) >= TARGET_DROP:
            break
        low = high
    else:
        return None
    while high - low > BRACKET * high and high > SMALLEST:
        middle = (low + high) / 2
        if drop(middle) < TARGET_DROP:
            low = middle
        else:
            high = middle
    return high


def tuned_weight_sigma(model: Classifier, images: Images) -> float:
    """The smallest sigma at which the relative accuracy drop reaches 5 %.

    It is what `known_weight_sigma` says. Where nothing is known it is searched on the images given, and not kept: they may be few.

    Args:
        model: A white box.
        images: The images to search on, with `DRAWS` draws of weights at each level.

    Returns:
        sd of the multiplicative weight noise; 1 if even that much does not reach the drop.

    Raises:
        InputError: If it must be searched and the model has a single output.

    Source: "NoiseGrad" (2022), eq. 5; the paper leaves the search open.
    """
    known = known_weight_sigma(model)
    if known is not None:
        return known
    found = smallest_crossing(lambda sigma: accuracy_drop(model, images, sigma), WEIGHT_LEVELS)
    return LARGEST if found is None else found


def cache_folder() -> Path:
    """Where noise levels are kept: $SALIENCE_CACHE, else salience in $XDG_CACHE_HOME or ~/.cache."""
    own = os.environ.get("SALIENCE_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "salience"


def kept(weights: str, name: str) -> dict | None:
    """A record kept for a network; None if there is none.

    One that cannot be read is said to be so, in a warning, and counts as none.

    Args:
        weights: The hash of the network's weights.
        name: Of the record.
    """
    path = _path(weights, name)
    try:
        record = json.loads(path.read_bytes())
        if record["weights"] != weights:
            raise ValueError("it is about other weights")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        warn_of(path, error)
        return None
    return record


def keep(weights: str, name: str, record: dict) -> None:
    """Keep a record for a network, whole or not at all; if it cannot be written, a warning says so."""
    path = _path(weights, name)
    try:
        write_whole(path, json.dumps({"weights": weights} | record, allow_nan=False, indent=1).encode())
    except ValueError as error:
        warnings.warn(f"The noise level found is not kept for next time: {error}", CacheWarning, stacklevel=1)


def known_weight_sigma(model: Classifier) -> float | None:
    """The level of weight noise of a model: the one it was given, else what `salience tune` last found for its weights, else the one that a named model carries; None if there is none."""
    if model.weight_sigma is not None:
        return model.weight_sigma
    kept_level = kept_weight_sigma(model)
    return kept_level or model.carried_weight_sigma or None


def kept_weight_sigma(model: Classifier) -> float | None:
    """The level of weight noise that `salience tune` last found for a model's weights; None if it found none."""
    if not (cache_folder() / "tune").is_dir():
        return None
    weights = model.weights_hash()
    record = None if weights is None else kept(weights, LEVEL)
    if record is None:
        return None
    sigma = record.get("weight_sigma")
    if isinstance(sigma, int | float) and math.isfinite(sigma) and 0 < sigma <= LARGEST:
        return float(sigma)
    warn_of(level_file(record["weights"]), f"weight_sigma is {sigma!r}")
    return None


def level_file(weights: str) -> Path:
    """Where the level for some weights is kept."""
    return _path(weights, LEVEL)


def keep_weight_sigma(weights: str, sigma: float, record: dict) -> None:
    """Make a level what ``weight_sigma=auto`` takes for a network.

    Args:
        weights: The hash of the network's weights.
        sigma: The level.
        record: How it was found.
    """
    keep(weights, LEVEL, record | {"weight_sigma": sigma})


def warn_of(path: Path | str, fault: object) -> None:
    """Say that a file of noise levels is of no use."""
    warnings.warn(f"The noise level kept in {path} cannot be used ({fault}), so it is searched anew: delete that file.", CacheWarning, stacklevel=1)


def _path(weights: str, name: str) -> Path:
    return cache_folder() / "tune" / weights[:32] / f"{name}.json"
