"""Imports that leave Python's global random numbers alone."""

import random
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def same_random_numbers() -> Iterator[None]:
    """Python's global generator is afterwards as it was: rich, which other libraries bring along, draws from it once, when it is imported."""
    state = random.getstate()
    try:
        yield
    finally:
        random.setstate(state)
