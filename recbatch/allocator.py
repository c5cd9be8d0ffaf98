"""Keeps large freed tensors in the process instead of returning them to the kernel after every step.

glibc maps every large allocation anew, and the kernel clears its pages on first touch: with item matrices of tens of
megabytes made and freed in every training step, that costs more than the arithmetic. Peak memory stays what it was.
"""

from __future__ import annotations

import ctypes
import sys

# From malloc.h, which gives them no other name outside C.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_NEVER_TRIM = 2**31 - 1
_GROW_BY = 256 << 20


def keep_freed_memory() -> None:
    """Set it for this process; where the C library is not glibc nothing is changed."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for option, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _NEVER_TRIM), (_M_TOP_PAD, _GROW_BY)):
            mallopt(option, value)
