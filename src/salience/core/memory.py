"""Freed memory kept for the next allocation, while passes through a network follow each other.

The C library of Linux hands large blocks and the free end of its heap back to the system as soon as they are freed; the
next activations get them anew, zeroed page by page: on a CPU a seventh of the time of a gradient (`bench/quick.py`). Pages
of 2 MB instead of 4 KB save a little more where Linux gives them to those who ask ("madvise" in
/sys/kernel/mm/transparent_hugepage/enabled): the heap is grown by address space alone, and asks for them there.
What a call has kept stays free in the process; ``ctypes.CDLL(None).malloc_trim(0)`` gives it back. Nothing of this
happens where MALLOC_TRIM_THRESHOLD_, MALLOC_MMAP_THRESHOLD_ or GLIBC_TUNABLES is set.
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

HUGE, ASK_FOR_HUGE = 2**21, 14
"""Bytes of a large page, and the name of the wish for them in madvise(2)."""
GROWTH = 2**30 - 2**21
"""Bytes of address space that the heap grows by: just below the threshold, or it would not be the heap that gives them."""


class KeptMemory:
    """A context in which freed memory stays with the process, in large pages; as often and in as many threads as one likes. Nothing without glibc."""

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
                if step > 0:
                    self._grow()

    def _grow(self) -> None:
        """Large pages for what the heap will take next. Where the block does not come from the heap (a thread other than the main one, an old glibc, no address space left) or Linux has none, all is as before."""
        block = self.library.malloc(GROWTH) or 0
        first, end = -(-block // HUGE) * HUGE, min(block + GROWTH, self.library.sbrk(0)) // HUGE * HUGE
        if block and first < end:
            self.library.madvise(first, end - first, ASK_FOR_HUGE)
        self.library.free(block)

    def forget(self) -> None:
        """In a new process: nobody is inside."""
        self.inside, self.lock = 0, threading.Lock()


def _glibc() -> ctypes.CDLL | None:
    """The C library, unless it is another one or the user has set thresholds of his own."""
    own = any(name in os.environ for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"))
    if own or platform.libc_ver()[0] != "glibc":
        return None
    library = ctypes.CDLL(None)
    library.malloc.restype = library.sbrk.restype = ctypes.c_void_p
    library.malloc.argtypes, library.free.argtypes, library.sbrk.argtypes = [ctypes.c_size_t], [ctypes.c_void_p], [ctypes.c_ssize_t]
    library.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return library


kept_memory = KeptMemory(_glibc())
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=kept_memory.forget)
