"""What an archived row keeps, counted for quotas: content that a snapshot shows and no name leads to any more.

A window (E) counts with its data from the moment on at which it was replaced. A revision (R) counts once, as its newest archived
row says, while it has no live row: a row that was only rewritten (tags, retention) keeps nothing that its live one does not. So the
sum depends on rows alone, and a recount finds the same.
"""

from __future__ import annotations

from warp_core.namespace.rows import decode_revision, is_whiteout
from warp_core.namespace.tables import unpack_window


def is_content(key: bytes) -> bool:
    """Say whether a row describes a revision's content."""
    return key[:1] == b"R"


def kept_bytes(key: bytes, value: bytes) -> int:
    """Return what an archived row counts.

    Raises:
        Corrupt: A window is damaged.
        msgspec.DecodeError: A revision is.
    """
    if is_whiteout(value):
        return 0
    if key[:1] == b"E":
        return unpack_window(value).data_bytes()
    revision = decode_revision(value)
    if revision.windowed or revision.base:  # windows and what lies below count for themselves
        return sum(extent.length for extent in revision.extents) + len(revision.inline or b"")
    return revision.size
