"""Which versions something was made with."""

import contextlib
import functools
import platform
import re
import warnings
from collections.abc import Mapping
from importlib import metadata

import numpy as np
import torch

import salience


def versions_here() -> dict[str, str]:
    """What the last digits of a number depend on."""
    return {"salience": salience.__version__, "torch": torch.__version__, "numpy": np.__version__, "python": platform.python_version(), "machine": platform.machine()}


@functools.cache
def all_versions() -> dict[str, str]:
    """The versions of salience, Python and the libraries that salience builds on, by their names; those that are not installed as packages are left out."""
    found = {"salience": salience.__version__, "torch": str(torch.__version__)}
    with contextlib.suppress(metadata.PackageNotFoundError):
        for requirement in metadata.requires("salience") or ():
            if "extra ==" not in requirement:
                name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
                found.setdefault(name, metadata.version(name))
    return found | {"python": platform.python_version()}


def warn_of_versions(old: Mapping[str, str], new: Mapping[str, str], what: str, made: str) -> None:
    """Warn if something is continued with other versions than it began with.

    Args:
        old: `versions_here` then.
        new: Now.
        what: What is continued: "study".
        made: What it makes: "rows".
    """
    if old != new:
        parts = ", ".join(f"{name} {old.get(name)} then, {value} now" for name, value in new.items() if old.get(name) != value)
        warnings.warn(f"The {what} began with other versions ({parts}): its {made} may differ in the last digits.", UserWarning, stacklevel=4)
