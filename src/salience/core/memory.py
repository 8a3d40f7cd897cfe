"""Freed memory kept for the next allocation, while passes through a network follow each other.

The C library of Linux hands large blocks and the free end of its heap back to the system as soon as they are freed; the
next activations get them anew, zeroed page by page: on a CPU a good part of the time of a gradient
(`bench/quick.py` prints it). What a call has kept stays free in the process; ``ctypes.CDLL(None).malloc_trim(0)`` gives it back.
Nothing of this happens where MALLOC_TRIM_THRESHOLD_, MALLOC_MMAP_THRESHOLD_ or GLIBC_TUNABLES is set.
"""

import ctypes
import os
import platform
import threading
from types import TracebackType
from typing import Any

TRIM, MMAP = -1, -3
"""Names of two thresholds in mallopt(3), in bytes: free memory at the heap's end that is given back, blocks that are not taken from the heap."""
KEPT = {TRIM: 2**31 - 1, MMAP: 2**30}
"""glibc before 2.35 takes no threshold above 32 MB for single blocks: larger ones are then fetched anew."""
USUAL = {TRIM: 2**26, MMAP: 2**25}
"""What both grow to by themselves in a process that has freed an activation."""


class KeptMemory:
    """A context in which freed memory stays with the process; as often and in as many threads as one likes. Nothing without glibc."""

    def __init__(self, library: Any) -> None:
        self.library, self.inside, self.lock = library, 0, threading.Lock()

    def __enter__(self) -> None:
        self._enter_or_leave(1)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._enter_or_leave(-1)

    def _enter_or_leave(self, step: int) -> None:
        with self.lock:
            before, self.inside = self.inside, self.inside + step
            if self.library is not None and 0 in (before, self.inside):
                for name, value in (KEPT if step > 0 else USUAL).items():
                    if not self.library.mallopt(name, value):
                        self.library.mallopt(name, USUAL[name])

    def forget(self) -> None:
        """In a new process: nobody is inside."""
        self.inside, self.lock = 0, threading.Lock()


def _glibc() -> ctypes.CDLL | None:
    """The C library, unless it is another one or the user has set thresholds of his own."""
    own = any(name in os.environ for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"))
    if own or platform.libc_ver()[0] != "glibc":
        return None
    return ctypes.CDLL(None)


kept_memory = KeptMemory(_glibc())
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=kept_memory.forget)
