"""Specifications: what a method is called on the command line, in files and in records."""

import dataclasses
import typing
from typing import Any

from salience.core import registry
from salience.core.errors import InputError, unknown
from salience.core.options import convert


def written(text: str) -> set[str]:
    """The names of the options that a specification spells out, whatever their values."""
    return {item.partition("=")[0].strip() for item in _split(_strip_brackets(text.strip()).partition(":")[2])}


def build(kind: str, text: str) -> Any:
    """The object that a specification such as ``smoothgrad:samples=20,base=(gradient)`` describes.

    Args:
        kind: For example ``"explainer"``.
        text: ``name``, or ``name:key=value,...``; brackets nest.

    Raises:
        InputError: For an unknown name or option, one that is given twice, or brackets that do not match.
    """
    known = registry.entries(kind)
    text = _strip_brackets(text.strip())
    name, _, rest = (part.strip() for part in text.partition(":"))
    given: dict[str, Any] = {}
    member, _, after = rest.partition(":")
    if f"{name}:*" in known and member and "=" not in member:
        name, rest, given["member"] = f"{name}:*", after, member
    if name not in known:
        what = "method" if kind == "explainer" else kind
        raise unknown(what, name, [each.replace("*", "NAME") for each in known])
    cls = known[name].cls
    hints = typing.get_type_hints(cls, include_extras=True)
    fields = [field.name for field in dataclasses.fields(cls) if field.name != "member"]
    for item in _split(rest):
        key, equals, value = item.partition("=")
        if not equals:
            raise InputError(f"{text!r}: options are written key=value, not {item!r}.")
        if key.strip() not in fields:
            if not fields:
                raise InputError(f"{name} has no options, so {key.strip()!r} cannot be set.")
            raise unknown(f"option of {name}:", key.strip(), fields)
        if key.strip() in given:
            raise InputError(f"{text!r}: {key.strip()} is given twice; options of a base stand in brackets, base=(NAME:key=value).")
        given[key.strip()] = convert(_strip_brackets(value.strip()), hints[key.strip()], f"{name}: {key.strip()}")
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
