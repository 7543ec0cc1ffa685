"""Space behind a file's end, so that it can still grow when the disk is full."""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path

_KEEP_SIZE = 1  # FALLOC_FL_KEEP_SIZE, linux/falloc.h


@cache
def _fallocate() -> ctypes._FuncPointer | None:
    try:
        function = ctypes.CDLL(None, use_errno=True).fallocate
    except (OSError, AttributeError):
        return None
    function.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    return function


def reserve_behind(path: Path, size: int) -> bool:
    """Allocate `size` bytes behind a file's end without making it longer.

    False where that is not to be had.
    """
    fallocate = _fallocate()
    if fallocate is None:
        return False
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        end = os.fstat(descriptor).st_size
        return bool(fallocate(descriptor, _KEEP_SIZE, end, size) == 0)
    finally:
        os.close(descriptor)
