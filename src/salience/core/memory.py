"""Freed memory kept for the next allocation, while passes through a network follow each other.

The C library of Linux hands large blocks and the free end of its heap back to the system as soon as they are freed; the
next activations get them anew, zeroed page by page: on a CPU a tenth and more of the time of a gradient (`bench/quick.py`).
"""

import ctypes
import platform
import threading
from collections.abc import Callable
from types import TracebackType

TRIM, MMAP = -1, -3
"""Names of two thresholds in mallopt(3), in bytes: free memory at the heap's end that is given back, blocks that are not taken from the heap."""
KEPT = {TRIM: 2**31 - 1, MMAP: 2**30}
USUAL = {TRIM: 2**26, MMAP: 2**25}
"""What both grow to by themselves in a process that has freed an activation."""


class KeptMemory:
    """A context in which freed memory stays with the process; as often and in as many threads as one likes. Nothing without glibc."""

    def __init__(self, mallopt: Callable[[int, int], int] | None) -> None:
        self.mallopt, self.inside, self.lock = mallopt, 0, threading.Lock()

    def __enter__(self) -> None:
        self._enter_or_leave(1)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._enter_or_leave(-1)

    def _enter_or_leave(self, step: int) -> None:
        with self.lock:
            before, self.inside = self.inside, self.inside + step
            if self.mallopt is not None and 0 in (before, self.inside):
                for name, value in (KEPT if step > 0 else USUAL).items():
                    self.mallopt(name, value)


kept_memory = KeptMemory(getattr(ctypes.CDLL(None), "mallopt", None) if platform.libc_ver()[0] == "glibc" else None)
