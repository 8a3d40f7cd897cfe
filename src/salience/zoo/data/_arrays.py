"""Small pictures that are kept as arrays: torchvision's layouts on disk, and npz files."""

import io
import warnings
import zipfile
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from PIL import Image

from salience.core.errors import InputError
from salience.core.options import option
from salience.zoo.datasets import Dataset, Item


class _Encoded:
    """Pictures as JPEG bytes, decoded on access; picture i is ``data[offsets[i]:offsets[i + 1]]``."""

    def __init__(self, data: np.ndarray, offsets: np.ndarray) -> None:
        self.data, self.offsets = data, offsets

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> np.ndarray:
        try:
            return np.asarray(Image.open(io.BytesIO(self.data[self.offsets[i] : self.offsets[i + 1]].tobytes())).convert("RGB"))
        except (OSError, SyntaxError, ValueError) as error:
            raise InputError(f"Picture {i} of the npz file is damaged ({error}): get a whole copy of the file.") from error


@dataclass(frozen=True, repr=False)
class Arrays(Dataset):
    """Base of MNIST and CIFAR-10: they are what is found in `root`.

    Attributes:
        source: The name of torchvision's class.
        layout: The folder that torchvision keeps the data in.
        files: Names of npz files.
    """

    source: ClassVar[str]
    layout: ClassVar[str]
    files: ClassVar[tuple[str, ...]]

    root: str = option("", "the folder that holds torchvision's copy or an npz file; or the npz file")
    split: Literal["test", "train"] = option("test", "test or train")
    download: bool = option(False, "whether torchvision may download what is missing")

    @cached_property
    def _data(self) -> tuple[np.ndarray | _Encoded, np.ndarray]:
        """Pictures and labels."""
        names = f"{self.layout} nor {' nor '.join(self.files)}"
        if not self.root:
            raise InputError(f"root is missing: give the folder of {self.source}.")
        for path in (Path(self.root), *(Path(self.root) / name for name in self.files)):
            if path.is_file():
                return _from_npz(path, self.split)
        if not self.download and not (Path(self.root) / self.layout).is_dir():
            raise InputError(f"{self.root} holds neither {names}: give the folder that holds one of them, or download=true.")
        return _from_torchvision(self.source, self.root, self.split, self.download)

    def size(self) -> int:
        """The number of pictures in the split."""
        return len(self._data[1])

    def item(self, place: int) -> Item:
        """A picture as a uint8 array."""
        pictures, labels = self._data
        return Item(f"{self.split}-{place:05d}", np.array(pictures[place]), (int(labels[place]),))


def _from_npz(path: Path, split: str) -> tuple[np.ndarray | _Encoded, np.ndarray]:
    """``x_test`` and ``y_test``; or ``jpeg_test``, ``offset_test`` and ``y_test``; or ``x`` and ``y`` if the file's name has the split."""
    try:
        with path.open("rb") as file, np.load(file) as stored:
            if f"jpeg_{split}" in stored:
                return _Encoded(stored[f"jpeg_{split}"], stored[f"offset_{split}"]), stored[f"y_{split}"]
            ending = "" if "x" in stored and split in path.stem else f"_{split}"
            pictures, labels = stored[f"x{ending}"], stored[f"y{ending}"].ravel()
    except KeyError as error:
        raise InputError(f"{path} has no {split} pictures: it must hold x_{split} and y_{split}, or jpeg_{split}, offset_{split} and y_{split}.") from error
    except (OSError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path} is not a whole npz file ({error}): get a whole copy of it.") from error
    if pictures.dtype != np.uint8 or len(pictures) != len(labels):
        raise InputError(f"{path}: the pictures must be uint8, one for each label, not {pictures.dtype} {pictures.shape} for {len(labels)} labels.")
    return pictures, labels


def _from_torchvision(source: str, root: str, split: str, download: bool) -> tuple[np.ndarray | _Encoded, np.ndarray]:
    from torchvision import datasets

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", np.exceptions.VisibleDeprecationWarning)  # CIFAR-10's files were pickled by an old NumPy
            stored = getattr(datasets, source)(root, train=split == "train", download=download)
    except (RuntimeError, OSError, ValueError, EOFError, AssertionError, KeyError) as error:
        raise InputError(f"torchvision cannot read {source} in {root} ({str(error).partition(chr(10))[0] or 'a damaged file'}): get a whole copy, or set download=true.") from error
    return np.asarray(stored.data), np.asarray(stored.targets)
