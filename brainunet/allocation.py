"""Memory that is given back: between two rounds a coordinator and a hospital's client wait for hours."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from typing import Final

_M_MMAP_THRESHOLD: Final = -3  # of glibc's malloc.h
_LARGE_BYTES: Final = 2**20


def return_memory_at_once() -> None:
    """Make freed blocks of 1 MiB and more go back to the system at once; does nothing where the C library is not glibc.

    glibc raises its own limit to 32 MiB as soon as such blocks come and go, and then keeps them.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
