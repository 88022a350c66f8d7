"""What the C library keeps of memory that is free again, measured where it is glibc; and when Python looks for garbage."""

from __future__ import annotations

import gc
import importlib
import platform
import subprocess
import sys
from contextlib import suppress

import pytest

from pipelines.memory import importing

# a buffer is freed once; then ten of 8 MB, each followed by a small piece that stays
HOLES = """
import sys, ctypes
from pipelines.memory import give_back_large, share_between_threads
share_between_threads()
C = ctypes.CDLL(None)
C.malloc.restype, C.malloc.argtypes, C.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
def piece(size):
    place = C.malloc(size)
    ctypes.memset(place, 1, size)
    return place
def megabytes():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 1e6
C.free(piece(30 << 20))
if sys.argv[1] == "given back":
    give_back_large()
before = megabytes()
large = []
for _ in range(10):
    large.append(piece(8 << 20))
    piece(4096)
for place in large:
    C.free(place)
print(round(megabytes() - before))
"""


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="only glibc has these choices; others are left as they are"
)
def test_large_pieces_leave_no_holes_once_they_are_given_back() -> None:
    """A million recordings that take 30 MB more than they need, in holes where pages and slices were."""
    kept, left = (
        int(subprocess.run([sys.executable, "-c", HOLES, how], check=True, capture_output=True, text=True).stdout)
        for how in ("kept", "given back")
    )
    assert left <= 2
    # shows that there is something to give back, or the test would catch nothing
    assert kept >= 60


def test_garbage_is_looked_for_again_once_a_module_is_there_or_cannot_be() -> None:
    """A run of hours that never collects what is left in circles, because importing something went wrong."""
    for module in ("colorsys", "no_such_module"):
        sys.modules.pop(module, None)
        with suppress(ModuleNotFoundError), importing(module):
            assert not gc.isenabled()
            importlib.import_module(module)
        assert gc.isenabled()
