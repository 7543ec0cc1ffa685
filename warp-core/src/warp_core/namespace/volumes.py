"""Volumes: their rows, kept in memory so that a request finds its volume without reading."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final, Literal

import msgspec

from warp_core.errors import (
    AlreadyExists,
    AlreadyOwned,
    Busy,
    InvalidArgument,
    NewerFormat,
    NotEmpty,
    NotFound,
    ReadOnly,
    VolumeNotFound,
)
from warp_core.interfaces.consistency import SCAN_MAX, MetaStore, View
from warp_core.metadata import Transaction, transact
from warp_core.namespace import keys
from warp_core.namespace.rows import (
    FORMAT,
    VolumeRow,
    checked,
    decode_snapshot,
    decode_volume,
    encode,
    is_whiteout,
)
from warp_core.namespace.tree import Volume, VolumeTransaction
from warp_core.views.objects import VolumeLock

Versioning = Literal["off", "on", "suspended"]

NAME_MAX: Final = 255  # bytes; protocols have rules of their own
SNAPSHOT_MARK: Final = ".snap-"  # VOLUME.snap-NAME is a snapshot as a volume
DELETED: Final = "\x7f"  # begins the name of a deleted volume, of which rows remain
DOCUMENT_MAX: Final = 60 * 1024
VOLUMES_MAX: Final = 1 << 32  # numbers are 4 bytes and never used again

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")


class Volumes:
    """The volumes of a MetaStore. What is kept in memory is checked by every transaction, so that a change elsewhere is a conflict."""

    def __init__(self, store: MetaStore, clock_ns: Callable[[], int]) -> None:
        self._store = store
        self._clock_ns = clock_ns
        self._known: dict[str, Volume] = {}
        self._deleted: dict[str, Volume] = {}
        self._documents: dict[int, tuple[int, dict[str, bytes]]] = {}

    def known(self, name: str) -> Volume | None:
        """Return the volume if it is in memory."""
        return self._known.get(name)

    async def get(self, name: str) -> Volume:
        """Return a volume, or a snapshot of one by the name VOLUME.snap-NAME.

        Raises:
            VolumeNotFound: There is none.
        """
        found = self._known.get(name)
        if found is None:
            if name.startswith(DELETED):
                raise VolumeNotFound(f"no volume {name!r}")
            view = self._store.view()
            try:
                found = await self._load(name, view)
            finally:
                view.close()
        return found

    async def any(self, name: str) -> Volume:
        """Return a volume as `get`, or a deleted one by the name that it has since.

        Raises:
            VolumeNotFound
        """
        found = self._known.get(name) or self._deleted.get(name)
        if found is None:
            if not name.startswith(DELETED):
                return await self.get(name)
            view = self._store.view()
            try:
                found = await self._load(name, view)
            finally:
                view.close()
        return found

    async def writable(self, name: str) -> Volume:
        """Return a volume that may be changed.

        Raises:
            VolumeNotFound, ReadOnly
        """
        volume = self._known.get(name) or await self.get(name)
        demand_writable(volume, name)
        return volume

    async def numbered(self, number: int) -> Volume:
        """Return a volume by its number.

        Raises:
            VolumeNotFound: It was deleted.
        """
        view = self._store.view()
        try:
            found = await view.get(keys.volume_number_key(number))
        finally:
            view.close()
        if found is None:
            raise VolumeNotFound(f"no volume has number {number}")
        return await self.any(found[0].decode())

    async def reload(self, name: str) -> Volume:
        """Read a volume anew, after a transaction that relied on it was refused. Who has it at hand is not disturbed meanwhile.

        Raises:
            VolumeNotFound: It was deleted.
        """
        if name.startswith(DELETED):
            self.forget(name)
            return await self.any(name)
        view = self._store.view()
        try:
            found = await self._load(name, view)
        except VolumeNotFound:
            self.forget(name)
            raise
        finally:
            view.close()
        self._forget_snapshots(name)
        return found

    def forget(self, name: str) -> None:
        """Drop what memory has of a volume and its snapshots."""
        self._known.pop(name, None)
        self._deleted.pop(name, None)
        self._forget_snapshots(name)

    def _forget_snapshots(self, name: str) -> None:
        mark = name + SNAPSHOT_MARK
        for other in [other for other in self._known if other.startswith(mark)]:
            del self._known[other]

    async def _load(self, name: str, view: View) -> Volume:
        found = await view.get(keys.volume_name_key(name)) if len(name) <= NAME_MAX else None
        if found is None:
            return await self._load_snapshot(name, view)
        row: VolumeRow = checked(decode_volume, keys.volume_name_key(name), found[0])
        if row.format > FORMAT:
            raise NewerFormat(
                f"volume {name!r} is of format {row.format}, this server reads up to {FORMAT}"
            )
        bases = await self._bases(row, view)
        # While it is rolled back it shows what it will be.
        volume = Volume(row, found[1], keys.prefix(row.number), bases, row.rolling)
        (self._deleted if name.startswith(DELETED) else self._known)[name] = volume
        return volume

    async def _load_snapshot(self, name: str, view: View) -> Volume:
        parent, mark, snapshot = name.rpartition(SNAPSHOT_MARK)
        if not mark or not parent:
            raise VolumeNotFound(f"no volume {name!r}")
        volume = self._known.get(parent) or await self._load(parent, view)
        number = await find_snapshot(view, volume, snapshot)
        if volume.snapshot != volume.row.rolling or not number:
            raise VolumeNotFound(f"volume {parent!r} has no snapshot {snapshot!r}")
        self._known[name] = shown = replace(volume, snapshot=number)
        return shown

    async def _bases(self, row: VolumeRow, view: View) -> tuple[tuple[int, int], ...]:
        bases: list[tuple[int, int]] = []
        base = row.base
        while base is not None:
            bases.append(base)
            name = await view.get(keys.volume_number_key(base[0]))
            found = await view.get(keys.NAMES + name[0]) if name else None
            base = decode_volume(found[0]).base if found else None
        return tuple(bases)

    async def all(self, *, deleted: bool = False) -> list[Volume]:
        """Return every volume by name; with `deleted` also those of which rows remain."""
        found: list[Volume] = []
        start = keys.NAMES
        while True:
            view = self._store.view()
            try:
                page = await view.scan(start, keys.NAMES_END)
                names = [row.key[1:].decode() for row in page]
                found += [
                    await self._load(name, view)
                    for name in names
                    if deleted or not name.startswith(DELETED)
                ]
            finally:
                view.close()
            if len(page) < SCAN_MAX:
                return found
            start = page[-1].key + b"\0"

    async def create(
        self,
        name: str,
        *,
        owner: str,
        base: tuple[int, int] | None = None,
        policy: dict[str, str] | None = None,
        versioning: str = "off",
        lock: VolumeLock | None = None,
    ) -> Volume:
        """Make a volume; with `base` a clone of (volume, snapshot), whose row the caller has marked.

        Raises:
            AlreadyOwned, AlreadyExists: The name is taken, by the same owner or another.
            InvalidArgument: Not a name that a volume can have.
        """
        if not _NAME.match(name) or len(name) > NAME_MAX or SNAPSHOT_MARK in name:
            raise InvalidArgument(
                f"volume name {name!r}: 1 to {NAME_MAX} letters, digits, dots, dashes and"
                f" underscores, not beginning with a sign, without {SNAPSHOT_MARK!r}"
            )

        async def body(tx: Transaction) -> None:
            taken = await tx.get(keys.volume_name_key(name))
            if taken is not None:
                mine = decode_volume(taken).owner == owner
                raise (AlreadyOwned if mine else AlreadyExists)(f"volume {name!r} exists")
            last = await tx.get(keys.NUMBERS)
            number = int.from_bytes(last, "big") + 1 if last else 1
            if number >= VOLUMES_MAX:
                raise InvalidArgument(f"{VOLUMES_MAX} volumes were made: no number is left")
            tx.put(keys.NUMBERS, number.to_bytes(4, "big"))
            tx.put(keys.volume_number_key(number), name.encode())
            row = VolumeRow(
                FORMAT,
                number,
                name,
                self._clock_ns(),
                owner,
                versioning,
                base=base,
                policy=policy or {},
                lock=lock,
            )
            tx.put(keys.volume_name_key(name), encode(row))

        await transact(self._store, body)
        return await self.reload(name)

    async def update(
        self, name: str, change: Callable[[VolumeRow, Transaction], Awaitable[VolumeRow]]
    ) -> Volume:
        """Change a volume's row: what takes its row and a transaction, and returns the new row.

        Raises:
            VolumeNotFound
            Busy: It is being rolled back.
        """

        async def body(tx: Transaction) -> None:
            key = keys.volume_name_key(name)
            value = await tx.get(key)
            if value is None:
                raise VolumeNotFound(f"no volume {name!r}")
            old: VolumeRow = checked(decode_volume, key, value)
            demand_thawed(old)
            tx.put(key, encode(await change(old, tx)))

        await transact(self._store, body)
        return await self.reload(name)

    async def freeze(self, name: str, snapshot: str) -> int:
        """Let nothing change a volume until `thaw`; return the number of one of its snapshots.

        Raises:
            VolumeNotFound, NotFound
            Busy: It is frozen already.
        """
        found = 0

        async def change(row: VolumeRow, tx: Transaction) -> VolumeRow:
            nonlocal found
            prefix = keys.prefix(row.number)
            start, end = (prefix + bound for bound in keys.SNAPSHOTS)
            found = 0
            while not found and (page := await tx.scan(start, end)):
                for each in page:
                    kept = decode_snapshot(each.value)
                    if kept.name == snapshot and not kept.state:
                        found = int.from_bytes(each.key[-8:], "big")
                start = page[-1].key + b"\0"
            if not found:
                raise NotFound(f"volume {name!r} has no snapshot {snapshot!r}")
            return msgspec.structs.replace(row, frozen=True)

        await self.update(name, change)
        return found

    async def thaw(self, name: str, *, rolling: int = 0) -> Volume:
        """Let a frozen volume be changed again; with `rolling` let it show that snapshot instead, until it is as it was then.

        Raises:
            VolumeNotFound
        """

        async def body(tx: Transaction) -> None:
            key = keys.volume_name_key(name)
            value = await tx.get(key)
            if value is None:
                raise VolumeNotFound(f"no volume {name!r}")
            row: VolumeRow = checked(decode_volume, key, value)
            row = msgspec.structs.replace(
                row, frozen=bool(rolling), rolling=rolling, rolled=row.rolled or bool(rolling)
            )
            tx.put(key, encode(row))

        await transact(self._store, body)
        return await self.reload(name)

    async def delete(
        self, name: str, may_go: Callable[[VolumeTransaction], Awaitable[None]]
    ) -> None:
        """Delete a volume; `may_go` raises where it must stay.

        Until `upkeep` has removed its rows it has a name that nobody can ask for.

        Raises:
            VolumeNotFound, NotEmpty
        """

        async def body(tx: Transaction) -> None:
            key = keys.volume_name_key(name)
            value = await tx.get(key)
            if value is None:
                raise VolumeNotFound(f"no volume {name!r}")
            row: VolumeRow = checked(decode_volume, key, value)
            demand_thawed(row)
            prefix = keys.prefix(row.number)
            if await tx.scan(prefix + keys.SNAPSHOTS[0], prefix + keys.SNAPSHOTS[1], limit=1):
                raise NotEmpty(f"volume {name!r} has snapshots: remove them first")
            volume = await self.get(name)
            await may_go(VolumeTransaction(tx, volume))
            gone = f"{DELETED}{row.number}"
            tx.delete(key)
            base = row.base
            held = await tx.scan(prefix + b"X", prefix + b"Y", limit=1)
            orphans = await tx.scan(*(prefix + bound for bound in keys.ORPHANS))
            open_ = any(not is_whiteout(orphan.value) for orphan in orphans)
            if base is not None and not held and not open_:
                # Nobody reads through it any more. While others borrow from here, or have files open, `upkeep` does this in the end.
                await unpin(tx, row.number, base)
                base = None
            kept = msgspec.structs.replace(row, name=gone, base=base)
            tx.put(keys.volume_name_key(gone), encode(kept))
            tx.put(keys.volume_number_key(row.number), gone.encode())

        try:
            await transact(self._store, body)
        finally:
            self.forget(name)

    # Documents ------------------------------------------------------------------------------------

    def documents_now(self, volume: Volume) -> dict[str, bytes] | None:
        """Return the documents of a volume if they are in memory."""
        known = self._documents.get(volume.number)
        return known[1] if known is not None and known[0] == volume.row.settings else None

    async def documents(self, volume: Volume) -> dict[str, bytes]:
        """Return the documents that protocols keep with a volume."""
        known = self.documents_now(volume)
        if known is not None:
            return known
        view = self._store.view()
        try:
            start, end = (volume.prefix + bound for bound in keys.DOCUMENTS)
            found = await view.scan(start, end)
        finally:
            view.close()
        documents = {row.key[len(start) :].decode(): row.value for row in found}
        self._documents[volume.number] = (volume.row.settings, documents)
        return documents

    async def set_document(self, name: str, document: str, content: bytes | None) -> None:
        """Keep or drop a document.

        Raises:
            InvalidArgument: More than DOCUMENT_MAX bytes, or a name over 100 bytes.
        """
        if content is not None and len(content) > DOCUMENT_MAX:
            raise InvalidArgument(f"document of {len(content)} bytes > {DOCUMENT_MAX}")
        if not 0 < len(document.encode()) <= 100:
            raise InvalidArgument(f"document name {document!r}: 1 to 100 bytes")

        async def change(row: VolumeRow, tx: Transaction) -> VolumeRow:
            key = keys.prefix(row.number) + keys.document_key(document)
            if content is None:
                tx.delete(key)
            else:
                tx.put(key, content)
            return msgspec.structs.replace(row, settings=row.settings + 1)

        await self.update(name, change)


def demand_thawed(row: VolumeRow) -> None:
    """Raise while nothing may change a volume.

    Raises:
        Busy
    """
    if row.frozen:
        raise Busy(f"volume {row.name!r} is being rolled back")


def demand_writable(volume: Volume, name: str) -> None:
    """Raise where a volume, or a snapshot as one, cannot be changed.

    Raises:
        Busy, ReadOnly
    """
    if volume.snapshot != volume.row.rolling or volume.row.read_only:
        raise ReadOnly(f"volume {name!r} is read only")
    demand_thawed(volume.row)


async def unpin(tx: Transaction, clone: int, base: tuple[int, int]) -> None:
    """Let the snapshot go that a deleted clone read through."""
    key = keys.prefix(base[0]) + keys.snapshot_key(base[1])
    value = await tx.get(key)
    if value is not None:
        held = decode_snapshot(value)
        clones = tuple(number for number in held.clones if number != clone)
        tx.put(key, encode(msgspec.structs.replace(held, clones=clones)))


async def find_snapshot(view: View, volume: Volume, name: str) -> int:
    """Return the number of a volume's snapshot, 0 if it has none of that name."""
    start, end = (volume.prefix + bound for bound in keys.SNAPSHOTS)
    while page := await view.scan(start, end):
        for row in page:
            snapshot = decode_snapshot(row.value)
            if snapshot.name == name and not snapshot.state:
                return int.from_bytes(row.key[-8:], "big")
        start = page[-1].key + b"\0"
    return 0
