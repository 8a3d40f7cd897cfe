"""Options of a method: the fields of a frozen dataclass, and nothing else.

The same fields give the constructor, the checks, the command line's ``name:key=value`` strings, the
repr, the records in result files and the tables in the docs.
"""

import dataclasses
import math
import types
import typing
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

from salience.core import registry
from salience.core.errors import InputError, unknown

T = TypeVar("T", bound="Options")


def option(default: Any, help: str, *, at_least: float | None = None, above: float | None = None, at_most: float | None = None) -> Any:
    """A dataclass field with a one-line help text and, for numbers, a range.

    Args:
        default: The default value; a class is called for a fresh default.
        help: One line, with the unit.
        at_least: Smallest value allowed.
        above: Value that must be exceeded.
        at_most: Largest value allowed.
    """
    metadata = {"help": help, "at_least": at_least, "above": above, "at_most": at_most}
    if isinstance(default, type):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Options:
    """Base of everything that is registered: checks its fields, prints as its own specification.

    Attributes:
        kind: What it is, as the registry calls it.
        expected: What one may be given as: the beginning of the message when it was not.
    """

    kind: ClassVar[str]
    expected: ClassVar[str]

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self), include_extras=True)
        for field in dataclasses.fields(self):
            value = convert(getattr(self, field.name), hints[field.name], f"{self.name}: {field.name}")
            _check_range(value, field, f"{self.name}: {field.name}")
            object.__setattr__(self, field.name, value)

    @classmethod
    def from_value(cls: type[T], value: object) -> T:
        """One of this kind from a specification, an object, or its class.

        Raises:
            InputError: If it is none of these.
        """
        from salience.core import spec  # reads specifications into options

        if isinstance(value, cls):
            return value
        if isinstance(value, str):
            return spec.build(cls.kind, value)
        if isinstance(value, type) and issubclass(value, cls):
            return value()
        raise InputError(f"{cls.expected}, not {type(value).__name__}.")

    @property
    def name(self) -> str:
        """The registered name."""
        return registry.name_of(type(self))

    @property
    def facts(self) -> dict[str, Any]:
        """What was declared when the class was registered."""
        return registry.facts_of(type(self))

    def changed(self) -> dict[str, Any]:
        """The options that differ from their defaults."""
        values = {field.name: (getattr(self, field.name), default_of(field)) for field in dataclasses.fields(self)}
        return {name: value for name, (value, default) in values.items() if value != default}

    def options(self) -> dict[str, str]:
        """All options as text, defaults included, for records."""
        return {field.name: as_text(getattr(self, field.name)) for field in dataclasses.fields(self)}

    def __str__(self) -> str:
        """The specification: ``name:key=value,...`` with the options that differ from their defaults."""
        items = ",".join(f"{key}={as_text(value)}" for key, value in self.changed().items())
        return f"{self.name}:{items}" if items else self.name

    __repr__ = __str__


def default_of(field: dataclasses.Field) -> Any:
    """The default of an option; `dataclasses.MISSING` if it has none."""
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def as_text(value: Any) -> str:
    """The value of an option as specifications spell it."""
    if isinstance(value, Options):
        text = str(value)
        return f"({text})" if ":" in text else text
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "+".join(map(as_text, value))
    return f"({value})" if isinstance(value, str) and "," in value else str(value)


def _check_range(value: Any, field: dataclasses.Field, what: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    limits = field.metadata
    if value != value:
        raise InputError(f"{what} is not a number; give one.")
    if math.isinf(value):
        raise InputError(f"{what} must be finite, not {value}.")
    if limits.get("at_least") is not None and value < limits["at_least"]:
        raise InputError(f"{what} must be at least {limits['at_least']}, not {value}.")
    if limits.get("above") is not None and value <= limits["above"]:
        raise InputError(f"{what} must be above {limits['above']}, not {value}.")
    if limits.get("at_most") is not None and value > limits["at_most"]:
        raise InputError(f"{what} must be at most {limits['at_most']}, not {value}.")


def convert(value: Any, hint: Any, what: str) -> Any:
    """`value`, perhaps a string from the command line, as the type that a field asks for.

    Args:
        value: What was given.
        hint: The field's annotation.
        what: How to name the field in a message.

    Raises:
        InputError: If the value does not fit.
    """
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(value, typing.get_args(hint), what)
    if origin is Literal:
        choices = typing.get_args(hint)
        if value in choices:
            return value
        raise unknown(f"value for {what}:", str(value), map(str, choices))
    if origin is tuple:
        parts = value.split("+") if isinstance(value, str) else value if isinstance(value, tuple | list) else (value,)
        return tuple(convert(part, typing.get_args(hint)[0], what) for part in parts)
    if hint is bool:
        spelled = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        return _need(value if isinstance(value, bool) else spelled.get(str(value).lower()), what, "true or false", value)
    if hint is int:
        return _need(_integer(value), what, "a whole number", value)
    if hint is float:
        return _need(_float(value), what, "a number", value)
    if hint is type(None):
        return None if value is None or value == "none" else _need(None, what, "none", value)
    if origin is typing.Annotated:
        return typing.get_args(hint)[1].from_value(value)
    if hint is str and isinstance(value, str):
        return value
    if hint in (str, int, float, bool):
        return _need(None, what, "text", value)
    return value


def _need(converted: Any, what: str, wanted: str, given: Any) -> Any:
    if converted is None:
        raise InputError(f"{what} must be {wanted}, not {given!r}.")
    return converted


def _integer(value: Any) -> int | None:
    number = _float(value)
    return int(number) if number is not None and number.is_integer() else None


def _float(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _convert_union(value: Any, members: tuple, what: str) -> Any:
    if type(None) in members and (value is None or (isinstance(value, str) and value == "none")):
        return None
    failures = []
    for member in sorted(members, key=lambda each: typing.get_origin(each) is not Literal):
        if member is type(None):
            continue
        try:
            return convert(value, member, what)
        except InputError as error:
            failures.append(str(error))
    raise InputError(failures[-1])
