"""What the families of other libraries' methods have in common."""

import ast
import contextlib
import copy
import importlib
import inspect
import io
import random
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from salience.core.classifier import Classifier
from salience.core.draws import Stream
from salience.core.errors import InputError, unknown
from salience.core.explainer import Explainer
from salience.core.imports import same_random_numbers
from salience.core.model import Model
from salience.core.montecarlo import DREW, Attribution
from salience.core.types import Images, Targets
from salience.explainers._layers import white_box


@dataclass(frozen=True)
class Arguments:
    """Keyword arguments for another library's method, written ``(n_steps=20,method=riemann_trapezoid)``.

    Attributes:
        pairs: Names and values.
    """

    pairs: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def from_value(cls, value: object) -> "Arguments":
        """Arguments from a dictionary, or from text: Python literals, bare words are text.

        Raises:
            InputError: If the text cannot be read.
        """
        if isinstance(value, Arguments):
            return value
        if isinstance(value, Mapping):
            return cls(tuple(value.items()))
        try:
            call = ast.parse(f"_({value})", mode="eval").body
            if not isinstance(call, ast.Call) or call.args:
                raise ValueError("not a list of key=value")
            return cls(tuple((str(each.arg), _literal(each.value)) for each in call.keywords))
        except (SyntaxError, ValueError) as error:
            raise InputError(f"arguments are written (key=value,key=value) with numbers, words or brackets of them as values, not {value!r}.") from error

    @property
    def values(self) -> dict[str, Any]:
        """The values by name."""
        return dict(self.pairs)

    def __str__(self) -> str:
        """As on the command line."""
        return f"({','.join(f'{key}={_text(value)}' for key, value in self.pairs)})"


WORDS = {"true": True, "false": False, "none": None}


def _literal(node: ast.expr) -> Any:
    if isinstance(node, ast.Tuple):
        return tuple(map(_literal, node.elts))
    return WORDS.get(node.id, node.id) if isinstance(node, ast.Name) else ast.literal_eval(node)


def _text(value: Any) -> str:
    if isinstance(value, str) and value.isidentifier() and value not in WORDS:
        return value
    if isinstance(value, tuple):
        return f"({','.join(map(_text, value))}{',' if len(value) == 1 else ''})"
    return repr(value)


@dataclass(frozen=True)
class Member:
    """The name of another library's method, or its class."""

    @classmethod
    def from_value(cls, value: object) -> object:
        """A name or a class.

        Raises:
            InputError: If it is neither.
        """
        if isinstance(value, str | type):
            return value
        raise InputError(f"Another library's method is given by its name or its class, not as {type(value).__name__}: put options into arguments.")


