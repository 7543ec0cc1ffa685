"""Counter rows: packed signed 64-bit integers that merges change without reading them.

A row is the `add` fields followed by the `max` fields, little endian, so `Merge(key, add=(1, 4096),
max=(now,))` keeps 24 bytes.
"""

from __future__ import annotations

import struct
from functools import cache
from operator import add as _add

from warp_core.errors import InvalidArgument
from warp_core.interfaces.consistency import Merge

INT64_MIN = -(2**63)
_ONE = struct.Struct("<q")


@cache
def _layout(fields: int) -> struct.Struct:
    return struct.Struct(f"<{fields}q")


def merged(value: bytes | None, merge: Merge) -> bytes:
    """Return a counter row after one merge; None is an absent row.

    Raises:
        InvalidArgument: The row has another number of fields, or a sum leaves the 64-bit range.
    """
    _, add, maxima = merge
    if not add and len(maxima) == 1 and value is not None and len(value) == 8:
        # A time of a directory, which every change of an entry merges.
        if maxima[0] <= _ONE.unpack(value)[0]:
            return value
        value = None
    layout = _layout(len(add) + len(maxima))
    if value is None:
        fields = (*add, *maxima)
    else:
        if len(value) != layout.size:
            raise InvalidArgument(
                f"{layout.size // 8} fields merged into a row of {len(value)} bytes: {merge.key!r}"
            )
        old = layout.unpack(value)
        fields = (*map(_add, old, add), *map(max, old[len(add) :], maxima))
    try:
        return layout.pack(*fields)
    except struct.error as error:
        raise InvalidArgument(f"counter beyond 64 bits: {merge.key!r} {fields}") from error


def combined(first: Merge, second: Merge) -> Merge:
    """Return the one merge that does what two do, one after the other.

    Raises:
        InvalidArgument: They have other numbers of fields.
    """
    if len(first.add) != len(second.add) or len(first.max) != len(second.max):
        raise InvalidArgument(f"merges of different shape: {first} and {second}")
    return Merge(
        first.key,
        tuple(map(_add, first.add, second.add)),
        tuple(map(max, first.max, second.max)),
    )


def counters(value: bytes | None, fields: int) -> tuple[int, ...]:
    """Read a row of `fields` add fields; an absent one is all zeros.

    Raises:
        InvalidArgument: The row has another number of fields.
    """
    if value is None:
        return (0,) * fields
    if len(value) != 8 * fields:
        raise InvalidArgument(f"counter row of {len(value)} bytes, not of {fields} fields")
    return _layout(fields).unpack(value)
