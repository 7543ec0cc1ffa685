"""A BlobStore on a local file system: one file a blob, calls made by a few threads, reads from cache by the loop itself."""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import stat
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from warp_core.config.types import Size
from warp_core.errors import (
    AlreadyExists,
    InvalidArgument,
    NoSpace,
    StoreFailed,
)
from warp_core.interfaces.stores import (
    BlobInfo,
    BlobStore,
    Buffer,
    Space,
    StoreCapabilities,
    check_blob_name,
)

from warp_disk import files, layout
from warp_disk.config import Config
from warp_disk.held import Held
from warp_disk.threads import Threads

T = TypeVar("T")

RESERVE_MIN = 80 * 1024 * 1024  # a start of a node, and a segment of its journal for deletes
RESERVE_MAX = (
    1024 * 1024 * 1024
)  # enough for every commit that frees space, whatever the disk's size
SCRATCH = 64 * 1024  # reads up to here are copied out of one warm buffer: cheaper than a fresh one
WHOLE = (
    0o400  # mode of a blob that takes no more writes: the one bit of state that a file itself keeps
)
GROWING = 0o600
RECYCLED = 0o010  # beside the state: every block was written, so the file may become a spare when it is deleted
PUNCHED = 0o001  # beside GROWING: writable for the moment of a punch by who is not root, and whole all the same
SPARE_FIT = 0.75  # how much of the wanted size a spare must have: sealed segments are a little shorter than full ones


class _File:
    """An open descriptor. `users` are threads that hold it; a file that was dropped is closed by its last user."""

    __slots__ = ("descriptor", "dropped", "growing", "recent", "size", "users")

    def __init__(self, descriptor: int, size: int, *, growing: bool) -> None:
        self.descriptor = descriptor
        self.size = size
        self.growing = growing
        self.users = 0
        self.recent = True
        self.dropped = False


def _grows(mode: int) -> bool:
    return bool(mode & 0o200) and not mode & PUNCHED


def _punch_whole(descriptor: int, offset: int, length: int) -> None:
    """Free blocks of a file that its owner may not write; a crash leaves it whole."""
    os.fchmod(descriptor, GROWING | PUNCHED)
    try:
        # Opened again by what it is, not by its name, which may have been deleted since.
        writable = os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR | os.O_CLOEXEC)
        try:
            files.punch(writable, offset, length)
        finally:
            os.close(writable)
    finally:
        os.fchmod(descriptor, WHOLE)


