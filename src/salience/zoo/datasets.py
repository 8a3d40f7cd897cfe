"""Data sets for studies: numbered pictures with their classes and, where known, where the objects are."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
from PIL import Image

from salience.core import registry
from salience.core.draws import streams
from salience.core.errors import InputError, unknown
from salience.core.options import Options, convert, option


@dataclass(frozen=True)
class Item:
    """One picture of a data set.

    Attributes:
        name: Unique in the data set and stable: seeds are derived from it.
        picture: What `load_images` takes: a path, a PIL image or a uint8 array.
        labels: The class indices that are true of it; () if unknown.
        masks: For a class index a boolean mask of the picture upright (turned as its EXIF says), made when asked for; {} if there are none.
        groups: The labels, those of one object together, where one object has several (a COCO dog is any of
            ImageNet's dogs); () if each label stands for itself.
    """

    name: str
    picture: Any
    labels: tuple[int, ...] = ()
    masks: Mapping[int, Any] = field(default_factory=dict)
    groups: tuple[tuple[int, ...], ...] = ()

    @cached_property
    def contents(self) -> tuple[bytes, ...]:
        """The picture's file bytes, or its pixels and their form; read once.

        Raises:
            InputError: If the picture cannot be read.
        """
        return _content(self.picture)

    def fingerprint(self) -> str:
        """SHA-256 over name, labels, masks, and the picture's file bytes or pixels.

        Raises:
            InputError: If the picture cannot be read.
        """
        digest = hashlib.sha256()
        _add(self, digest)
        return digest.hexdigest()


class Masks(Mapping[int, np.ndarray]):
    """Masks that are made when asked for; only the last one is kept.

    Args:
        sources: For a class index, what its mask is made from.
        make: Makes a boolean mask from a source.
    """

    def __init__(self, sources: Mapping[int, Any], make: Callable[[Any], np.ndarray]) -> None:
        self.sources, self.make = sources, make
        self.last: tuple[Any, np.ndarray] = (None, np.zeros((0, 0), bool))

    def __getitem__(self, index: int) -> np.ndarray:
        """The mask of a class; classes with one source share it."""
        source = self.sources[index]
        if self.last[0] is None or self.last[0] != source:
            self.last = (source, self.make(source))
        return self.last[1]

    def __contains__(self, index: object) -> bool:
        return index in self.sources

    def __iter__(self) -> Iterator[int]:
        return iter(self.sources)

    def __len__(self) -> int:
        return len(self.sources)


@dataclass(frozen=True, repr=False, kw_only=True)
class Dataset(Options):
    """Base of all data sets. A data set is a frozen dataclass with a docstring, `size` and `item`.

    The items are those of `size`, in their order or shuffled by a seed, cut at `limit`: a larger limit keeps
    the earlier ones.
    """

    kind = "dataset"
    expected = "A data set is a specification such as 'folder:root=photos', or what sal.load_dataset returns"

    limit: int | None = option(None, "the first so many pictures; none: all", at_least=1)
    shuffle: int | None = option(None, "seed of a random order; none: the data set's own order")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not len(self):
            raise InputError(f"There are no pictures in {self}: check its options.")

    def size(self) -> int:
        """How many items there are, without a limit."""
        raise NotImplementedError

    def item(self, place: int) -> Item:
        """One item, made anew; `place` is its number before shuffling."""
        raise NotImplementedError

    @property
    def classes(self) -> list[str] | None:
        """The class names by index, if the data set has its own."""
        return None

    @cached_property
    def _places(self) -> list[int]:
        order = np.arange(self.size()) if self.shuffle is None else streams(self.shuffle, 1)[0].generator("order").permutation(self.size())
        return order[: self.limit].tolist()

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, i: int) -> Item:
        """Item i, made on access: nothing large is kept.

        Raises:
            IndexError: If there are not so many.
        """
        return self.item(self._places[i])

    def fingerprint(self) -> str:
        """SHA-256 over what the items are: names, labels, masks, and the pictures' file bytes or pixels.

        Options that do not change the items are not in it. Cost: every file is read once, every mask made once.
        """
        digest = hashlib.sha256()
        for item in self:
            _add(item, digest)
        return digest.hexdigest()

    def __iter__(self) -> Iterator[Item]:
        return (self[i] for i in range(len(self)))


def load_dataset(kind: str, **options: Any) -> Dataset:
    """A data set by name, for example ``load_dataset("folder", root="photos", labels="labels.csv", limit=20)``.

    Args:
        kind: One of `list_datasets`.
        options: The fields of its class.

    Raises:
        InputError: If there is no such data set or option, or the files are not there or not right.
    """
    known = registry.entries("dataset")
    if kind not in known:
        raise unknown("data set", kind, known)
    cls = known[kind].cls
    names, hints = [each.name for each in fields(cls)], get_type_hints(cls, include_extras=True)
    for name, value in options.items():
        if name not in names:
            raise unknown(f"option of {kind}:", name, names)
        options[name] = convert(os.fspath(value) if isinstance(value, os.PathLike) else value, hints[name], f"{kind}: {name}")
    return cls(**options)


def list_datasets() -> list[str]:
    """The names of all kinds of data sets."""
    return list(registry.entries("dataset"))


def _add(item: Item, digest: Any) -> None:
    """Add everything that an item is to a hash."""
    masks = (part for index in sorted(item.masks) for part in (str(index).encode(), *_array(item.masks[index])))
    for part in (json.dumps([item.name, item.labels, item.groups]).encode(), *item.contents, *masks):
        digest.update(len(part).to_bytes(8, "little") + part)


def _array(values: np.ndarray) -> tuple[bytes, bytes]:
    return f"{values.dtype} {values.shape}".encode(), (np.packbits(values) if values.dtype == bool else np.ascontiguousarray(values)).tobytes()


def _content(picture: Any) -> tuple[bytes, ...]:
    if isinstance(picture, Image.Image):
        return picture.mode.encode(), *_array(np.asarray(picture))
    if isinstance(picture, np.ndarray):
        return _array(picture)
    try:
        return (Path(picture).read_bytes(),)
    except OSError as error:
        raise InputError(f"{picture} cannot be read ({error.strerror}): check the path.") from error
