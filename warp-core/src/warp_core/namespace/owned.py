"""What a change of inodes' rows does to what users and groups have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from warp_core.namespace.inodes import Inode, decode_inode
from warp_core.namespace.pools import Amount
from warp_core.namespace.rows import FILE, is_whiteout

Rows = Iterable[tuple[bytes | None, bytes | None]]  # an inode's row before and after


def owners_of(inode: Inode) -> tuple[str, str]:
    """Return whom a file belongs to, as limits name them."""
    return f"uid:{inode.uid}", f"gid:{inode.gid}"


def growth(changed: Rows) -> dict[str, Amount]:
    """Return by how much each user and group has more after a change; those that stay as they are do not appear."""
    found: dict[str, list[int]] = {}
    for rows in changed:
        for sign, value in zip((-1, 1), rows, strict=True):
            if value is None or is_whiteout(value):
                continue
            inode = decode_inode(value)
            if inode.kind == FILE:
                for owner in owners_of(inode):
                    sums = found.setdefault(owner, [0, 0])
                    sums[0] += sign
                    sums[1] += sign * inode.size
    return {owner: Amount(*sums) for owner, sums in found.items() if any(sums)}


def differences(expected: Mapping[str, Amount], found: Mapping[str, Amount]) -> dict[str, Amount]:
    """Return found less expected, where that is anything."""
    off = {}
    for owner in expected.keys() | found.keys():
        have, should = found.get(owner, Amount()), expected.get(owner, Amount())
        if have != should:
            off[owner] = Amount(have.objects - should.objects, have.bytes - should.bytes)
    return off
