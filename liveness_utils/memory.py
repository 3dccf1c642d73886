"""Keep freed memory at hand: a training step that asks the kernel for its memory anew takes much longer."""

from __future__ import annotations

import ctypes
import functools
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # names of mallopt(3)
_LARGEST = 32 << 20  # bytes; glibc takes no larger threshold
_KEPT = 2 << 30  # bytes
_AHEAD = 128 << 20  # bytes


@functools.cache
def keep_freed_memory() -> bool:
    """Let this process keep up to 2 GB of what it frees, and use it again.

    Every step of a training frees some hundred arrays of megabytes and asks for the same again. glibc hands
    blocks of that size back to the kernel and gets them page by page, each filled with zeros first. Without that,
    the encoder learned 1.4 to 2 times as many pictures a second on two cores (`benchmarks/training.py`). Arrays of
    more than 32 MB still go back at once.

    Returns:
        whether it could be set: on Linux with glibc, and nowhere else.

    Source: mallopt(3), Linux man-pages.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another C library
        return False
    wanted = {_MMAP_THRESHOLD: _LARGEST, _TRIM_THRESHOLD: _KEPT - 1, _TOP_PAD: _AHEAD}
    return all([mallopt(name, value) == 1 for name, value in wanted.items()])
