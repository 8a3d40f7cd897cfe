"""The one exception that means "the input is at fault": one sentence that says what to do."""

import difflib
import re
from collections.abc import Iterable


class InputError(ValueError):
    """Something the caller gave cannot be used; the message says what to give instead."""


class UndefinedError(InputError):
    """A metric has no value for an image; the message names the image and says why."""


class CollapseWarning(UserWarning):
    """The networks that were averaged mostly see another class than the network itself: the map explains those."""


def lacks_memory(error: BaseException) -> bool:
    """Whether an error says that the memory is full, of the machine or of a device."""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or re.search(r"allocate memory|not enough memory", str(error)) is not None


def nth(place: int, count: int) -> str:
    """How a sentence calls one of `count` images: by its number, or as the only one."""
    return "the image" if count == 1 else f"image {place + 1}"


def unknown(what: str, name: str, known: Iterable[str]) -> InputError:
    """An `InputError` for an unknown name, offering the nearest known ones.

    Args:
        what: What the name should have been, for example ``"method"``.
        name: The name that was given.
        known: The names that exist.
    """
    names = sorted(known)
    folded = {candidate.lower(): candidate for candidate in names}
    near = [folded[match] for match in difflib.get_close_matches(name.lower(), folded, n=3, cutoff=0.5)]
    near += [candidate for candidate in names if name and name.lower() in candidate.lower() and candidate not in near]
    offer = f"did you mean {', '.join(near[:3])}?" if near else f"known: {', '.join(names[:40])}."
    return InputError(f"Unknown {what} {name!r}: {offer}")