class Disk(BlobStore):
    """Blobs as files below `path`."""

    def __init__(self, config: Config, data: Path) -> None:
        self._config = config
        self.path: Path = data / config.path
        self.capabilities = StoreCapabilities(
            durable=True, grow=True, punch=True, immediate=True, local_path=True
        )
        self._blobs = self.path / "blobs"
        self._spare = self.path / "spare"
        self._held = Held(self.path / "held")
        self._files: dict[str, _File] = {}
        self._punching = threading.Lock()
        self._failed: set[str] = set()  # blobs whose sync failed: what they hold is unknown
        self._folders: set[Path] = set()  # known to exist, durably
        self._scratch = memoryview(bytearray(SCRATCH))
        self._numbers = itertools.count()
        self._lock = -1

    async def __aenter__(self) -> Self:
        """Open the folder.

        Raises:
            ConfigError, AlreadyRunning, NewerFormat, Corrupt: As `layout.open_folder`.
        """
        self.id, self._lock = layout.open_folder(self.path)
        for leftover in (self.path / "incoming").iterdir():
            leftover.unlink()
        for spare in self._spare.iterdir():
            if spare.stat().st_nlink > 1:  # a crash left it between two names: it belongs to a blob
                spare.unlink()
        self.capabilities = StoreCapabilities(
            durable=True,
            grow=True,
            punch=files.can_punch(self.path),
            immediate=True,
            local_path=True,
        )
        self._folders = {self._blobs}
        self._refill()
        self._threads = Threads(self._config.threads, "disk")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close every file and give up the lock."""
        self._threads.close()
        for file in self._files.values():
            os.close(file.descriptor)
        self._files.clear()
        os.close(self._lock)

    # Whole blobs ----------------------------------------------------------------------------------

    async def put(self, name: str, buffers: Sequence[Buffer], *, vital: bool = False) -> None:
        """Write beside, sync, rename over, sync the folder."""
        check_blob_name(name)
        target = layout.file_of(self._blobs, name)
        incoming = self.path / "incoming" / f"{next(self._numbers)}"

        def work() -> None:
            self._admit(sum(map(len, buffers)), vital)
            self._make_folder(target.parent)
            files.replace_durably(target, incoming, buffers, WHOLE)

        try:
            await self._run(work, "put", name)
        finally:
            self._drop(name)
        self._failed.discard(name)

    async def read(self, name: str, *, offset: int, length: int) -> bytes:
        """Read by a thread."""
        file = await self._open(name)
        try:
            return await self._run(
                lambda: files.read_at(file.descriptor, offset, length), "read", name
            )
        finally:
            self._leave(file)

    async def read_into(self, name: str, *, offset: int, buffer: memoryview) -> int:
        """Read by a thread, without a copy."""
        file = await self._open(name)
        try:
            return await self._run(
                lambda: files.read_into_at(file.descriptor, offset, buffer), "read", name
            )
        finally:
            self._leave(file)

    def read_now(self, name: str, *, offset: int, length: int) -> bytes | None:
        """Read what the page cache holds."""
        file = self._files.get(name)
        if file is None:
            return None
        if length <= SCRATCH:
            file.recent = True
            view = self._scratch[:length]
            try:
                got = os.preadv(file.descriptor, (view,), offset, os.RWF_NOWAIT)
            except OSError:  # as in `read_into_now`, which this is for the reads that are most
                return None
            if got == length:
                return bytes(view)
            return None if offset + got < file.size else bytes(view[:got])
        length = max(0, min(length, file.size - offset))
        if files.cached(file.descriptor, offset, length):
            file.recent = True
            try:
                # Fresh memory that nobody zeroes: for long ranges half the cost of reading into a bytearray.
                data = os.pread(file.descriptor, length, offset)
            except OSError:
                return None
            return data if len(data) == length else None
        buffer = bytearray(length)
        filled = self.read_into_now(name, offset=offset, buffer=memoryview(buffer))
        return None if filled is None else bytes(memoryview(buffer)[:filled])

    def read_into_now(self, name: str, *, offset: int, buffer: memoryview) -> int | None:
        """Read what the page cache holds into `buffer`."""
        file = self._files.get(name)
        if file is None:
            return None
        file.recent = True
        try:
            got = os.preadv(file.descriptor, (buffer,), offset, os.RWF_NOWAIT)
        except OSError:  # not cached, not supported, or an error that `read` will report
            return None
        if got < len(buffer) and offset + got < file.size:
            return None
        return got

    async def delete(self, name: str) -> None:
        """Remove the name, durably; a file that can be recycled becomes a spare."""
        check_blob_name(name)
        target = layout.file_of(self._blobs, name)
        await self._run(lambda: self._remove(target), "delete", name)
        self._drop(name)
        self._failed.discard(name)

    async def list(self, prefix: str = "", *, after: str = "", limit: int = 1000) -> list[BlobInfo]:
        """Walk the folders in name order."""
        blobs = str(self._blobs)
        return await self._run(
            lambda: list(itertools.islice(layout.walk(blobs, prefix, after), limit)), "list", prefix
        )

    async def stat(self, name: str) -> BlobInfo:
        """Ask the file system."""
        check_blob_name(name)
        status = await self._run(layout.file_of(self._blobs, name).stat, "stat", name)
        return BlobInfo(name, status.st_size, status.st_blocks * 512)

    async def space(self) -> Space:
        """Ask the file system."""
        return await self._run(self._space, "measure", "")

    # Growing blobs --------------------------------------------------------------------------------

    async def create(
        self, name: str, *, reserve: int, recycle: bool = False, vital: bool = False
    ) -> None:
        """Make a file with all its space, or take a spare one of that size."""
        check_blob_name(name)
        target = layout.file_of(self._blobs, name)

        def work() -> None:
            self._make_folder(target.parent)
            if not (recycle and self._take_spare(target, reserve)):
                self._admit(reserve, vital)
                self._make(target, reserve, recycle)
            files.sync_folder(target.parent)

        try:
            await self._run(work, "create", name)
        except FileExistsError:
            raise AlreadyExists(f"blob {name} exists on {self.path}") from None

    async def write(
        self, name: str, *, offset: int, buffers: Sequence[Buffer], sync: bool = False
    ) -> None:
        """Write, and sync in the same thread if asked to."""
        file = await self._open(name)
        try:
            self._refuse_failed(name)
            if not file.growing:
                raise InvalidArgument(f"blob {name} is whole and takes no more writes")
            end = offset + sum(map(len, buffers))
            growth = end - file.size

            def work() -> None:
                if growth > 0:
                    self._admit(growth, vital=False)
                files.write_at(file.descriptor, offset, buffers)
                if sync:
                    self._sync(name, file)

            await self._run(work, "write", name)
            file.size = max(file.size, end)
        finally:
            self._leave(file)

    async def sync(self, name: str) -> None:
        """Make the file durable."""
        file = await self._open(name)
        try:
            self._refuse_failed(name)
            await self._run(lambda: self._sync(name, file), "sync", name)
        finally:
            self._leave(file)

    async def seal(self, name: str, *, size: int) -> None:
        """Cut the file, forbid writes, sync."""
        file = await self._open(name)
        try:
            self._refuse_failed(name)

            def work() -> None:
                status = os.fstat(file.descriptor)
                if size < status.st_size:
                    os.ftruncate(file.descriptor, size)
                os.fchmod(file.descriptor, WHOLE | status.st_mode & RECYCLED)
                try:
                    os.fsync(file.descriptor)
                except OSError:
                    self._failed.add(name)
                    raise

            await self._run(work, "seal", name)
            file.size = min(size, file.size)
            file.growing = False
        finally:
            self._leave(file)

    async def punch(self, name: str, *, offset: int, length: int) -> None:
        """Free blocks of the file."""
        if not self.capabilities.punch:
            await super().punch(name, offset=offset, length=length)
        file = await self._open(name)

        def work() -> None:
            status = os.fstat(file.descriptor)
            if status.st_mode & RECYCLED:  # not every block of it is written any more
                os.fchmod(file.descriptor, stat.S_IMODE(status.st_mode) & ~RECYCLED)
            if fcntl.fcntl(file.descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDWR:
                files.punch(file.descriptor, offset, length)
            else:
                with self._punching:  # else one call would end another's moment
                    _punch_whole(file.descriptor, offset, length)

        try:
            await self._run(work, "punch", name)
        finally:
            self._leave(file)

    # In the loop ----------------------------------------------------------------------------------

    async def _run(self, work: Callable[[], T], doing: str, name: str) -> T:
        """Run file calls in a thread; a cancelled caller still waits for its end, since the thread uses the caller's buffers."""
        try:
            return await self._threads.run(work)
        except FileExistsError:
            raise
        except OSError as error:
            raise files.explained(error, doing, f"{self.path}/{name}") from error

    async def _open(self, name: str) -> _File:
        file = self._files.get(name)
        if file is None:
            check_blob_name(name)
            opened = await self._run(lambda: self._open_file(name), "open", name)
            file = self._files.get(name)  # another task may have been faster
            if file is None:
                file = self._files[name] = opened
                if len(self._files) > self._config.descriptors:
                    self._close_idle()
            else:
                os.close(opened.descriptor)
        file.users += 1
        file.recent = True
        return file

    def _leave(self, file: _File) -> None:
        file.users -= 1
        if file.dropped and not file.users:
            os.close(file.descriptor)

    def _drop(self, name: str) -> None:
        file = self._files.pop(name, None)
        if file is not None:
            file.dropped = True
            if not file.users:
                os.close(file.descriptor)

    def _close_idle(self) -> None:
        """Second chance: close an eighth of what was not used since the last time."""
        wanted = max(1, self._config.descriptors // 8)
        for chance in range(2):
            for name, file in list(self._files.items()):
                if file.users == 0 and (chance or not file.recent):
                    self._drop(name)
                    wanted -= 1
                    if not wanted:
                        return
                file.recent = False

    def _refuse_failed(self, name: str) -> None:
        if name in self._failed:
            raise StoreFailed(
                f"an earlier sync of {self.path}/{name} failed: what it holds is unknown"
            )

    # In threads -----------------------------------------------------------------------------------

    def _open_file(self, name: str) -> _File:
        path = layout.file_of(self._blobs, name)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except PermissionError:  # whole, and we are not root
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        status = os.fstat(descriptor)
        return _File(descriptor, status.st_size, growing=_grows(status.st_mode))

    def _sync(self, name: str, file: _File) -> None:
        try:
            os.fdatasync(file.descriptor)
        except OSError:
            # The kernel has dropped the dirty pages: a second fsync would succeed and mean nothing.
            self._failed.add(name)
            raise

    def _space(self) -> Space:
        status = os.statvfs(self.path)
        total = status.f_blocks * status.f_frsize
        reserve = self._config.reserve
        if reserve is None:
            reserve = Size(min(max(total // 50, RESERVE_MIN), RESERVE_MAX, total // 8))
        available = status.f_bavail * status.f_frsize + self._held.size
        return Space(total, max(0, available - reserve), reserve)

    def _admit(self, size: int, vital: bool) -> None:
        space = self._space()
        free = space.free + (space.reserve if vital else 0)
        if size > free:
            for spare in self._spare.iterdir():
                spare.unlink(missing_ok=True)
            space = self._space()
            free = space.free + (space.reserve if vital else 0)
        if size > free:
            raise NoSpace(
                f"store {self.path} has {free} bytes free beside its reserve, {size} are needed"
            )
        if vital:
            self._held.give(size)

    def _refill(self) -> None:
        with suppress(OSError):  # others fill the disk at this moment
            self._held.fill(self._space().reserve)

    def _make_folder(self, folder: Path) -> None:
        if folder in self._folders:
            return
        self._make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        files.sync_folder(folder.parent)
        self._folders.add(folder)

    def _make(self, target: Path, reserve: int, recycle: bool) -> None:
        descriptor = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, GROWING)
        try:
            files.allocate(descriptor, reserve)
            if recycle:
                files.overwrite_with_zeros(descriptor, 0, reserve)
                os.fchmod(descriptor, GROWING | RECYCLED)
            os.fsync(descriptor)
        except OSError:
            target.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)

    def _take_spare(self, target: Path, size: int) -> bool:
        """Let an old file of nearly that size have the name; its last part is written if it is too short."""
        # Claimed by a rename first: of two threads one gets it, and a crash after the link leaves its other name
        # in `incoming`, where opening the store removes it. Else two blobs would share one file.
        claimed = self.path / "incoming" / f"{next(self._numbers)}"
        for spare in self._spare.iterdir():
            try:
                has = spare.stat().st_size
                if not size * SPARE_FIT <= has <= size:
                    continue
                os.rename(spare, claimed)
            except FileNotFoundError:
                continue
            try:
                files.sync_folder(self._spare)
                self._make_ready(claimed, has, size)
                os.link(claimed, target)
            finally:
                claimed.unlink()
            return True
        if target.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
        return False

    def _make_ready(self, spare: Path, has: int, size: int) -> None:
        os.chmod(spare, GROWING | RECYCLED)
        descriptor = os.open(spare, os.O_RDWR | os.O_CLOEXEC)
        try:
            if has < size:
                self._admit(size - has, vital=True)
                files.overwrite_with_zeros(descriptor, has, size)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _remove(self, target: Path) -> None:
        recycled = target.stat().st_mode & RECYCLED
        if recycled and len(os.listdir(self._spare)) < self._config.spares:
            os.rename(target, self._spare / f"{os.getpid()}-{next(self._numbers)}")
            files.sync_folder(self._spare)
        else:
            target.unlink()
        files.sync_folder(target.parent)
        if self._held.short:
            self._refill()
