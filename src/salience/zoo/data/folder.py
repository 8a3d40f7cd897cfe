"""A folder of pictures."""

import os
from functools import cached_property
from pathlib import Path

from salience.core.errors import InputError
from salience.core.options import option
from salience.core.registry import register
from salience.zoo.data import _files
from salience.zoo.datasets import Dataset, Item, Masks


@register("dataset", "folder")
class Folder(Dataset):
    """The pictures of a folder by name; with a table of labels those that it names.

    The table is a CSV file with the columns ``file`` and ``class_index`` and perhaps ``mask``: the file of an
    image of the picture's size, nonzero on the object. A file may have several lines, one a class. Files are
    sought in the folder; one that is not there is missed only when it is read, so that it does not keep a
    study from the others. Other columns are not read.
    """

    root: str = option("", "the folder of the pictures")
    labels: str | None = option(None, "a CSV file, in the folder or elsewhere, with the columns file, class_index and perhaps mask; none: no labels")

    @cached_property
    def _index(self) -> list[tuple[str, dict[int, Path | None]]]:
        """Names, sorted; for each class of a picture its mask file."""
        where = _files.folder(self.root, "the folder of the pictures")
        if self.labels is None:
            return [(path.name, {}) for path in _files.pictures(where)]
        table = _files.found(where, self.labels)
        known: dict[str, dict[int, Path | None]] = {}
        for line, row in _files.table(table, ("file", "class_index")).items():
            name, index, mask = row["file"] and os.path.normpath(row["file"]), row["class_index"], row.get("mask")
            if not index.isdecimal():
                raise InputError(f"{table}, line {line}: class_index must be a whole number from 0, not {index!r}.")
            if not name or int(index) in known.setdefault(name, {}):
                raise InputError(f"{table}, line {line}: {f'{name} has the class {int(index)} twice; leave one' if name else 'file is empty; name a file'}.")
            known[name][int(index)] = where / mask if mask else None
        if known and not any((where / name).is_file() for name in known):
            raise InputError(f"None of the pictures that {table} names, such as {next(iter(known))}, is in {where}: check both paths.")
        return sorted(known.items())

    def size(self) -> int:
        """The number of pictures."""
        return len(self._index)

    def item(self, place: int) -> Item:
        """A picture, by its path."""
        name, masks = self._index[place]
        return Item(name, Path(self.root) / name, tuple(masks), Masks({index: path for index, path in masks.items() if path}, _files.mask))
