"""The anchor of an audit log: a row in the metadata that says where the chain begins and how far it has come.

Without it, somebody who may write the files could take lines off the end, or make the whole chain anew. Key: `u` and the
node's identity.
"""

from __future__ import annotations

from typing import Final

import msgspec

from warp_core.audit.files import NO_HEAD, Head
from warp_core.errors import NewerFormat
from warp_core.interfaces.consistency import Commit, MetaStore, Write

FORMAT: Final = 1
PREFIX: Final = b"u"


class Anchor(msgspec.Struct, frozen=True, array_like=True):
    """What the row says.

    Attributes:
        before: The line before the oldest that is kept, as (number, hash): older files were removed by rotation.
        head: The newest line that the row knows of; there may be some more.
        time_ns: When that was written.
    """

    format: int = FORMAT
    before: Head = NO_HEAD
    head: Head = NO_HEAD
    time_ns: int = 0


_decoder = msgspec.msgpack.Decoder(Anchor)


def key_of(node: str) -> bytes:
    """Return the key of a node's anchor."""
    return PREFIX + node.encode()


async def read_anchor(store: MetaStore, node: str) -> Anchor | None:
    """Return a node's anchor, if there is one.

    Raises:
        NewerFormat: A later release wrote it.
    """
    view = store.view()
    try:
        found = await view.get(key_of(node))
    finally:
        view.close()
    if found is None:
        return None
    anchor = _decoder.decode(found[0])
    if anchor.format > FORMAT:
        raise NewerFormat(
            f"the audit log's anchor has format {anchor.format}, this release reads {FORMAT}"
        )
    return anchor


async def write_anchor(store: MetaStore, node: str, anchor: Anchor) -> None:
    """Write a node's anchor; nobody else writes it."""
    await store.commit(Commit(writes=[Write(key_of(node), msgspec.msgpack.encode(anchor))]))
