"""The C library's allocator, told to keep what it has: large bodies are taken and freed in blocks of a megabyte.

glibc gets such blocks from the kernel one by one, and gives the top of its heap back at once; then the kernel
clears every page of them again and again. Copying a body of 25 MB through the ten buffers between two sockets took
140 ms of CPU time, and takes 50 ms when memory is kept.
"""

from __future__ import annotations

import ctypes
from typing import Final

# From malloc.h. The values stop glibc's own adjustment of both.
_M_TRIM_THRESHOLD: Final = -1
_M_TOP_PAD: Final = -2
_M_MMAP_THRESHOLD: Final = -3

KEPT: Final = 64 * 2**20  # free memory that stays with the process: some ten pieces of bodies and their copies
BLOCK: Final = 8 * 2**20  # only larger ones are mapped by themselves
PAD: Final = 4 * 2**20  # so much more is asked of the kernel each time


def keep_memory() -> None:
    """Tune the allocator of this process, where it is glibc's; others are left alone."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    for parameter, value in ((_M_TRIM_THRESHOLD, KEPT), (_M_TOP_PAD, PAD), (_M_MMAP_THRESHOLD, BLOCK)):
        mallopt(parameter, value)
