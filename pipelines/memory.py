"""How memory is handed out and looked through: by the C library, where that is glibc, and by Python."""

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

_ARENA_MAX: Final = -8
"""M_ARENA_MAX of mallopt(3)."""
_MMAP_THRESHOLD: Final = -3
"""M_MMAP_THRESHOLD of mallopt(3)."""
LARGE: Final = 1 << 20
"""Bytes from which on a piece of memory is one of its own."""


def share_between_threads() -> None:
    """Let all threads take memory from one place: what one frees is used by another, rather than kept for its thread."""
    _set(_ARENA_MAX, 1)


def give_back_large() -> None:
    """Give large pieces back to the system as soon as they are freed, which leaves no holes of their size between others.

    glibc stops doing so with the first that is freed, up to 32 MB: that is faster, by a twentieth of a load of 100,000
    recordings, and after a million takes 30 MB more.
    """
    _set(_MMAP_THRESHOLD, LARGE)


@contextmanager
def importing(module: str) -> Iterator[None]:
    """Look for no garbage while a module is imported first, nor ever in what it left: modules stay until the process ends.

    Of importing all that a run needs, looking through it again and again takes a tenth.
    """
    first = module not in sys.modules and gc.isenabled()
    if first:
        gc.disable()
    try:
        yield
    finally:
        if first:
            gc.freeze()
            gc.enable()


def _set(option: int, value: int) -> None:
    with suppress(OSError, AttributeError):  # another C library has no such choice
        ctypes.CDLL(None).mallopt(option, value)
