"""Open files: what a handle may do, on the content that all handles of a file share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, Literal

from warp_core.errors import (
    InvalidArgument,
    OutOfRange,
    PermissionDenied,
    ReadOnly,
    StaleHandle,
    StoreFailed,
    TooLarge,
    WarpError,
)
from warp_core.interfaces.stores import Buffer
from warp_core.namespace.contents import Content
from warp_core.namespace.extents import CHUNK_MAX, split
from warp_core.namespace.leases import FOR_READ, FOR_WRITE
from warp_core.namespace.opens import Access, Open, Opens, Owner
from warp_core.views.files import FILE_SIZE_MAX, IO_MAX, FileInfo, OpenFile, Ref

SET_IDS: Final = 0o6000
AT_ONCE: Final = 2 * CHUNK_MAX  # bytes appended without waiting in between: a mount's largest write


class NamespaceFile(OpenFile):
    """A handle. `on_close` gives the content back; `begin_edit` keeps a version of it; `room` whether so much more fits."""

    def __init__(
        self,
        ref: Ref,
        number: int,
        content: Content,
        opens: Opens,
        opened: Open | None,
        owner: Owner,
        access: Access,
        *,
        on_close: Callable[[], Awaitable[None]],
        stat: Callable[[Ref], Awaitable[FileInfo]],
        room: Callable[[int], Awaitable[None]],
        begin_edit: Callable[[], Awaitable[None]],
        clears: Callable[[], Awaitable[None]] | None = None,
        appends: bool = False,
        seen: Callable[[], None] | None = None,
    ) -> None:
        """Take what an open found.

        Args:
            clears: Takes the set-id bits from the file, which a write through this handle does; None: it is the superuser's.
            appends: The access control list allows writing at the end only.
        """
        self.ref = ref
        self.access = access
        self.owner = owner
        self.content = content
        self._node = (number, ref.inode)
        self._opens = opens
        self._opened = opened  # None: in a snapshot, where nothing conflicts
        self._on_close = on_close
        self._stat = stat
        self._room = room
        self._clears = clears
        self._appends = appends
        self._seen = seen  # told of each read
        self._begin_edit = begin_edit
        self._closed = False
        self._failures_seen = content.failures
        # The access that was last found to allow reads, and writes: to look at its flags costs as much as all else.
        self._reads: Access | None = None
        self._writes: Access | None = None

    @property
    def size(self) -> int:
        """The file's size now."""
        return self.content.size

    async def read(self, offset: int, length: int) -> Buffer:
        """See `OpenFile.read`."""
        self._check(Access.READ)
        _check_range(offset, length)
        if length > IO_MAX:
            raise TooLarge(f"read of {length} bytes > IO_MAX {IO_MAX}")
        if self._opened is not None:
            await self._opens.recall(*self._node, FOR_READ, by=self.owner)
        if self._seen is not None:
            self._seen()
        return await self.content.read(offset, length)

    async def read_runs(self, offset: int, length: int) -> list[tuple[int, int, Buffer | None]]:
        """Return (offset, length, bytes) of each run of data, and of each hole without bytes; raises as `read`."""
        self._check(Access.READ)
        _check_range(offset, length)
        if length > IO_MAX:
            raise TooLarge(f"read of {length} bytes > IO_MAX {IO_MAX}")
        if self._opened is not None:
            await self._opens.recall(*self._node, FOR_READ, by=self.owner)
        return await self.content.read_runs(offset, length)

    def read_runs_now(
        self, offset: int, length: int
    ) -> list[tuple[int, int, Buffer | None]] | None:
        """Return what `read_runs` would if nobody and nothing has to be waited for, else None; the range is inside the file."""
        content = self.content
        if self._opened is None or self._closed or content.gone or self._opened.closed:
            self._check(Access.READ)  # nobody is asked for a snapshot
        elif self._reads is not self._opened.access:
            self._check(Access.READ)
            self._reads = self._opened.access
        if self._opened is not None and self._opens.leased_to_any(self._node):
            return None
        return content.read_runs_now(offset, length)

    def write_now(self, offset: int, data: Buffer) -> bool:
        """Write like `write` if nobody and nothing has to be waited for, and say whether it was done; at most CHUNK_MAX bytes."""
        length = len(data)
        content = self.content
        opened = self._opened
        if opened is None or self._closed or content.gone or opened.closed:
            self._check(Access.WRITE)
        elif self._writes is not opened.access:
            self._check(Access.WRITE)
            self._writes = opened.access
        if (
            length > CHUNK_MAX
            or self._clears is not None
            or content.unedited
            or self._opens.leased_to_any(self._node)
            or not content.ready_now(length)
        ):
            return False
        if not content.inode.disk or offset + length > content.size:
            self._check_end(offset + length)
        allowance = content.allowance
        if allowance is not None and not allowance.admit_now(content.size, offset, offset + length):
            return False
        content.write(offset, data)
        return True

    async def write(self, offset: int, data: Buffer, *, sync: bool = False) -> int:
        """See `OpenFile.write`."""
        length = len(data)
        _check_range(offset, length)
        if not length:  # it begins no edit
            self._check(Access.WRITE)
            self._check_end(offset)
            return 0
        await self._begin(offset, offset + length)
        await self._prepare(min(length, CHUNK_MAX))
        if self._appends and offset != self.content.size:
            raise PermissionDenied(f"inode {self.ref.inode} may only be appended to")
        self._check_end(offset + length)
        self._admit(offset, offset + length)
        await self._write(offset, data)
        if sync:
            await self.sync()
        return length

    async def append(self, data: Buffer, *, sync: bool = False) -> int:
        """See `OpenFile.append`."""
        if not len(data):
            self._check(Access.WRITE)
            return self.content.size
        length = len(data)
        await self._begin(self.content.size, self.content.size + length)
        if length > AT_ONCE:
            async with self.content.appending:
                await self._prepare(CHUNK_MAX)
                offset = self._end_for(length)
                await self._write(offset, data)
        else:
            # Nobody waits for the lock who may have to give a lease back for the one that holds it.
            await self._prepare(length)
            while self.content.appending.locked():
                async with self.content.appending:
                    pass
                await self._prepare(length)
            offset = self._end_for(length)
            for start, end in split(offset, offset + length):
                self.content.write(start, memoryview(data)[start - offset : end - offset])
        if sync:
            await self.sync()
        return offset

    def _end_for(self, length: int) -> int:
        """Return where to append; nothing may wait between here and the first part's write."""
        offset = self.content.size
        self._check_end(offset + length)
        self._admit(offset, offset + length)
        return offset

    async def _write(self, offset: int, data: Buffer) -> None:
        """Write part by part, each after asking the log for room; the first part was prepared."""
        view = memoryview(data)
        for start, end in split(offset, offset + len(view)):
            if start > offset:
                await self._room_for(end - start)
            self.content.write(start, view[start - offset : end - offset])

    async def sync(self) -> None:
        """See `OpenFile.sync`."""
        content = self.content
        try:
            await content.sync()
        except WarpError:
            content.failures += 1
            raise
        finally:
            seen, self._failures_seen = self._failures_seen, content.failures
        if seen != content.failures:  # another handle's sync failed since this one last looked
            raise StoreFailed(f"what was written to inode {self.ref.inode} may not be durable")

    async def truncate(self, size: int) -> None:
        """See `OpenFile.truncate`."""
        if not 0 <= size <= FILE_SIZE_MAX:
            raise TooLarge(f"size {size} > FILE_SIZE_MAX {FILE_SIZE_MAX}")
        await self._begin(self.content.size, size)
        await self._prepare_anywhere()
        if self.content.inode.disk:
            raise InvalidArgument(f"inode {self.ref.inode} is a disk: its size is fixed")
        self._admit(self.content.size, size)
        self.content.truncate(size)

    async def empty(self) -> None:
        """Truncate for who opened the file so, which takes no handle that may write (O_RDONLY | O_TRUNC)."""
        await self._room_for(0)
        self.content.truncate(0)

    async def allocate(self, offset: int, length: int, *, keep_size: bool = False) -> None:
        """See `OpenFile.allocate`."""
        _check_range(offset, length)
        if not length:
            raise InvalidArgument("nothing to allocate")
        await self._prepare_anywhere()
        self._check_end(offset + length)
        await self._room(length)
        await self._prepare(0)  # the room was waited for
        size = self.content.size
        if not keep_size and offset + length > size:
            self._admit(size, offset + length)
            size = offset + length
        # Also where it stays as long: the file counts as changed, as in Linux's own file systems.
        self.content.truncate(size)

    async def punch(self, offset: int, length: int) -> None:
        """See `OpenFile.punch`."""
        _check_range(offset, length)
        if not length:
            raise InvalidArgument("nothing to punch")
        await self._prepare_anywhere()
        self.content.punch(offset, length)

    async def seek(self, offset: int, what: Literal["data", "hole"]) -> int:
        """See `OpenFile.seek`."""
        if self._closed or self.content.gone:
            raise StaleHandle("the file is closed")
        if offset < 0:
            raise OutOfRange(f"offset {offset} < 0")
        return await self.content.seek(offset, data=what == "data")

    async def info(self) -> FileInfo:
        """See `OpenFile.info`."""
        return await self._stat(self.ref)

    async def close(self) -> None:
        """See `OpenFile.close`."""
        if not self._closed:
            self._closed = True
            await self._on_close()

    async def _prepare(self, length: int) -> None:
        """Make sure that a change may be made; after it nothing may wait before the change."""
        self._check(Access.WRITE)
        if length > IO_MAX:
            raise TooLarge(f"write of {length} bytes > IO_MAX {IO_MAX}")
        if self._clears is not None and self.content.inode.mode & SET_IDS:
            await self._clears()
        await self._room_for(length)
        self._check(Access.WRITE)

    async def _prepare_anywhere(self) -> None:
        """Make sure that a change may be made that is no write at the end."""
        if self._appends:
            raise PermissionDenied(f"inode {self.ref.inode} may only be appended to")
        await self._prepare(0)

    def _admit(self, start: int, end: int) -> None:
        """Ask the volume's quotas about a write; raises QuotaExceeded."""
        if self.content.allowance is not None:
            self.content.allowance.admit(self.content.size, start, end)

    async def _begin(self, start: int, end: int) -> None:
        """Refuse what quotas would not admit before an edit begins: it would leave a version and change nothing."""
        if self.content.unedited and self.content.allowance is not None:
            self._check(Access.WRITE)
            await self.content.allowance.ready()
            self.content.allowance.foresee(self.content.size, start, end)

    async def _room_for(self, length: int) -> None:
        """Wait until quotas and the log can tell of a part, and nobody holds a lease that it would make wrong."""
        while True:
            await self._opens.recall(*self._node, FOR_WRITE, by=self.owner)
            if self.content.unedited:
                await self._begin_edit()
            if self.content.allowance is not None:
                await self.content.allowance.ready()
            await self.content.ready(length)
            # Some leases are lent beside writers, also while the log was waited for.
            if not self._opens.in_the_way(self._node, FOR_WRITE, by=self.owner):
                return

    def _check(self, access: Access) -> None:
        if self._closed or self.content.gone or (self._opened is not None and self._opened.closed):
            raise StaleHandle(f"the handle of inode {self.ref.inode} is closed")
        if access & Access.WRITE and self.ref.snapshot:
            raise ReadOnly(f"snapshot {self.ref.snapshot!r} is read only")
        allowed = self._opened.access if self._opened is not None else self.access
        if not allowed & access:
            raise PermissionDenied(f"inode {self.ref.inode} is not open for {access.name}")

    def _check_end(self, end: int) -> None:
        if end > FILE_SIZE_MAX:
            raise TooLarge(f"offset {end} > FILE_SIZE_MAX {FILE_SIZE_MAX}")
        if self.content.inode.disk and end > self.content.size:
            raise TooLarge(f"offset {end} > {self.content.size}, the size of the disk")


def _check_range(offset: int, length: int) -> None:
    if offset < 0 or length < 0:
        raise InvalidArgument(f"range of {length} bytes at {offset}")
