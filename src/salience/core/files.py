"""Files that are either whole or not there: written to a temporary name, flushed, renamed."""

import contextlib
import json
import math
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from salience.core.errors import InputError


@contextlib.contextmanager
def atomic(path: str | Path) -> Iterator[BinaryIO]:
    """A binary file that gets its name only when the block ends well.

    Args:
        path: Where the file will be; its folder is made.

    Raises:
        InputError: If the folder cannot be made or written, or the disk is full.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            _settle(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"Cannot write {path}: {error.strerror or error}. Choose a folder you can write to, with space left.") from error


def write_whole(path: str | Path, content: bytes) -> None:
    """A file of this content: all of it or none, as `atomic`."""
    with atomic(path) as file:
        file.write(content)


@contextlib.contextmanager
def locked(folder: Path, doing: str) -> Iterator[None]:
    """Nobody else may do the same in this folder meanwhile. The lock ends with its process, however that ends.

    Args:
        folder: It is made; and taken away again if nothing came into it.
        doing: What is being done, for the message: "training".

    Raises:
        InputError: If another process does it, or the folder cannot be written.
    """
    from filelock import FileLock, Timeout

    lock, new = FileLock(folder / ".lock", timeout=0), not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise InputError(f"Another process is {doing} in {folder}: wait for it, or take another folder.") from error
    except OSError as error:
        raise InputError(f"Cannot write to the folder {folder}: {error.strerror or error}. Choose another.") from error
    try:
        yield
    finally:
        if new and [each.name for each in folder.iterdir()] == [".lock"]:
            with contextlib.suppress(OSError):  # Windows keeps files that are open
                (folder / ".lock").unlink()
                folder.rmdir()
        lock.release()


def read_json(file: Path, newest: int, otherwise: str) -> dict[str, Any] | None:
    """An object with a format number, as our programs write; None if there is no such file.

    Args:
        file: Its path.
        newest: The highest format that is understood.
        otherwise: What to do instead of restoring it, for the message: "train in a new folder".

    Raises:
        InputError: If it is damaged or from a later version.
    """
    if not file.exists():
        return None
    try:
        found = json.loads(file.read_text())
        newer = found["format"] > newest
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} is damaged: restore it, or {otherwise}.") from error
    if newer:
        raise InputError(f"{file} has format {found['format']}, which this version cannot read: install a later salience.")
    return found


def finite(value: Any) -> Any:
    """`value` with NaN and infinite numbers replaced by None, so that it is valid JSON."""
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _settle(folder: Path) -> None:
    """Have the names in a folder survive a power cut, in the order in which they were given."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with contextlib.suppress(OSError):  # some network file systems know no such thing; the file itself is whole
                os.fsync(handle)
        finally:
            os.close(handle)
