"""File operations that know what they were promised.

A few workers, each in a directory of its own below one mount, change files in every way: created, written whole, in place and at
the end, cut off, replaced by renaming, linked, given attributes. A model says what a directory holds after each single
call; `fileledger` judges by it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import random
import stat
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from warp_integration.fileledger import FileLedger, State, Step
from warp_integration.powercut.ledger import Finding
from warp_integration.s3client import ConnectionLost, S3Connection

VOLUME = "data"
SIZES = (
    0,
    1,
    100,
    1000,
    4096,
    5000,
    30_000,
    65_536,
    131_072,
)  # of one write; Linux asks for up to 1 MiB at once
ENTRIES_MAX = 24  # of one worker's directory: few, so that most calls change what others made
GONE = (errno.ENOTCONN, errno.ECONNABORTED, errno.EHOSTDOWN, errno.ENODEV)
"""What calls fail with when the server behind a mount was killed."""
_HANG_S = 120.0  # within which as much is acknowledged as was wished, on any machine
_ATTRIBUTE = "user.step"


def file_text(data: bytes, mode: int, links: int, attribute: bytes) -> str:
    """Say what a file is, short enough for messages and exact enough to compare."""
    digest = hashlib.sha256(data).hexdigest()[:16]
    return f"file {mode:o} x{links} {attribute.decode()} {len(data)} bytes {digest}"


def directory_text(mode: int, attribute: bytes) -> str:
    """Say what a directory is."""
    return f"directory {mode:o} {attribute.decode()}"


def link_text(target: str) -> str:
    """Say what a symbolic link is."""
    return f"link to {target}"


@dataclass(slots=True, eq=False)
class Inode:
    """What the model knows of a file, a directory or a symbolic link."""

    kind: str
    mode: int = 0o640
    data: bytearray = field(default_factory=bytearray)
    attribute: bytes = b""
    target: str = ""
    links: int = 1

    def text(self) -> str:
        """Say what it is, as `see` does."""
        if self.kind == "file":
            return file_text(bytes(self.data), self.mode, self.links, self.attribute)
        if self.kind == "directory":
            return directory_text(self.mode, self.attribute)
        return link_text(self.target)


def see(root: Path) -> dict[str, str]:
    """Return what is below `root`, path by path."""
    found: dict[str, str] = {}
    waiting = [root]
    while waiting:
        for entry in os.scandir(waiting.pop()):
            path = Path(entry.path)
            if entry.is_dir(follow_symlinks=False):
                waiting.append(path)
            found[str(path.relative_to(root))] = _see_one(path)
    return found


def _see_one(path: Path) -> str:
    status = path.lstat()
    mode = stat.S_IMODE(status.st_mode)
    if stat.S_ISLNK(status.st_mode):
        return link_text(os.readlink(path))
    attribute = b""
    with contextlib.suppress(OSError):  # ENODATA
        attribute = os.getxattr(path, _ATTRIBUTE)
    if stat.S_ISDIR(status.st_mode):
        return directory_text(mode, attribute)
    return file_text(path.read_bytes(), mode, status.st_nlink, attribute)


class FileLoad:
    """Workers on one mount.

    Args:
        ledger: Where everything is noted.
        mount: Where the volume is, for this process.
        seed: Decides every choice, not how workers interleave.
        workers: How many.
        prefix: Of their directories' names.
    """

    def __init__(
        self, ledger: FileLedger, mount: Path, *, seed: int, workers: int = 3, prefix: str = "w"
    ) -> None:
        self.ledger = ledger
        self.mount = mount
        self.findings: list[Finding] = []
        """What was wrong while it ran: calls that failed, contents that S3 told otherwise."""
        self.calls: Counter[str] = Counter()
        self._seed = seed
        self._names = [f"{prefix}{number}" for number in range(workers)]

    def run(
        self,
        endpoint: str,
        *,
        seconds: float,
        acknowledged: int,
        stop: threading.Event | None = None,
    ) -> None:
        """Work until time is over and as many calls are acknowledged, `stop` is set, or the server is gone."""
        began = time.monotonic()

        def over() -> bool:
            passed = time.monotonic() - began
            if stop and stop.is_set():
                return True
            enough = self.ledger.acknowledged() >= acknowledged
            return passed > _HANG_S or (passed > seconds and enough)

        def work(name: str, number: int) -> None:
            worker = _Worker(self, name, endpoint, random.Random(f"{self._seed} {name}"))
            try:
                worker.begin()
                while not over():
                    worker.step()
            except ConnectionLost:
                pass
            except OSError as error:
                if error.errno not in GONE:
                    self.findings.append(Finding("failed", name, repr(error), (worker.doing,)))
            except Exception as error:
                self.findings.append(Finding("failed", name, repr(error), (worker.doing,)))

        threads = [threading.Thread(target=work, args=(n, i)) for i, n in enumerate(self._names)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


class _Worker:
    """One thread in one directory."""

    def __init__(self, load: FileLoad, name: str, endpoint: str, rng: random.Random) -> None:
        self._load = load
        self._name = name
        self._endpoint = endpoint
        self._rng = rng
        self._tree: dict[str, Inode] = {}
        self._texts: dict[str, str] = {}
        self._serial = 0
        self.doing = ""

    def _do(self, what: str, call: Callable[[], object], *changed: str) -> None:
        """Make one call that leaves the model as it is now; `changed` names what it changes beside names."""
        step = self._load.ledger.begin(self._name, what, self._state(*changed))
        self._call(what, step, call)

    def _sync(self, what: str, call: Callable[[], object]) -> None:
        step = self._load.ledger.begin(self._name, what, self._state(), sync=True)
        self._call(what, step, call)

    def _call(self, what: str, step: Step, call: Callable[[], object]) -> None:
        self.doing = what
        call()
        self._load.ledger.acknowledge(step)
        self._load.calls[what.split()[0]] += 1

    def _state(self, *changed: str) -> State:
        for path in changed:
            inode = self._tree[path]
            text = inode.text()
            self._texts |= {p: text for p, i in self._tree.items() if i is inode}
        return {path: self._texts[path] for path in self._tree}

    def _at(self, path: str) -> Path:
        return self._load.mount / path

    def begin(self) -> None:
        """Make the directory."""
        self._tree[self._name] = Inode("directory", 0o750)
        self._do(f"mkdir {self._name}", lambda: os.mkdir(self._at(self._name), 0o750), self._name)

    def step(self) -> None:
        """Make one change, of one call or a few, or a sync."""
        if len(self._tree) > ENTRIES_MAX:
            self._unlink()
            return
        table = (
            (self._create, 3),
            (self._write, 6),
            (self._replace, 4),
            (self._truncate, 2),
            (self._rename, 2),
            (self._link, 1),
            (self._symlink, 1),
            (self._unlink, 2),
            (self._mkdir, 1),
            (self._rmdir, 1),
            (self._attribute, 2),
            (self._mode, 1),
            (self._rename_directory, 1),
            (self._fsync, 3),
            (self._get, 1),
        )
        self._rng.choices([act for act, _ in table], [weight for _, weight in table])[0]()

    def _some(self, kind: str) -> str | None:
        found = [path for path, inode in self._tree.items() if inode.kind == kind]
        return self._rng.choice(found) if found else None

    def _new(self) -> str:
        self._serial += 1
        return f"{self._some('directory')}/{self._serial}"

    def _data(self) -> bytes:
        self._serial += 1
        return (b"%d:" % self._serial) + self._rng.randbytes(self._rng.choice(SIZES))

    def _make(self) -> str:
        path = self._new()
        self._tree[path] = Inode("file")
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
        self._do(f"create {path}", lambda: os.close(os.open(self._at(path), flags, 0o640)), path)
        return path

    def _create(self) -> None:
        self._put(self._make(), self._rng.choice((0, 1, 2)))

    def _write(self) -> None:
        if path := self._some("file"):
            self._put(path, self._rng.choice((1, 1, 3)))

    def _put(self, path: str, times: int) -> None:
        """Write through one descriptor: at the end, in place, past the end, or whole."""
        inode = self._tree[path]
        append, whole = self._rng.random() < 0.3, self._rng.random() < 0.2
        flags = os.O_WRONLY | (os.O_APPEND if append else 0)
        if whole and times:
            inode.data.clear()
            opened: list[int] = []
            self._do(
                f"open-truncating {path}",
                lambda: opened.append(os.open(self._at(path), flags | os.O_TRUNC)),
                path,
            )
            file = opened[0]
        else:
            file = os.open(self._at(path), flags)
        try:
            for _ in range(times):
                self._put_once(path, inode, file, append=append)
            if self._rng.random() < 0.2:
                self._sync(f"fdatasync {path}", lambda: os.fdatasync(file))
        finally:
            with contextlib.suppress(OSError):  # the server is gone
                os.close(file)

    def _put_once(self, path: str, inode: Inode, file: int, *, append: bool) -> None:
        data, size = self._data(), len(inode.data)
        at = size if append else self._rng.randint(0, min(size + 5000, 300_000))
        what = f"{'append' if append else 'write'} {path} {len(data)} at {at}"
        if at > size:
            inode.data.extend(bytes(at - size))
        parts = []
        for end in _requests_may_end(at, at + len(data)):
            inode.data[at:end] = data[: end - at]
            parts.append(self._load.ledger.begin(self._name, what, self._state(path), part=True))
        inode.data[at : at + len(data)] = data

        def call() -> None:
            done = 0
            while done < len(data):  # a kill between two requests of one write shows as a short one
                rest = data[done:]
                done += os.write(file, rest) if append else os.pwrite(file, rest, at + done)
            for part in parts:
                self._load.ledger.acknowledge(part)

        self._do(what, call, path)

    def _replace(self) -> None:
        """Write a new file and rename it over another: no sync, and yet never a file that is neither."""
        victim = self._some("file")
        path = self._make()
        self._put(path, self._rng.choice((1, 2)))
        self._move(path, victim or self._new())

    def _rename(self) -> None:
        if path := self._some("file"):
            self._move(path, self._new())

    def _move(self, path: str, to: str) -> None:
        over, inode = self._tree.get(to), self._tree[path]
        if over is inode:
            return
        del self._tree[path]
        self._tree[to] = inode
        changed = [to]
        if over:
            changed += self._loses_a_name(over)
        self._do(f"rename {path} {to}", lambda: os.rename(self._at(path), self._at(to)), *changed)

    def _loses_a_name(self, inode: Inode) -> list[str]:
        inode.links -= 1
        return [path for path, other in self._tree.items() if other is inode][:1]

    def _link(self) -> None:
        if path := self._some("file"):
            to = self._new()
            self._tree[to] = self._tree[path]
            self._tree[path].links += 1
            self._do(f"link {path} {to}", lambda: os.link(self._at(path), self._at(to)), path)

    def _symlink(self) -> None:
        path = self._new()
        self._tree[path] = Inode("link", target=f"nowhere/{self._serial}")
        target = self._tree[path].target
        self._do(f"symlink {path}", lambda: os.symlink(target, self._at(path)), path)

    def _unlink(self) -> None:
        path = self._some(self._rng.choice(("file", "file", "file", "link")))
        if path:
            changed = self._loses_a_name(self._tree.pop(path))
            self._do(f"unlink {path}", lambda: os.unlink(self._at(path)), *changed)
        elif len(self._tree) > ENTRIES_MAX:
            self._rmdir()

    def _mkdir(self) -> None:
        path = self._new()
        self._tree[path] = Inode("directory", 0o750)
        self._do(f"mkdir {path}", lambda: os.mkdir(self._at(path), 0o750), path)

    def _rmdir(self) -> None:
        path = self._some("directory")
        if path and path != self._name and not any(p.startswith(f"{path}/") for p in self._tree):
            del self._tree[path]
            self._do(f"rmdir {path}", lambda: os.rmdir(self._at(path)))

    def _rename_directory(self) -> None:
        path, to = self._some("directory"), self._new()
        if not path or path == self._name or to.startswith(f"{path}/"):
            return
        for each in [p for p in self._tree if p == path or p.startswith(f"{path}/")]:
            moved = to + each[len(path) :]
            self._tree[moved] = self._tree.pop(each)
            self._texts[moved] = self._texts[each]
        self._do(f"rename {path} {to}", lambda: os.rename(self._at(path), self._at(to)))

    def _truncate(self) -> None:
        if path := self._some("file"):
            data = self._tree[path].data
            size = self._rng.randint(0, len(data) + 3000)
            del data[size:]
            data.extend(bytes(size - len(data)))
            self._do(f"truncate {path} {size}", lambda: os.truncate(self._at(path), size), path)

    def _attribute(self) -> None:
        path = self._some(self._rng.choice(("file", "directory")))
        if path:
            self._serial += 1
            value = b"%d" % self._serial
            self._tree[path].attribute = value
            call = lambda: os.setxattr(self._at(path), _ATTRIBUTE, value)  # noqa: E731
            self._do(f"setxattr {path}", call, path)

    def _mode(self) -> None:
        if path := self._some("file"):
            mode = self._rng.choice((0o600, 0o640, 0o644))
            self._tree[path].mode = mode
            self._do(f"chmod {path} {mode:o}", lambda: os.chmod(self._at(path), mode), path)

    def _fsync(self) -> None:
        """Sync a file or a directory through a descriptor that wrote nothing: all that came before is durable."""
        path = self._some(self._rng.choice(("file", "directory")))
        if path:
            file = os.open(self._at(path), os.O_RDONLY)
            try:
                self._sync(f"fsync {path}", lambda: os.fsync(file))
            finally:
                with contextlib.suppress(OSError):
                    os.close(file)

    def _get(self) -> None:
        """Read through S3; it waits for names and the file it reads, not for what was written to other files."""
        if path := self._some("file"):
            wanted = bytes(self._tree[path].data)
            bodies: list[bytes] = []
            self._do(f"GET {path}", lambda: bodies.append(asyncio.run(get(self._endpoint, path))))
            if bodies[0] != wanted:
                seen = f"{len(bodies[0])} other bytes through S3"
                self._load.findings.append(Finding("mixed", path, seen, (f"{len(wanted)} bytes",)))


def _requests_may_end(begin: int, end: int) -> list[int]:
    """Return where Linux may divide a write.

    A page that it covers in part and that is not cached ends a request (`fuse_fill_write_pages`), or what more than a page is kept in.
    """
    if begin % 4096 == 0:
        return []
    kept = [4096 << power for power in range(6)]
    return [at for at in sorted({(begin // size + 1) * size for size in kept}) if at < end]


async def get(endpoint: str, path: str) -> bytes:
    """Return the content of a file through S3.

    Raises:
        ConnectionLost: There was no answer.
        FileNotFoundError: The answer was an error.
    """
    async with S3Connection(endpoint) as s3:
        answer = await s3.request("GET", f"/{VOLUME}/{path}")
    if answer.status != 200:
        raise FileNotFoundError(f"GET {path}: {answer.status} {answer.code}")
    return answer.body


async def differences_through_s3(endpoint: str, mount: Path, seen: State) -> dict[str, str]:
    """Return what S3 tells otherwise than the mount of the same volume, as entries that no ledger allows."""
    found: dict[str, str] = {}
    files = {path for path, text in seen.items() if text.startswith("file ")}
    async with S3Connection(endpoint) as s3:
        listed: set[str] = set()
        query = {"list-type": "2"}
        while True:
            answer = await s3.request("GET", f"/{VOLUME}", query=query)
            listed |= set(answer.texts("Contents/Key"))
            token = answer.texts("NextContinuationToken")
            if not token:
                break
            query["continuation-token"] = token[0]
        for path in files:
            answer = await s3.request("GET", f"/{VOLUME}/{path}")
            if answer.status != 200 or answer.body != (mount / path).read_bytes():
                found[f"S3: {path}"] = f"{answer.status}, {len(answer.body)} bytes"
    kept = {path for path in listed if not path.endswith("/")}
    links = {path for path, text in seen.items() if text.startswith("link ")}
    if kept - links != files:
        found["S3: listing"] = f"{sorted((kept - links) ^ files)[:10]}"
    return found
