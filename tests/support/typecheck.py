"""The run-time type checker of the tests: beartype, with ints allowed where floats are asked for, and shapes as jaxtyping reads them.

It looks at random items of containers. It gets numbers of its own, so that checks do not move the global random state,
by which methods of other libraries are found to be random.
"""

import dataclasses
import functools
import inspect
import random
from collections.abc import Callable
from typing import Any, get_args

import beartype._check.code.codemain as checks
import jaxtyping
from beartype import BeartypeConf, beartype

checks.getrandbits = random.Random(0).getrandbits
checked = beartype(conf=BeartypeConf(is_pep484_tower=True))


def of_shape(hint: Any) -> bool:
    """Whether a hint has a shape in it."""
    return (inspect.isclass(hint) and issubclass(hint, jaxtyping.AbstractArray)) or any(map(of_shape, get_args(hint)))


def known(hint: Any, names: dict[str, Any]) -> bool:
    """Whether a hint can be checked: names that are imported for mypy alone cannot."""
    if isinstance(hint, str):
        try:
            eval(hint, names)  # of our own source
        except NameError:
            return False
    return True


def scoped(made: Any = None, *, typechecker: Callable) -> Any:
    """As jaxtyping's decorator, for a function or a dataclass: equal names of sizes are equal in one call. Functions without shapes have no such scope, and functions within functions no check: both would take much of the tests' time."""
    if made is None:
        return functools.partial(scoped, typechecker=typechecker)
    if inspect.isclass(made):
        if dataclasses.is_dataclass(made) and "__init__" in vars(made):
            made.__init__ = scoped(made.__init__, typechecker=typechecker)  # type: ignore[misc]
        return made
    if "<locals>" in made.__qualname__:
        return made  # it is made anew in every call of the function around it, and so would its check be
    made.__annotations__ = {name: hint for name, hint in made.__annotations__.items() if known(hint, made.__globals__)}
    function = typechecker(made)
    if not any(map(of_shape, made.__annotations__.values())):
        return function

    @functools.wraps(function)
    def within(*args: Any, **kwargs: Any) -> Any:
        with sizes("context"):
            return function(*args, **kwargs)

    return within


sizes = jaxtyping.jaxtyped
"""A scope for the names of sizes."""


def check(package: str) -> None:
    """Check every function of a package that is imported from now on."""
    jaxtyping.jaxtyped = scoped  # type: ignore[assignment]
    jaxtyping.install_import_hook(package, "typecheck.checked")
