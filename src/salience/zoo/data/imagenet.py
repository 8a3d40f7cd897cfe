"""A folder a class, as ImageNet is kept."""

from functools import cached_property
from pathlib import Path
from typing import Literal

from salience.core.errors import InputError
from salience.core.options import option
from salience.core.registry import register
from salience.zoo.data import _files
from salience.zoo.datasets import Dataset, Item


@register("dataset", "imagenet", cites="Russakovsky et al. 2015")
class ImageNet(Dataset):
    """A folder a class, each full of pictures; names are ``class folder/file``.

    The folders sorted by name give the class indices: the 1000 folders ``n01440764``... of ImageNet their usual
    ones. If only some of them are there, ``labels=imagenet`` still gives the usual indices.

    The pictures come class by class: `shuffle` mixes the classes.
    """

    root: str = option("", "the folder of the class folders, for example imagenet/val")
    labels: Literal["own", "imagenet"] = option("own", "class indices: own (place among the folders, sorted by name) or imagenet (place among ImageNet's 1000)")

    @cached_property
    def _names(self) -> list[str]:
        where = _files.folder(self.root, "the folder of the class folders, for example imagenet/val")
        names = sorted(path.name for path in where.iterdir() if path.is_dir() and path.name[0] != ".")
        if not names:
            raise InputError(f"{self.root} has no folders: give the folder that holds one folder a class, for example imagenet/val.")
        if self.labels == "own":
            return names
        import timm

        known = timm.data.ImageNetInfo("imagenet-1k").label_names()
        wrong = sorted(set(names) - set(known))
        if wrong:
            raise InputError(f"{self.root}/{wrong[0]} is not a class of ImageNet's 1000, which are called n01440764 and so on: take labels=own.")
        return known

    @cached_property
    def _index(self) -> list[tuple[int, Path]]:
        folders = ((index, Path(self.root) / name) for index, name in enumerate(self._names))
        return [(index, path) for index, folder in folders if folder.is_dir() for path in _files.pictures(folder)]

    @property
    def classes(self) -> list[str]:
        """The names of the class folders."""
        return self._names

    def size(self) -> int:
        """The number of pictures."""
        return len(self._index)

    def item(self, place: int) -> Item:
        """A picture, by its path."""
        index, path = self._index[place]
        return Item(f"{path.parent.name}/{path.name}", path, (index,))
