"""What is exported: disks by VOLUME/PATH, their snapshots by VOLUME/PATH@SNAPSHOT, and the default export."""

from fnmatch import fnmatchcase
from typing import Final, NamedTuple

from warp_core.errors import InvalidArgument, NotFound
from warp_core.views.blocks import Blocks, Disk

from warp_nbd.config import Config
from warp_nbd.wire import NAME_MAX, Transmission

LISTED_MAX: Final = 10_000
"""Names in one list: a client that shows more has no reader."""

READABLE: Final = (
    Transmission.HAS_FLAGS
    | Transmission.SEND_FLUSH
    | Transmission.SEND_FUA
    | Transmission.SEND_DF
    | Transmission.CAN_MULTI_CONN  # a flush covers the writes of all connections: so the Blocks view says
    | Transmission.SEND_CACHE
)
WRITABLE: Final = READABLE | (
    Transmission.SEND_TRIM | Transmission.SEND_WRITE_ZEROES | Transmission.SEND_FAST_ZERO
)


class Place(NamedTuple):
    """Where an export's bytes are."""

    volume: str
    path: bytes
    snapshot: str


class Export(NamedTuple):
    """What INFO and GO tell of one."""

    name: str
    size: int
    flags: int
    description: str


class Exports:
    """Finds, lists and opens what the configuration lets out."""

    def __init__(self, config: Config, blocks: Blocks) -> None:
        """Take the options and the view."""
        self._config = config
        self._blocks = blocks

    async def names(self) -> list[str]:
        """Return the names of all exported disks, sorted; snapshots are found by name only."""
        disks = await self._blocks.disks()
        names = [name for disk in disks if (name := self.name_of(disk.volume, disk.path))]
        return sorted(names)[:LISTED_MAX]

    def name_of(self, volume: str, path: bytes) -> str:
        """Return the name a disk is exported under, "" if it is not: what is no text, or too long, NBD cannot say."""
        try:
            name = f"{volume}/{path.decode()}"
        except UnicodeDecodeError:
            return ""
        return name if len(name.encode()) <= NAME_MAX and self._exported(name) else ""

    async def describe(self, name: str) -> tuple[Place, Export]:
        """Return where an export is and what it is.

        Raises:
            NotFound: There is no such export.
            InvalidArgument: It is no disk.
        """
        if not name:
            name = await self._default()
        first = self._place(name)
        try:
            return await self._described(name, first)
        except (NotFound, InvalidArgument):
            before, at, snapshot = name.rpartition("@")
            if not at or not snapshot:
                raise
            return await self._described(name, self._place(before)._replace(snapshot=snapshot))

    async def open(self, name: str, initiator: str) -> tuple[Export, Disk]:
        """Open an export for one connection; raises as `describe`, and what `Blocks.open` does."""
        place, export = await self.describe(name)
        disk = await self._blocks.open(
            place.volume,
            place.path,
            initiator=initiator,
            read_only=bool(export.flags & Transmission.READ_ONLY),
            snapshot=place.snapshot,
        )
        return export._replace(size=disk.size), disk

    async def _default(self) -> str:
        if self._config.default_export:
            return self._config.default_export
        names = await self.names()
        if len(names) != 1:
            raise NotFound(f"{len(names)} disks are exported, so none is the default: name one")
        return names[0]

    async def _described(self, name: str, place: Place) -> tuple[Place, Export]:
        info = await self._blocks.show(place.volume, place.path, snapshot=place.snapshot)
        read_only = info.read_only or self._config.read_only or bool(place.snapshot)
        flags = READABLE | Transmission.READ_ONLY if read_only else WRITABLE
        kind = f"snapshot {place.snapshot} of disk" if place.snapshot else "disk"
        described = f"WARP {kind} {info.serial} in volume {info.volume}"
        return place, Export(name, info.size, int(flags), described)

    def _place(self, name: str) -> Place:
        volume, slash, path = name.partition("/")
        if not slash or not volume or not path or not self._exported(name):
            raise NotFound(f"there is no export {name!r}")
        return Place(volume, path.encode(), "")

    def _exported(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self._config.exports)
