"""The data directory of a node: who may open it, in which format it is, and whose it is.

```
DIR/
├── node.json      format, the node's identity, the stores that it has used
├── lock           held by the process that serves or repairs the data
├── root.key       the root access key, mode 0600, unless the environment sets it
├── control.sock   where the command `warp` talks to the running node, mode 0600
└── store/         the default store; others lie where the configuration says
```
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from warp_core import __version__
from warp_core.errors import AlreadyRunning, Corrupt, NewerFormat, StoreFailed
from warp_core.logs import get

log = get("warp_core.node")

FORMAT = 1  # grows when an older release could not read what this one writes
MARKER = "node.json"
LOCK = "lock"
CONTROL = "control.sock"
AUDIT = "audit"
_MARKER_MAX = 1024 * 1024


class Known(msgspec.Struct, frozen=True):
    """A store that this node has used, so that a disk that is not mounted is not taken for a new one."""

    kind: str
    place: str  # as configured, for messages


class Marker(msgspec.Struct, frozen=True):
    """The content of `node.json`."""

    format: int
    release: str  # that wrote it
    node: str  # 32 hex digits, for ever
    stores: dict[str, Known] = {}
    metadata: tuple[str, ...] = ()  # the stores that keep the metadata's copies
    whole: tuple[str, ...] = ()  # the stores of which each has all that the journal acknowledged
    engine: str = ""  # that the metadata was committed to, by name; "" before the first start
    identity: str = ""  # of what that engine keeps, where it has one


MAY_COME_FIRST = frozenset({LOCK, MARKER, "root.key", "warp.toml", "lost+found", "tls"})
"""What an operator may have put into the directory before the first start."""


class DataDirectory:
    """An exclusively opened data directory. Made where it does not exist; use it as a context manager."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fresh = False  # nothing was there before
        self._lock = -1
        self._marker: Marker | None = None

    @property
    def node(self) -> str:
        """The node's identity."""
        return self.marker.node

    @property
    def marker(self) -> Marker:
        """What `node.json` says."""
        assert self._marker is not None, "the directory is not open"
        return self._marker

    def __enter__(self) -> Self:
        """Lock and read the directory.

        Raises:
            AlreadyRunning: Another process has it open.
            NewerFormat: A newer release wrote it.
            StoreFailed: It cannot be made, read or written.
            Corrupt: Its marker is damaged.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._take_lock()
            self._marker = self._read() or self._create()
        except OSError as error:
            self._close()
            raise StoreFailed(_cannot_use(self.path, error)) from error
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def remember(self, stores: Mapping[str, Known]) -> None:
        """Note durably which stores the node uses."""
        known = {**self.marker.stores, **stores}
        if known != self.marker.stores:
            self._write(msgspec.structs.replace(self.marker, stores=known))

    def keep_metadata_on(self, stores: Sequence[str]) -> None:
        """Note durably which stores keep the metadata, whatever their order in the configuration."""
        if tuple(stores) != self.marker.metadata:
            self._write(msgspec.structs.replace(self.marker, metadata=tuple(stores)))

    def keep_whole(self, stores: Sequence[str]) -> None:
        """Note durably which stores the journal goes on with, as far as this directory can be written."""
        if tuple(stores) == self.marker.whole:
            return
        try:
            self._write(msgspec.structs.replace(self.marker, whole=tuple(stores)))
        except OSError as error:
            log.warning("the journal's whole copies are noted on stores only", error=str(error))

    def check_engine(self, name: str) -> None:
        """See that the metadata engine is the one that the data was written with.

        Raises:
            StoreFailed: It is another, which would know nothing of what is here.
        """
        before = self.marker.engine
        if before and before != name:
            raise StoreFailed(
                f'the metadata of {self.path} is in the engine "{before}": say engine = "{before}" in [metadata], or'
                " choose another directory with --data"
            )

    def keep_metadata_in(self, engine: str, identity: str) -> None:
        """Note durably which engine has the metadata, and the identity of what it keeps.

        Raises:
            StoreFailed: It keeps other metadata than that of this data, which would know nothing of what is here.
        """
        before = self.marker.identity
        if before and before != identity:
            raise StoreFailed(
                f'the engine "{engine}" has other metadata ({identity}) than that of {self.path} ({before}): mend its address'
                " in [metadata] or restore what was there, or choose another directory with --data"
            )
        if (engine, identity) != (self.marker.engine, before):
            self._write(msgspec.structs.replace(self.marker, engine=engine, identity=identity))

    def forget(self, store: str) -> None:
        """Note durably that a store is gone for good."""
        known = {name: each for name, each in self.marker.stores.items() if name != store}
        self._write(msgspec.structs.replace(self.marker, stores=known))

    def _take_lock(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            holder = os.pread(self._lock, 32, 0).decode(errors="replace").strip()
            raise AlreadyRunning(
                f"{self.path} is in use by process {holder or 'unknown'}: stop that server, or choose"
                " another directory with --data"
            ) from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)

    def _read(self) -> Marker | None:
        path = self.path / MARKER
        try:
            with path.open("rb") as file:
                data = file.read(_MARKER_MAX)
        except FileNotFoundError:
            return None
        try:
            plain = msgspec.json.decode(data, type=dict[str, object])
            version, release = plain.get("format"), plain.get("release", "a newer release")
            if isinstance(version, int) and version > FORMAT:
                raise NewerFormat(
                    f"{self.path} was written by warp {release} in format {version}, this is warp"
                    f" {__version__} and reads up to format {FORMAT}: upgrade warp"
                )
            return msgspec.convert(plain, Marker)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Corrupt(
                f"{path} is damaged ({error}): restore it from a backup of the data directory"
            ) from None

    def _create(self) -> Marker:
        names = {name.removesuffix(".new") for name in os.listdir(self.path)}
        others = names - MAY_COME_FIRST
        if others:
            raise StoreFailed(
                f"{self.path} holds other files ({', '.join(sorted(others)[:3])}) and no WARP data:"
                " choose an empty directory with --data"
            )
        self.fresh = True
        marker = Marker(FORMAT, __version__, secrets.token_hex(16))
        self._write(marker)
        return marker

    def _write(self, marker: Marker) -> None:
        data = msgspec.json.format(msgspec.json.encode(marker), indent=2)
        replace_durably(self.path / MARKER, data + b"\n", mode=0o600)
        self._marker = marker

    def _close(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def replace_durably(path: Path, data: bytes, *, mode: int) -> None:
    """Write a small file so that after a crash it is the old one or the new one."""
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        os.fchmod(descriptor, mode)
        os.write(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def is_data(path: Path) -> bool:
    """Say whether a directory holds a node's data."""
    return (path / MARKER).is_file()


def _cannot_use(path: Path, error: OSError) -> str:
    advice = {
        errno.EACCES: "make it writable for this user, or choose another with --data",
        errno.EPERM: "make it writable for this user, or choose another with --data",
        errno.EROFS: "its file system is mounted read-only; choose another with --data",
        errno.ENOSPC: "its file system is full; free some space, or choose another with --data",
        errno.ENOTDIR: "a part of that path is a file; choose another with --data",
        errno.EEXIST: "it is a file; choose another with --data",
    }
    hint = advice.get(error.errno or 0, "choose another with --data")
    return f"the data directory {path} cannot be used ({os.strerror(error.errno or 0)}): {hint}"
