"""Requests of one session as verbs of the Files view.

A file is durable when CLOSE or fsync@openssh.com is answered, names and attributes when their request is. Reads that nobody has to be
waited for are answered on the spot (`read_now`); everything else goes one after the other, as it came.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import msgspec
from warp_core import logs
from warp_core.errors import (
    InvalidArgument,
    IsADirectory,
    NotFound,
    PermissionDenied,
    ReadOnly,
    TooLarge,
    Unsupported,
    WarpError,
)
from warp_core.interfaces.stores import Buffer
from warp_core.namespace.locks import Owner
from warp_core.namespace.opens import Access
from warp_core.views import Files
from warp_core.views.files import (
    NAME_MAX,
    Caller,
    FileInfo,
    OpenFile,
    Ref,
    Rename,
    SetInfo,
    SpaceInfo,
)

from warp_sftp import attributes, wire
from warp_sftp.tree import Found, Tree
from warp_sftp.users import Users
from warp_sftp.wire import TRANSFER_MAX, Attributes, Fields, Flag, Kind, Status

EXTENSIONS: Final = (
    (b"posix-rename@openssh.com", b"1"),
    (b"statvfs@openssh.com", b"2"),
    (b"fstatvfs@openssh.com", b"2"),
    (b"hardlink@openssh.com", b"1"),
    (b"fsync@openssh.com", b"1"),
    (b"lsetstat@openssh.com", b"1"),
    (b"limits@openssh.com", b"1"),
    (b"expand-path@openssh.com", b"1"),
    (b"copy-data", b"1"),
    (b"home-directory", b"1"),
    (b"users-groups-by-id@openssh.com", b"1"),
)

PAGE: Final = 100
"""Names in an answer to READDIR, as many as OpenSSH's server sends."""

COPY_STEP: Final = 1 << 20
"""Bytes that copy-data has in memory."""

IDS_MAX: Final = 4096
"""Users and groups asked for at once."""

BLOCK: Final = 4096
FREE_INODES: Final = 1 << 31  # there is no such limit; programs want to see one
_log = logs.get("warp_sftp")
_ST_RDONLY: Final = 1
_ST_NOSUID: Final = 2
_SET_ID: Final = 0o6000

_TOP: Final = Attributes(0, 0, 0, 0o40755, 0, 0)


class OpenedFile:
    """An open file of a session; `dirty`: something was written since it was last durable."""

    __slots__ = ("append", "caller", "dirty", "file", "ref")

    def __init__(self, file: OpenFile, ref: Ref, caller: Caller, *, append: bool) -> None:
        self.file = file
        self.ref = ref
        self.caller = caller
        self.append = append
        self.dirty = False


class OpenedDirectory:
    """A directory that is being read; `ref` is None for the directory of volumes."""

    __slots__ = ("begun", "caller", "cookie", "done", "ref")

    def __init__(self, ref: Ref | None, caller: Caller) -> None:
        self.ref = ref
        self.caller = caller
        self.cookie = 0
        self.begun = False
        self.done = False


