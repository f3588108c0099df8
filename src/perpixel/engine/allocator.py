"""Memory of large tensors kept by the process between layers, where the C library can be told so."""

import ctypes
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
"""Numbers of mallopt's parameters (malloc.h of glibc)."""

_LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tells glibc's malloc to reuse freed memory rather than give it back and have it mapped anew, page by page.

    A network frees and takes tensors larger than 32 MiB at every layer, which malloc maps each time: FCOS R-50 at 800x1088 takes
    230,000 page faults an image, and none after this call, 10 % less time (docs/speed.md). The process holds its peak memory
    until it ends, so only the command line does this.

    Returns:
        Whether it was done: not where the C library is another one.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    values = {_MMAP_THRESHOLD: _LARGEST, _TRIM_THRESHOLD: _LARGEST, _TOP_PAD: 64 * 2**20}
    return all(mallopt(name, value) == 1 for name, value in values.items())
