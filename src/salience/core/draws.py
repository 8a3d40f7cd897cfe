"""Random draws that depend on nothing but the seed, what is drawn and its number.

Draw i of a stream is made alone, on the CPU, in float32, from a generator keyed by
SHA-256(seed, stream, i). So it is bitwise the same under any chunking, batch, thread count and
device, and the first 500 of 4000 draws are the draws of 500.

NumPy's generators are used instead of torch's because torch's CPU generator keeps only 32 bits of
its seed, and because one torch call is not prefix-stable.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from salience.core.errors import InputError

Part = int | str
T = TypeVar("T")


@dataclass(frozen=True)
class Stream:
    """A place in the tree of draws: where a call, or a nested call, takes its randomness from.

    Attributes:
        key: The path from the seed to here.
        weights: The path used for draws of network weights, which all images of a call share even
            when every image has a seed of its own.
    """

    key: tuple[Part, ...]
    weights: tuple[Part, ...]

    def at(self, *parts: Part) -> "Stream":
        """The stream of a nested call: outer draw `parts` has inner draws of its own."""
        return Stream((*self.key, *parts), (*self.weights, *parts))

    def generator(self, *parts: Part) -> np.random.Generator:
        """The generator of one numbered draw, for example ``generator("masks", 17)``."""
        return _generator((*self.key, *parts))

    def weight_generator(self, *parts: Part) -> np.random.Generator:
        """The generator of one numbered draw of network weights."""
        return _generator((*self.weights, *parts))

    def normal(self, shape: Sequence[int], *parts: Part) -> Tensor:
        """One draw of standard normal numbers, float32, contiguous, on the CPU."""
        return torch.from_numpy(self.generator(*parts).standard_normal(tuple(shape), dtype=np.float32))

    def uniform(self, shape: Sequence[int], *parts: Part) -> Tensor:
        """One draw of uniform numbers in [0, 1), float32, contiguous, on the CPU."""
        return torch.from_numpy(self.generator(*parts).random(tuple(shape), dtype=np.float32))


def _generator(key: tuple[Part, ...]) -> np.random.Generator:
    digest = hashlib.sha256(json.dumps(key).encode()).digest()
    words = np.frombuffer(digest, dtype="<u4")
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence([int(word) for word in words])))


Integer = int | np.integer
Seed = Integer | Sequence[Any]
"""An int; or one int an image; or one pair (image seed, weight seed) an image."""


def streams(seed: Seed, n: int) -> list[Stream]:
    """One stream per image.

    Args:
        seed: One int for all images (they share their draws); or one int an image; or one pair
            (image seed, weight seed) an image, when images have noise and masks of their own but
            share the draws of network weights.
        n: The number of images.

    Raises:
        InputError: If there are not as many seeds as images, or one is not an integer.
    """
    if isinstance(seed, Tensor | np.ndarray):
        seed = seed.tolist()
    if not isinstance(seed, Integer | Iterable):
        raise InputError(f"A seed is an int, one int per image, or one pair of ints (image, weights) per image, not {type(seed).__name__}.")
    seeds: list[Any] = [seed] * n if isinstance(seed, Integer) else list(seed)
    if len(seeds) != n:
        raise InputError(f"{len(seeds)} seeds were given for {n} images: give one int, or one int per image.")
    pairs = [tuple(each) if isinstance(each, tuple | list) else (each, each) for each in seeds]
    if any(len(pair) != 2 or not all(isinstance(part, Integer) for part in pair) for pair in pairs):
        raise InputError("A seed is an int, one int per image, or one pair of ints (image, weights) per image.")
    return [Stream((int(own),), (int(shared),)) for own, shared in pairs]


def in_threads(make: Callable[[int], T], numbers: Iterable[int]) -> list[T]:
    """`make` of each number, in as many threads as torch uses: NumPy's generators run side by side."""
    numbers = list(numbers)
    threads = min(torch.get_num_threads(), len(numbers))
    if threads < 2:
        return [make(number) for number in numbers]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(make, numbers))


def stack(streams: Sequence[Stream], draw: Callable[[Stream], Tensor]) -> Tensor:
    """`draw` for each stream, made once for equal streams.

    Returns:
        Tensor ``(n, ...)``, or ``(1, ...)`` ready to broadcast if all streams are equal.
    """
    made = {stream.key: stream for stream in streams}
    drawn = {key: draw(stream) for key, stream in made.items()}
    if len(drawn) == 1:
        return next(iter(drawn.values()))[None]
    return torch.stack([drawn[stream.key] for stream in streams])
