"""Ranges of keys."""

from __future__ import annotations

from warp_core.interfaces.consistency import KEY_MAX

KEY_END = b"\xff" * (KEY_MAX + 1)  # sorts after every key


def prefix_end(prefix: bytes) -> bytes:
    """Return the smallest key that sorts after every key beginning with `prefix`."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes([stem[-1] + 1]) if stem else KEY_END


def successor(key: bytes) -> bytes:
    """Return the smallest key that sorts after `key`."""
    return key + b"\0"