class Peer(Explainer):
    """A method of another library, chosen by its name; subclasses say how to find and call it.

    It runs on a copy of the model, so that nothing it does to weights, gradients, modes or hooks reaches
    the user's; weight noise reaches it, being in the weights that are copied. If it takes numbers from the
    global random generators, they are seeded for each image and restored. Its warnings concern the
    copy and its prints would spoil the standard output: both are silenced.
    """

    member: Annotated[Any, Member]
    arguments: Annotated[Any, Arguments]
    library: ClassVar[str]
    package: ClassVar[str]
    module: ClassVar[str]
    ours: ClassVar[frozenset[str]] = frozenset()
    """Arguments that are always given here, so that `arguments` cannot hold them."""

    def __post_init__(self) -> None:
        """Check the options, and that the library has the method."""
        super().__post_init__()
        known = self.members()
        names = [name for name, each in known.items() if each is self.member]
        if names:
            object.__setattr__(self, "member", names[0])
        if isinstance(self.member, str):
            if self.member not in known:
                raise self.refusal(self.member, known)
        elif not self.fits(self.member):
            raise self.refusal(self.member.__name__, known)
        wrong = set(self.arguments.values) - set(self.parameters())
        if wrong:
            raise unknown(f"argument of {self.name}:", wrong.pop(), self.parameters())

    @property
    def name(self) -> str:
        """The family and the method in it."""
        return f"{self.library}:{getattr(self.member, '__name__', self.member)}"

    def changed(self) -> dict[str, Any]:
        """The options that differ from their defaults; the member is in the name."""
        return {key: value for key, value in super().changed().items() if key != "member"}

    @classmethod
    def imported(cls, module: str | None = None) -> ModuleType:
        """The library, or a module of it.

        Raises:
            InputError: If it is not installed.
        """
        try:
            with same_random_numbers():
                return importlib.import_module(module or cls.module)
        except ImportError as error:
            raise InputError(f"{cls.library}:NAME needs the package {cls.package}: pip install '{cls.package}', or salience[peers].") from error

    @classmethod
    def members(cls) -> dict[str, type]:
        """The library's methods, by name."""
        return {name: each for name, each in vars(cls.imported()).items() if isinstance(each, type) and cls.fits(each)}

    @classmethod
    def fits(cls, kind: type) -> bool:
        """Whether a class is a method that can be used here."""
        raise NotImplementedError

    def refusal(self, name: str, known: Mapping[str, type]) -> InputError:
        """Why a name cannot be used."""
        return unknown(f"{self.library} method", name, known)

    @property
    def method(self) -> Any:
        """The library's class."""
        return self.members()[self.member] if isinstance(self.member, str) else self.member

    def functions(self) -> tuple[Callable, ...]:
        """What takes arguments: the constructor, and what computes the map."""
        return (made_by(self.method),)

    def parameters(self) -> list[str]:
        """The names that `arguments` can hold."""
        return [name for function in self.functions() for name in accepted(function) if name not in self.ours]

    def call_with(self, function: Callable, supplied: Mapping[str, Any]) -> dict[str, Any]:
        """Those of the supplied values, and of the user's own, that a function takes."""
        taken = accepted(function)
        return {key: value for key, value in {**supplied, **self.arguments.values}.items() if key in taken}

    def maps(self, model: Model, images: Images, targets: Targets) -> Tensor:
        """The library's maps, (n, 1 or c, h, w), by a model that may be changed."""
        raise NotImplementedError

    def attribute(self, model: Classifier, images: Images, targets: Targets, streams: Sequence[Stream]) -> Attribution:
        """The library's maps, checked.

        Raises:
            InputError: If the library fails on this model, or returns no finite map of each image.
        """
        white = white_box(model, self)
        if white.bound_score.every is None:
            raise InputError(f"{self.name} explains a score that has a name, not {white.bound_score.name}: use score='logit' or 'probability'.")
        try:
            own = copy.deepcopy(white.using(progress=None))
            with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()), torch.enable_grad():
                warnings.simplefilter("ignore")
                maps, drew = self._chunked(own, images, targets, streams)
        except InputError:
            raise
        except Exception as error:  # whatever the library raises, it means that it cannot explain this network
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise InputError(f"{self.name} cannot explain {model.name} ({reason}): choose another method, or set its arguments.") from error
        if maps.ndim != 4 or len(maps) != len(images) or maps.shape[-2:] != images.shape[-2:] or not torch.isfinite(maps).all():
            raise InputError(f"{self.name} returned no finite map of each image for {model.name}: choose another method, or set its arguments.")
        return Attribution(maps, notes={DREW: torch.ones(len(maps))} if drew else {})

    def _chunked(self, model: Model, images: Images, targets: Targets, streams: Sequence[Stream]) -> tuple[Tensor, bool]:
        """All maps: in chunks, unless the method is random; then each image alone, with its own seed. And whether it is."""
        together, made = model.images_at_once(images.shape[-2:]), []
        done, drew = 0, False
        while done < len(images):
            part = slice(done, done + together)
            with seeded(streams[done]) as random_states:
                before = random_states()
                maps = self.maps(model, images[part].clone(), targets[part])
                moved = random_states() != before
            drew = drew or moved
            if moved and len(images[part]) > 1:
                together = 1
                continue
            made.append(maps.detach())
            done += len(images[part])
        return torch.cat(made).float(), drew


def made_by(kind: Any) -> Callable:
    """The constructor of a class."""
    return kind.__init__


def accepted(function: Callable) -> dict[str, inspect.Parameter]:
    """The named parameters of a method, without self."""
    found = list(inspect.signature(function).parameters.items())[1:]
    return {name: each for name, each in found if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)}


def required(function: Callable) -> set[str]:
    """The names of the parameters of a method that have no default."""
    return {name for name, each in accepted(function).items() if each.default is each.empty}


@contextlib.contextmanager
def seeded(stream: Stream) -> Iterator[Callable[[], tuple]]:
    """Seed the global generators of torch, NumPy and Python inside, and restore their states afterwards.

    Yields:
        A function that returns their states.
    """
    seed = int(stream.generator("peer", 0).integers(2**31))
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002  # other libraries use the global state
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        try:
            random.seed(seed)
            np.random.seed(seed)  # noqa: NPY002  # as above
            torch.manual_seed(seed)
            yield _states
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002  # as above


def _states() -> tuple:
    numpy: Any = np.random.get_state()  # noqa: NPY002  # as in seeded
    devices = [torch.cuda.get_rng_state(device).numpy().tobytes() for device in range(torch.cuda.device_count())]
    return random.getstate(), numpy[1].tobytes(), numpy[2:], torch.get_rng_state().numpy().tobytes(), devices
