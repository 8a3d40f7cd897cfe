"""What exists: every explainer, metric, attack... registers itself, in its own file, under its name.

`entries` finds the files by itself, so a new method is one new file and no list to keep.
"""

import dataclasses
import importlib
import inspect
import pkgutil
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from salience.core.errors import InputError, unknown

PACKAGES = {"explainer": "salience.explainers"}
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
    package = importlib.import_module(PACKAGES[kind])
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
    return dict(sorted(_entries[kind].items()))


def name_of(cls: type) -> str:
    """The name a class is registered under, or its own name if it is not."""
    return _names[cls][1] if cls in _names else cls.__name__


def facts_of(cls: type) -> dict[str, Any]:
    """The facts declared when a class was registered."""
    kind, name = _names[cls]
    return _entries[kind][name].facts


def build(kind: str, text: str) -> Any:
    """The object that a specification such as ``smoothgrad:samples=20,base=(gradient)`` describes.

    Args:
        kind: For example ``"explainer"``.
        text: ``name``, or ``name:key=value,...``; brackets nest.

    Raises:
        InputError: For an unknown name or option, or brackets that do not match.
    """
    known = entries(kind)
    text = _strip_brackets(text.strip())
    name, _, rest = text.partition(":")
    given: dict[str, str] = {}
    member, _, after = rest.partition(":")
    if f"{name}:*" in known and member and "=" not in member:
        given["member"], name, rest = member, f"{name}:*", after
    if name not in known:
        what = "method" if kind == "explainer" else kind
        raise unknown(what, name, [each.replace("*", "NAME") for each in known])
    cls = known[name].cls
    fields = [field for field in cls.__dataclass_fields__ if field != "member"]
    for item in _split(rest):
        key, equals, value = item.partition("=")
        if not equals:
            raise InputError(f"{text!r}: options are written key=value, not {item!r}.")
        if key.strip() not in fields:
            if not fields:
                raise InputError(f"{name} has no options, so {key.strip()!r} cannot be set.")
            raise unknown(f"option of {name}:", key.strip(), fields)
        given[key.strip()] = _strip_brackets(value.strip())
    return cls(**given)


def _strip_brackets(text: str) -> str:
    while text.startswith("(") and text.endswith(")"):
        text = text[1:-1].strip()
    return text


def _split(text: str) -> list[str]:
    """Split at commas outside brackets."""
    items, depth, start = [], 0, 0
    for position, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth < 0:
            break
        if letter == "," and depth == 0:
            items.append(text[start:position])
            start = position + 1
    if depth != 0:
        raise InputError(f"Brackets do not match in {text!r}.")
    items.append(text[start:])
    return [item for item in items if item.strip()]