class Verbs:
    """What one session may ask."""

    def __init__(
        self,
        files: Files,
        tree: Tree,
        users: Users,
        owner: Owner,
        *,
        account: str,
        admin: bool,
        read_only: bool,
        umask: int,
        handles_max: int,
        link_first: bool,
    ) -> None:
        """Take what it works on; `owner` is whose opens these are, `link_first` says that SYMLINK has the order of the draft."""
        self._link_first = link_first
        self._files = files
        self._tree = tree
        self._users = users
        self._owner = owner
        self._account = account
        self._admin = admin
        self._read_only = read_only
        self._umask = umask
        self._handles_max = handles_max
        self._handles: dict[bytes, OpenedFile | OpenedDirectory] = {}
        self._next = 0
        self._verbs: Mapping[int, Callable[[int, Fields], Awaitable[bytes]]] = {
            Kind.OPEN: self._open,
            Kind.CLOSE: self._close,
            Kind.WRITE: self._write,
            Kind.LSTAT: self._lstat,
            Kind.FSTAT: self._fstat,
            Kind.SETSTAT: self._setstat,
            Kind.FSETSTAT: self._fsetstat,
            Kind.OPENDIR: self._opendir,
            Kind.READDIR: self._readdir,
            Kind.REMOVE: self._remove,
            Kind.MKDIR: self._mkdir,
            Kind.RMDIR: self._rmdir,
            Kind.REALPATH: self._realpath,
            Kind.STAT: self._stat,
            Kind.RENAME: self._rename,
            Kind.READLINK: self._readlink,
            Kind.SYMLINK: self._symlink,
            Kind.EXTENDED: self._extended,
        }
        self._extensions: Mapping[bytes, Callable[[int, Fields], Awaitable[bytes]]] = {
            b"posix-rename@openssh.com": self._posix_rename,
            b"statvfs@openssh.com": self._statvfs,
            b"fstatvfs@openssh.com": self._fstatvfs,
            b"hardlink@openssh.com": self._hardlink,
            b"fsync@openssh.com": self._fsync,
            b"lsetstat@openssh.com": self._lsetstat,
            b"limits@openssh.com": self._limits,
            b"expand-path@openssh.com": self._expand_path,
            b"copy-data": self._copy_data,
            b"home-directory": self._home_directory,
            b"users-groups-by-id@openssh.com": self._users_groups,
        }

    @property
    def opened(self) -> int:
        """How many handles are open."""
        return len(self._handles)

    async def do(self, message: memoryview) -> bytes:
        """Answer a request other than READ and INIT.

        Raises:
            WarpError: What the answer is instead.
        """
        fields = Fields(message, 1)
        number = fields.u32()
        verb = self._verbs.get(message[0])
        if verb is None:
            raise Unsupported(f"request {message[0]} is not of SFTP version 3")
        return await verb(number, fields)

    async def end(self) -> None:
        """Close everything that is open. What was written stays; it is durable when its close was answered."""
        handles = list(self._handles.values())
        self._handles.clear()
        for each in handles:
            if isinstance(each, OpenedFile):
                try:
                    await each.file.close()
                except WarpError as error:  # the others are to be closed as well
                    _log.warning("not closed cleanly", account=self._account, error=str(error))

    # Reading and writing --------------------------------------------------------------------------

    def reader(self, handle: bytes, length: int) -> tuple[OpenFile, int]:
        """Return the file of a READ's handle, and how much of it one answer has.

        Raises:
            InvalidArgument: It is none.
        """
        found = self._handles.get(handle)
        if not isinstance(found, OpenedFile):
            raise InvalidArgument("no open file has this handle")
        return found.file, min(length, TRANSFER_MAX)

    async def _write(self, number: int, fields: Fields) -> bytes:
        opened = self._file(fields)
        offset = fields.u64()
        data = fields.view()
        fields.end()
        if self._read_only:
            raise ReadOnly("files are served read-only")
        opened.dirty = True
        if opened.append:
            await opened.file.append(data)
        elif not opened.file.write_now(offset, data):
            await opened.file.write(offset, data)
        return wire.status(number, Status.OK)

    async def _copy_data(self, number: int, fields: Fields) -> bytes:
        source, start, length = self._file(fields), fields.u64(), fields.u64()
        target, at = self._file(fields), fields.u64()
        fields.end()
        if self._read_only:
            raise ReadOnly("files are served read-only")
        end = start + length if length else None  # 0: up to the end
        if (
            source.ref[:2] == target.ref[:2]
            and at < (end or source.file.size)
            and start < at + (length or source.file.size)
        ):
            raise InvalidArgument("the ranges overlap")
        target.dirty = True
        while end is None or start < end:
            step = COPY_STEP if end is None else min(COPY_STEP, end - start)
            data = await source.file.read(start, step)
            if not len(data):
                break
            await target.file.write(at, data)
            start += len(data)
            at += len(data)
        return wire.status(number, Status.OK)

    async def _fsync(self, number: int, fields: Fields) -> bytes:
        opened = self._file(fields)
        fields.end()
        await opened.file.sync()
        opened.dirty = False
        return wire.status(number, Status.OK)

    # Handles --------------------------------------------------------------------------------------

    async def _open(self, number: int, fields: Fields) -> bytes:
        path, flags, asked = fields.string(), fields.u32(), fields.attributes()
        fields.end()
        access = Access.NONE
        if flags & Flag.READ:
            access |= Access.READ
        if flags & (Flag.WRITE | Flag.APPEND):
            access |= Access.WRITE
        if not access:
            raise InvalidArgument("opened for nothing")
        if self._read_only and flags & (Flag.WRITE | Flag.APPEND | Flag.CREATE | Flag.TRUNCATE):
            raise ReadOnly("files are served read-only")
        self._check_room()
        exclusive = bool(flags & Flag.CREATE and flags & Flag.EXCLUSIVE)
        truncate = bool(flags & Flag.TRUNCATE) and bool(access & Access.WRITE)
        found = await self._tree.find(path, follow=not exclusive)
        if found.is_top:
            raise IsADirectory("this is the directory of volumes")
        if flags & Flag.CREATE and (found.info is None or exclusive):
            above, name, caller = await self._tree.place(found.path, follow=False)
            mode = 0o666 if asked.mode is None else self._mode(asked.mode)
            file, _ = await self._files.create(
                above,
                name,
                mode & ~self._umask,
                caller,
                owner=self._owner,
                access=access,
                deny=Access.NONE,
                exclusive=exclusive,
                truncate=truncate,
            )
        else:
            info = _present(found, path)
            caller = await self._tree.caller(info.ref.volume)
            file = await self._files.open(
                info.ref,
                caller,
                owner=self._owner,
                access=access,
                deny=Access.NONE,
                truncate=truncate,
            )
        opened = OpenedFile(file, file.ref, caller, append=bool(flags & Flag.APPEND))
        opened.dirty = truncate  # names are durable already, that it was emptied is not
        return self._added(number, opened)

    async def _opendir(self, number: int, fields: Fields) -> bytes:
        path = fields.string()
        fields.end()
        self._check_room()
        found = await self._tree.there(path)
        if found.info is None:
            return self._added(number, OpenedDirectory(None, self._tree.plain))
        caller = await self._tree.caller(found.info.ref.volume)
        # An error comes here rather than with the first READDIR.
        await self._files.readdir(found.info.ref, limit=1, caller=caller)
        return self._added(number, OpenedDirectory(found.info.ref, caller))

    async def _close(self, number: int, fields: Fields) -> bytes:
        handle = fields.string(wire.HANDLE_MAX)
        fields.end()
        opened = self._handles.pop(handle, None)
        if opened is None:
            raise InvalidArgument("nothing open has this handle")
        if isinstance(opened, OpenedFile):
            try:
                if opened.dirty:
                    await opened.file.sync()
            finally:
                await opened.file.close()
        return wire.status(number, Status.OK)

    def _added(self, number: int, opened: OpenedFile | OpenedDirectory) -> bytes:
        handle = wire.u32(self._next)
        self._next = (self._next + 1) & 0xFFFF_FFFF
        self._handles[handle] = opened
        return wire.answer(Kind.HANDLE, number, wire.string(handle))

    def _check_room(self) -> None:
        if len(self._handles) >= self._handles_max:
            raise TooLarge(f"{self._handles_max} handles are open, the limit of a session")

    def _file(self, fields: Fields) -> OpenedFile:
        found = self._handles.get(fields.string(wire.HANDLE_MAX))
        if not isinstance(found, OpenedFile):
            raise InvalidArgument("no open file has this handle")
        return found

    # Directories ----------------------------------------------------------------------------------

    async def _readdir(self, number: int, fields: Fields) -> bytes:
        opened = self._handles.get(fields.string(wire.HANDLE_MAX))
        fields.end()
        if not isinstance(opened, OpenedDirectory):
            raise InvalidArgument("no open directory has this handle")
        if opened.done:
            return wire.status(number, Status.EOF, "End of directory")
        now_s = time.time()
        await self._users.fresh(time.monotonic())
        entries: list[tuple[bytes, Attributes, int]] = []
        if not opened.begun:
            opened.begun = True
            own = attributes.told(await self._files.getattr(opened.ref)) if opened.ref else _TOP
            entries += [(b".", own, 2), (b"..", own, 2)]
        entries += await (self._volumes(opened) if opened.ref is None else self._page(opened))
        if not entries:
            opened.done = True
            return wire.status(number, Status.EOF, "End of directory")
        shown = self._users.shown
        listed = [
            (
                name,
                attributes.line(
                    name, each, links, shown(each.uid or 0), shown(each.gid or 0), now_s=now_s
                ),
                each,
            )
            for name, each, links in entries
        ]
        return wire.names(number, listed)

    async def _volumes(self, opened: OpenedDirectory) -> list[tuple[bytes, Attributes, int]]:
        """Return the volumes from the last one told on; `cookie` counts them."""
        every = await self._tree.volumes()
        page = every[opened.cookie : opened.cookie + PAGE]
        opened.cookie += len(page)
        listed = []
        for each in page:
            info = await self._files.getattr(await self._files.root(each.name))
            listed.append((each.name.encode(), attributes.told(info), info.links))
        return listed

    async def _page(self, opened: OpenedDirectory) -> list[tuple[bytes, Attributes, int]]:
        assert opened.ref is not None
        listed: list[tuple[bytes, Attributes, int]] = []
        last = False
        while not listed and not last:
            entries, last = await self._files.readdir(
                opened.ref, cookie=opened.cookie, limit=PAGE, caller=opened.caller
            )
            for entry in entries:
                opened.cookie = entry.cookie
                try:
                    info = await self._files.getattr(entry.ref)
                except WarpError:  # gone meanwhile
                    continue
                listed.append((entry.name, attributes.told(info), info.links))
        return listed

    async def _mkdir(self, number: int, fields: Fields) -> bytes:
        path, asked = fields.string(), fields.attributes()
        fields.end()
        above, name, caller = await self._place(path)
        mode = 0o777 if asked.mode is None else self._mode(asked.mode)
        await self._files.mkdir(above, name, mode & ~self._umask, caller)
        return wire.status(number, Status.OK)

    async def _rmdir(self, number: int, fields: Fields) -> bytes:
        path = fields.string()
        fields.end()
        above, name, caller = await self._place(path)
        await self._files.rmdir(above, name, caller)
        return wire.status(number, Status.OK)

    # Names ----------------------------------------------------------------------------------------

    async def _place(self, path: bytes) -> tuple[Ref, bytes, Caller]:
        if self._read_only:
            raise ReadOnly("files are served read-only")
        return await self._tree.place(path)

    async def _remove(self, number: int, fields: Fields) -> bytes:
        path = fields.string()
        fields.end()
        above, name, caller = await self._place(path)
        await self._files.unlink(above, name, caller, by=self._owner)
        return wire.status(number, Status.OK)

    async def _rename(self, number: int, fields: Fields) -> bytes:
        """Rename as the draft has it: what is there stays."""
        return await self._renamed(number, fields, Rename.NOREPLACE)

    async def _posix_rename(self, number: int, fields: Fields) -> bytes:
        return await self._renamed(number, fields, Rename.REPLACE)

    async def _renamed(self, number: int, fields: Fields, how: Rename) -> bytes:
        old, new = fields.string(), fields.string()
        fields.end()
        source, source_name, caller = await self._place(old)
        target, target_name, target_caller = await self._place(new)
        weaker = caller if target_caller.superuser else target_caller
        await self._files.rename(
            source, source_name, target, target_name, weaker, how=how, by=self._owner
        )
        return wire.status(number, Status.OK)

    async def _hardlink(self, number: int, fields: Fields) -> bytes:
        old, new = fields.string(), fields.string()
        fields.end()
        info = _present(await self._tree.find(old, follow=False), old)
        above, name, caller = await self._place(new)
        await self._files.link(info.ref, above, name, caller)
        return wire.status(number, Status.OK)

    async def _symlink(self, number: int, fields: Fields) -> bytes:
        """Make a symbolic link: OpenSSH sends the target first, the draft says otherwise."""
        first, second = fields.string(), fields.string()
        path, target = (first, second) if self._link_first else (second, first)
        fields.end()
        above, name, caller = await self._place(path)
        await self._files.symlink(above, name, target, caller)
        return wire.status(number, Status.OK)

    async def _readlink(self, number: int, fields: Fields) -> bytes:
        path = fields.string()
        fields.end()
        info = _present(await self._tree.find(path, follow=False), path)
        target = await self._files.readlink(info.ref)
        return wire.names(number, [(target, target, Attributes())])

    async def _realpath(self, number: int, fields: Fields) -> bytes:
        path = fields.string()
        fields.end()
        return await self._named(number, path)

    async def _expand_path(self, number: int, fields: Fields) -> bytes:
        path = fields.string()
        fields.end()
        if path.startswith(b"~"):
            user, slash, rest = path[1:].partition(b"/")
            if user not in (b"", self._account.encode()):
                raise PermissionDenied("homes of other accounts are not known")
            path = slash + rest or b"/"
        return await self._named(number, path)

    async def _home_directory(self, number: int, fields: Fields) -> bytes:
        user = fields.string()
        fields.end()
        if user not in (b"", self._account.encode()):
            raise PermissionDenied("homes of other accounts are not known")
        return await self._named(number, b"/")

    async def _named(self, number: int, path: bytes) -> bytes:
        found = await self._tree.find(path)
        return wire.names(number, [(found.path, found.path, Attributes())])

    # Attributes -----------------------------------------------------------------------------------

    async def _stat(self, number: int, fields: Fields) -> bytes:
        return await self._tell(number, fields, follow=True)

    async def _lstat(self, number: int, fields: Fields) -> bytes:
        return await self._tell(number, fields, follow=False)

    async def _tell(self, number: int, fields: Fields, *, follow: bool) -> bytes:
        path = fields.string()
        fields.end()
        found = await self._tree.there(path, follow=follow)
        shown = _TOP if found.info is None else attributes.told(found.info)
        return wire.answer(Kind.ATTRS, number, wire.pack_attributes(shown))

    async def _fstat(self, number: int, fields: Fields) -> bytes:
        opened = self._handles.get(fields.string(wire.HANDLE_MAX))
        fields.end()
        if isinstance(opened, OpenedFile):
            shown = attributes.told(await opened.file.info())
        elif opened is None:
            raise InvalidArgument("nothing open has this handle")
        else:
            shown = attributes.told(await self._files.getattr(opened.ref)) if opened.ref else _TOP
        return wire.answer(Kind.ATTRS, number, wire.pack_attributes(shown))

    async def _setstat(self, number: int, fields: Fields) -> bytes:
        return await self._change_named(number, fields, follow=True)

    async def _lsetstat(self, number: int, fields: Fields) -> bytes:
        return await self._change_named(number, fields, follow=False)

    async def _change_named(self, number: int, fields: Fields, *, follow: bool) -> bytes:
        path, asked = fields.string(), fields.attributes()
        fields.end()
        info = _present(await self._tree.there(path, follow=follow), path)
        caller = await self._tree.caller(info.ref.volume)
        await self._change(info, self._change_of(asked, info), caller)
        return wire.status(number, Status.OK)

    async def _fsetstat(self, number: int, fields: Fields) -> bytes:
        opened, asked = self._file(fields), fields.attributes()
        fields.end()
        info = await opened.file.info()
        change = self._change_of(asked, info)
        if change.size is not None:
            opened.dirty = True
            await opened.file.truncate(change.size)
            change = msgspec.structs.replace(change, size=None)
        if change != SetInfo():
            await self._change(info, change, opened.caller)
        return wire.status(number, Status.OK)

    async def _change(self, info: FileInfo, change: SetInfo, caller: Caller) -> None:
        await self._files.setattr(info.ref, change, caller, by=self._owner)

    def _change_of(self, asked: Attributes, info: FileInfo) -> SetInfo:
        """Return what a client wants changed, as far as an account may want it."""
        if self._read_only:
            raise ReadOnly("files are served read-only")
        change = attributes.wanted(asked)
        if change.mode is not None:
            change = msgspec.structs.replace(change, mode=self._mode(change.mode))
        if change.uid == info.uid:
            change = msgspec.structs.replace(change, uid=None)
        if change.gid == info.gid:
            change = msgspec.structs.replace(change, gid=None)
        own = {self._tree.plain.gid, *self._tree.plain.groups}
        if not self._admin and (
            (change.uid is not None and change.uid != self._tree.plain.uid)
            or (change.gid is not None and change.gid not in own)
        ):
            # Who owns a volume may do everything in it, but not make files that others seem to have made.
            raise PermissionDenied("only administrators give files to others")
        return change

    def _mode(self, mode: int) -> int:
        """Return the mode that a client may give: set-id bits would reach beyond the volume, to whom it is mounted."""
        return mode & 0o7777 & ~(0 if self._admin else _SET_ID)

    # Extensions -----------------------------------------------------------------------------------

    async def _extended(self, number: int, fields: Fields) -> bytes:
        name = fields.string()
        verb = self._extensions.get(name)
        if verb is None:
            raise Unsupported(f"extension {name.decode('utf-8', 'replace')!r} is not known")
        return await verb(number, fields)

    async def _limits(self, number: int, fields: Fields) -> bytes:
        fields.end()
        limits = wire.u64(wire.MESSAGE_MAX, TRANSFER_MAX, TRANSFER_MAX, self._handles_max)
        return wire.answer(Kind.EXTENDED_REPLY, number, limits)

    async def _statvfs(self, number: int, fields: Fields) -> bytes:
        path = fields.string()
        fields.end()
        found = await self._tree.there(path)
        if found.info is None:
            # Of the directory of volumes: the stores, as any volume knows them.
            every = await self._tree.volumes()
            if not every:
                return self._space(number, SpaceInfo(total=0, free=0, used=0, files=0), 0)
            return self._space(number, await self._files.statfs(every[0].name), 0)
        return await self._space_of(number, found.info.ref)

    async def _fstatvfs(self, number: int, fields: Fields) -> bytes:
        opened = self._file(fields)
        fields.end()
        return await self._space_of(number, opened.ref)

    async def _space_of(self, number: int, ref: Ref) -> bytes:
        volume = await self._files.number(ref.volume)
        return self._space(number, await self._files.statfs(ref.volume), volume, ref.snapshot)

    def _space(self, number: int, space: SpaceInfo, volume: int, snapshot: str = "") -> bytes:
        free = space.free // BLOCK
        flags = _ST_NOSUID | (_ST_RDONLY if self._read_only or snapshot else 0)
        told = wire.u64(
            BLOCK, BLOCK, space.total // BLOCK, free, free,
            space.files + FREE_INODES, FREE_INODES, FREE_INODES, volume, flags, NAME_MAX,
        )  # fmt: skip
        return wire.answer(Kind.EXTENDED_REPLY, number, told)

    async def _users_groups(self, number: int, fields: Fields) -> bytes:
        users, groups = fields.view(), fields.view()
        fields.end()
        await self._users.fresh(time.monotonic())
        told = b"".join(wire.string(self._packed_names(each)) for each in (users, groups))
        return wire.answer(Kind.EXTENDED_REPLY, number, told)

    def _packed_names(self, numbers: Buffer) -> bytes:
        if len(numbers) > 4 * IDS_MAX:
            raise TooLarge(f"{len(numbers) // 4} numbers > {IDS_MAX}")
        view = Fields(memoryview(numbers))
        every: Sequence[int] = [view.u32() for _ in range(len(numbers) // 4)]
        view.end()
        return b"".join(wire.string(self._users.name(each).encode()) for each in every)


def _present(found: Found, path: bytes) -> FileInfo:
    """Return what is there.

    Raises:
        NotFound: Nothing.
        PermissionDenied: It is the directory of volumes.
    """
    if found.is_top:
        raise PermissionDenied("the directory of volumes stays as it is")
    if found.info is None:
        raise NotFound(f"{path.decode('utf-8', 'replace')!r} is not there")
    return found.info
