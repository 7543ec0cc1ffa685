"""The reference of the Objects view as the S3 server's own tests need it: it waits, breaks off and fails on request, and counts."""

import asyncio
from typing import Any

from warp_conformance.model import File, Version
from warp_conformance.reference.object_content import PlainReader, PlainWriter
from warp_conformance.reference.objects import PlainObjects
from warp_core.interfaces.stores import Buffer
from warp_core.views.objects import ALWAYS, Condition, Digests, ObjectInfo, Reader, Writer


class MemoryReader(PlainReader):
    """Bytes in memory."""

    def __init__(self, plain: PlainReader, owner: "MemoryObjects") -> None:
        super().__init__(plain.info, plain.content[: owner.cut_at])
        self._owner = owner
        self._open = True
        owner.open_readers += 1

    def read_now(self, offset: int, length: int) -> Buffer | None:
        return None if self._owner.waits else super().read_now(offset, length)

    async def read(self, offset: int, length: int) -> Buffer:
        await self._owner.pause()
        return await super().read(offset, length)

    def close(self) -> None:
        if self._open:
            self._open = False
            self._owner.open_readers -= 1


class MemoryWriter(PlainWriter):
    """Collects bytes."""

    def __init__(self, plain: PlainWriter, owner: "MemoryObjects") -> None:
        super().__init__(plain._link)
        self._owner = owner
        self._open = True
        owner.open_writers += 1

    async def drain(self) -> None:
        await self._owner.pause()
        await super().drain()

    async def commit(self, digests: Digests) -> ObjectInfo:
        try:
            return await super().commit(digests)
        finally:
            self._close()

    async def abort(self) -> None:
        self._close()

    def _close(self) -> None:
        if self._open:
            self._open = False
            self._owner.open_writers -= 1


class MemoryObjects(PlainObjects):
    """The view over dictionaries.

    Attributes:
        waits: Reads and writes suspend.
        cut_at: Where every object ends, whatever its size says: as a defect below would.
        failure: What reads and writes raise.
        open_readers, open_writers: How many have not been closed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits = False
        self.cut_at: int | None = None
        self.failure: BaseException | None = None
        self.open_readers = 0
        self.open_writers = 0

    async def pause(self) -> None:
        self._fail()
        if self.waits:
            await asyncio.sleep(0)

    def _fail(self) -> None:
        if self.failure is not None:
            raise self.failure

    def find(self, volume: str, key: bytes, version: str) -> Version:
        self._fail()
        return super().find(volume, key, version)

    def link(
        self, volume: str, key: bytes, file: File, condition: Condition = ALWAYS
    ) -> ObjectInfo:
        self._fail()
        return super().link(volume, key, file, condition)

    async def open(
        self, volume: str, key: bytes, *, version: str = "", secret: bytes = b""
    ) -> Reader:
        plain = await super().open(volume, key, version=version, secret=secret)
        assert isinstance(plain, PlainReader)
        return MemoryReader(plain, self)

    async def writer(self, *args: Any, **kwargs: Any) -> Writer:
        plain = await super().writer(*args, **kwargs)
        assert isinstance(plain, PlainWriter)
        return MemoryWriter(plain, self)

    async def part_writer(self, *args: Any, **kwargs: Any) -> Writer:
        plain = await super().part_writer(*args, **kwargs)
        assert isinstance(plain, PlainWriter)
        return MemoryWriter(plain, self)
