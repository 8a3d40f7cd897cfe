"""What exists: every explainer, metric, attack... registers itself, in its own file, under its name.

`entries` finds the files by itself, so a new method is one new file and no list to keep.
"""

import dataclasses
import importlib
import importlib.metadata
import inspect
import pkgutil
import typing
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from salience.core.errors import InputError

PACKAGES = {
    "explainer": "salience.explainers",
    "metric": "salience.metrics",
    "similarity": "salience.similarities",
    "dataset": "salience.zoo.data",
    "perturbation": "salience.perturbations salience.attacks",
    "threat": "salience.attacks",
    "objective": "salience.attacks",
    "architecture": "salience.training.architectures",
    "recipe": "salience.training",
}
"""Where the files of each kind live."""


@dataclass(frozen=True)
class Entry:
    """One registered class and the facts declared about it (each fact is tested)."""

    name: str
    cls: type
    facts: dict[str, Any]

    @property
    def summary(self) -> str:
        """The first line of the class's docstring."""
        return (inspect.getdoc(self.cls) or "").split("\n", 1)[0]


_entries: dict[str, dict[str, Entry]] = {kind: {} for kind in PACKAGES}
_names: dict[type, tuple[str, str]] = {}


@typing.dataclass_transform(frozen_default=True)
def register(kind: str, name: str, **facts: Any) -> Callable[[type], type]:
    """Class decorator: make a class a frozen dataclass, known under a name.

    Args:
        kind: For example ``"explainer"``.
        name: What users type. ``"captum:*"`` names a family: ``captum:DeepLift`` then calls the
            class with ``member="DeepLift"``.
        facts: Declared properties, for example ``stochastic=True``.

    Raises:
        ValueError: If another class has the name already.
    """

    def add(cls: type) -> type:
        cls = dataclasses.dataclass(frozen=True, repr=False)(cls)
        old = _entries[kind].get(name)
        if old is not None and (old.cls.__module__, old.cls.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ValueError(f"{kind} {name!r} is registered by {old.cls.__module__}.{old.cls.__qualname__} already")
        _entries[kind][name] = Entry(name, cls, facts)
        _names[cls] = (kind, name)
        return cls

    return add


def entries(kind: str) -> dict[str, Entry]:
    """All registered classes of a kind, by name, sorted."""
    _import_all(kind)
    return dict(sorted(_entries[kind].items()))


@cache
def _import_all(kind: str) -> None:
    """Import every file in which classes of a kind may register themselves."""
    for package in map(importlib.import_module, PACKAGES[kind].split()):
        for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
            importlib.import_module(module.name)
    _import_others()


@cache
def _import_others() -> None:
    """Import what other packages name under ``salience`` in their entry points: classes of theirs register themselves there.

    Raises:
        InputError: If one cannot be imported.
    """
    for point in importlib.metadata.entry_points(group="salience"):
        try:
            point.load()
        except Exception as error:  # the other package's code: whatever it raises is what there is to say
            raise InputError(f"{point.value}, which an installed package adds to salience, cannot be imported ({type(error).__name__}: {error}): mend or uninstall that package.") from error


def name_of(cls: type) -> str:
    """The name a class is registered under, or its own name if it is not."""
    return _names[cls][1] if cls in _names else cls.__name__


def facts_of(cls: type) -> dict[str, Any]:
    """The facts declared when a class was registered; none if it was not."""
    if cls not in _names:
        return {}
    kind, name = _names[cls]
    return _entries[kind][name].facts
