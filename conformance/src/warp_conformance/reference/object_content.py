"""Content of the model's objects: read, collected, never sealed."""

from __future__ import annotations

from warp_core.errors import Sealed, Unsupported
from warp_core.interfaces.stores import Buffer
from warp_core.views.objects import Digests, ObjectInfo, Reader, Sealing, Writer

BUFFER = 64 * 1024


class PlainReader(Reader):
    """Bytes that stay what they are."""

    def __init__(self, info: ObjectInfo, content: bytes) -> None:
        self.info = info
        self.content = content

    def read_now(self, offset: int, length: int) -> Buffer | None:
        """See `Reader`."""
        return self.content[offset : offset + min(length, 1 << 20)]

    async def read(self, offset: int, length: int) -> Buffer:
        """See `Reader`."""
        return self.content[offset : offset + min(length, 1 << 20)]

    def close(self) -> None:
        """See `Reader`."""


class PlainWriter(Writer):
    """Collects bytes; `link` gets them at the end."""

    def __init__(self, link: object) -> None:
        self._link = link
        self.content = bytearray()
        self._buffer = bytearray(BUFFER)
        self._used = 0

    def buffer(self) -> memoryview:
        """See `Writer`."""
        return memoryview(self._buffer)[self._used :]

    def wrote(self, length: int) -> bool:
        """See `Writer`."""
        self._used += length
        return self._used == BUFFER

    async def drain(self) -> None:
        """See `Writer`."""
        self.content += self._buffer[: self._used]
        self._used = 0

    async def write(self, data: Buffer) -> None:
        """See `Writer`."""
        await self.drain()
        self.content += data

    async def commit(self, digests: Digests) -> ObjectInfo:
        """See `Writer`."""
        await self.drain()
        made: ObjectInfo = self._link(bytes(self.content), digests)  # type: ignore[operator]
        return made

    async def abort(self) -> None:
        """See `Writer`."""


def refuse_sealing(sealing: Sealing | None) -> None:
    """Refuse to keep encrypted what lies in a dictionary."""
    if sealing is not None:
        raise Unsupported("dictionaries seal nothing")


def refuse_secret(secret: bytes | None) -> None:
    """Refuse a secret: nothing here is sealed."""
    if secret:
        raise Sealed("nothing is sealed here", why="needless")
