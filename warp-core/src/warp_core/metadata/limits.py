"""What every commit must keep to, checked once by each engine before it judges."""

from __future__ import annotations

from warp_core.errors import InvalidArgument, TooLarge
from warp_core.interfaces.consistency import COMMIT_MAX, KEY_MAX, VALUE_MAX, WRITES_MAX, Commit

STAMP_SIZE = 8  # bytes that a version adds to a stamped key
REQUEST_ID_SIZE = 16
FIELDS_MAX = VALUE_MAX // 8  # 64-bit counters in one row


def check_limits(commit: Commit) -> int:
    """Return the bytes of all keys and values that a commit writes.

    Raises:
        TooLarge: Beyond WRITES_MAX, KEY_MAX, VALUE_MAX or COMMIT_MAX.
        InvalidArgument: An empty key, a row changed twice, or a request id that is not 16 bytes.
    """
    writes, merges, stamps = commit.writes, commit.merges, commit.stamps
    count = len(writes) + len(merges) + len(stamps)
    if count > WRITES_MAX:
        raise TooLarge(f"{count} rows in one commit > WRITES_MAX {WRITES_MAX}")
    if commit.request_id and len(commit.request_id) != REQUEST_ID_SIZE:
        raise InvalidArgument(
            f"request id of {len(commit.request_id)} bytes, not {REQUEST_ID_SIZE}"
        )
    size = 0
    keys = set()
    for key, value in writes:
        length = len(key)
        if not 0 < length <= KEY_MAX:
            raise _bad_key(key)
        keys.add(key)
        size += length
        if value is not None:
            if len(value) > VALUE_MAX:
                raise TooLarge(f"value of {len(value)} bytes > VALUE_MAX {VALUE_MAX}")
            size += len(value)
    for key, add, maxima in merges:
        length = len(key)
        if not 0 < length <= KEY_MAX:
            raise _bad_key(key)
        fields = len(add) + len(maxima)
        if not 0 < fields <= FIELDS_MAX:
            raise TooLarge(f"merge of {fields} fields, not 1 to {FIELDS_MAX}")
        keys.add(key)
        size += length + 8 * fields
    if len(keys) != len(writes) + len(merges):
        raise InvalidArgument("one commit changes the same row twice")
    for prefix, suffix, value, _ in stamps:
        length = len(prefix) + STAMP_SIZE + len(suffix)
        if length > KEY_MAX:
            raise TooLarge(f"stamped key of {length} bytes > KEY_MAX {KEY_MAX}")
        if len(value) > VALUE_MAX:
            raise TooLarge(f"value of {len(value)} bytes > VALUE_MAX {VALUE_MAX}")
        size += length + len(value)
    if size > COMMIT_MAX:
        raise TooLarge(f"{size} bytes in one commit > COMMIT_MAX {COMMIT_MAX}")
    return size


def _bad_key(key: bytes) -> InvalidArgument:
    if not key:
        return InvalidArgument("a key may not be empty")
    return TooLarge(f"key of {len(key)} bytes > KEY_MAX {KEY_MAX}")
