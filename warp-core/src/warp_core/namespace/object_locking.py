"""Object lock of versions that are there: retention and legal hold, changed while nobody writes to them in place."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import msgspec

from warp_core.errors import InvalidArgument
from warp_core.namespace.changes import Change
from warp_core.namespace.namespace import Namespace
from warp_core.namespace.object_changes import event_of
from warp_core.namespace.object_sources import find_object
from warp_core.namespace.opens import HERE, Access, Owner
from warp_core.namespace.retention import check_change, check_moment
from warp_core.namespace.rows import Revision
from warp_core.namespace.tree import ViewSource, Volume
from warp_core.namespace.versions import version_id

May = Callable[[Revision], Awaitable[None]]


async def set_retention(
    namespace: Namespace,
    volume: str,
    key: bytes,
    version: str,
    mode: str,
    until_ns: int,
    *,
    bypass: bool,
) -> str:
    """See `Objects.set_retention`."""
    clock = namespace.lock_clock
    if mode:
        await check_moment(clock, until_ns)
    until_ns = until_ns if mode else 0

    async def may(revision: Revision) -> None:
        await check_change(clock, revision, mode, until_ns, bypass=bypass)

    return await _set(
        namespace, volume, key, version, may, retain_mode=mode, retain_until_ns=until_ns
    )


async def set_legal_hold(
    namespace: Namespace, volume: str, key: bytes, version: str, *, held: bool
) -> str:
    """See `Objects.set_legal_hold`."""

    async def may(revision: Revision) -> None:
        return

    return await _set(namespace, volume, key, version, may, legal_hold=held)


class _Replaced(Exception):
    """The name leads to another file than before."""


async def _set(
    namespace: Namespace, volume: str, key: bytes, version: str, may: May, **fields: object
) -> str:
    found = await namespace.volumes.writable(volume)
    if found.row.lock is None:
        raise InvalidArgument(f"volume {volume!r} has no object lock")
    while True:
        view = namespace.store.view()
        try:
            stored = found.rows(ViewSource(view))
            inode = (await find_object(namespace.apart, stored, key, version)).inode
        finally:
            view.close()

        async def body(change: Change, inode: int = inode) -> str:
            name = await find_object(change.apart, change.rows, key, version)
            if name.inode != inode:
                raise _Replaced
            revision = await change.revision(name.revision)
            await may(revision)
            changed = msgspec.structs.replace(revision, born=change.epoch, **fields)
            await change.put_revision(name.revision, changed)
            await change.note_attributes(key)
            change.tell(event_of("lock", change, key, name))
            return version_id(name)

        try:
            async with _unwritten(namespace, found, inode):
                return await namespace.change(volume, body)
        except _Replaced:
            continue


@asynccontextmanager
async def _unwritten(namespace: Namespace, volume: Volume, inode: int) -> AsyncIterator[None]:
    """Let nobody open a file for writing during the block.

    Raises:
        Locked: Somebody has it open for writing.
    """
    opens = namespace.opens
    if opens is None:
        yield
        return
    owner = Owner(HERE, f"lock {inode}".encode())
    claim = await opens.open(volume.number, inode, owner, Access.READ, Access.WRITE)
    try:
        if namespace.apart is not None:
            await namespace.apart.settle(volume.number, inode)
        yield
    finally:
        opens.close(claim)
