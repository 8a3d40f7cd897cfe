"""Folders, tables and mask files, with errors that say what to do."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from salience.core.errors import InputError

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
"""Endings of picture files, in small letters."""


def folder(root: str, what: str) -> Path:
    """A folder that is there.

    Args:
        root: Its path.
        what: What it holds, for the message.

    Raises:
        InputError: If it is not given or not there.
    """
    if not root:
        raise InputError(f"root is missing: give {what}.")
    if not Path(root).is_dir():
        raise InputError(f"{root} is not a folder: give {what}.")
    return Path(root)


def pictures(where: Path) -> list[Path]:
    """The picture files in a folder, not in folders below it, by name; hidden ones are left out."""
    return sorted((path for path in where.iterdir() if path.suffix.lower() in SUFFIXES and path.name[0] != "."), key=lambda path: path.name)


def found(where: Path, name: str) -> Path:
    """A file in a folder, or else at a path of its own.

    Raises:
        InputError: If it is at neither.
    """
    for path in (where / name, Path(name)):
        if path.is_file():
            return path
    raise InputError(f"There is no file {name}, neither in {where} nor as a path of its own: check the name.")


def text(path: Path) -> str:
    """A text file.

    Raises:
        InputError: If it is not there or not text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): check the path.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a text file: save it as UTF-8.") from error


def table(path: Path, columns: Sequence[str]) -> dict[int, dict[str, str]]:
    """The rows of a CSV file with a header, by the number of their line; empty cells are "", and spaces around a cell do not count.

    Raises:
        InputError: If a column is missing.
    """
    reader = csv.DictReader(text(path).splitlines(), restval="")
    reader.fieldnames = [name.strip() for name in reader.fieldnames or []]
    missing = [column for column in columns if column not in reader.fieldnames]
    if missing:
        raise InputError(f"{path} has no column {missing[0]}: its first line must name the columns {', '.join(columns)}, with commas between them.")
    numbered = ((reader.line_num, row) for row in reader)
    return {line: {key: value.strip() for key, value in row.items() if isinstance(value, str)} for line, row in numbered}


def mask_values(path: Path) -> np.ndarray:
    """The values of a mask file, (h, w) or (h, w, 3); transparency is left out.

    Raises:
        InputError: If it cannot be read.
    """
    try:
        with Image.open(path) as opened:
            values = np.asarray(opened)
            return values[..., :-1] if opened.mode in ("LA", "PA", "RGBA") else values
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise InputError(f"The mask {path} cannot be read ({error}): give a PNG file of the picture's size.") from error


def mask(path: Path) -> np.ndarray:
    """The boolean mask (h, w) in a mask file: True where a value other than transparency is not zero.

    Raises:
        InputError: If it cannot be read.
    """
    values = mask_values(path) != 0
    return values.any(-1) if values.ndim == 3 else values
