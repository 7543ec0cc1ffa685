"""What the parts of the kit for Files share: the subject, who acts, and ways to look at files."""

from __future__ import annotations

from typing import ClassVar, Protocol

from warp_core.namespace.opens import HERE, Access, Owner
from warp_core.views.files import Caller, Files, OpenFile, Ref

from warp_conformance.kit import Kit

READ, WRITE, NONE = Access.READ, Access.WRITE, Access.NONE
BOTH = READ | WRITE
ME, YOU = Owner(HERE, b"me"), Owner(HERE, b"you")
ALICE = Caller(uid=1000, gid=100, name="unix:1000")
BOB = Caller(uid=1001, gid=101, groups=frozenset({100}), name="unix:1001")
KIB, MIB = 1024, 1024 * 1024


class FilesStage(Protocol):
    """The subject: a view with an empty volume, that can lose what was not durable."""

    files: Files
    volume: str

    async def crash(self) -> None:
        """Begin anew with what was durable; `files` is another one then. Handles are gone."""


class FilesPart(Kit):
    """What every part of the kit stands on: a Files view, and ways to make files and look at them."""

    time_limit_s: ClassVar[float] = 30.0

    async def root(self, subject: FilesStage) -> Ref:
        """Return the root directory."""
        return await subject.files.root(subject.volume)

    async def make(
        self, subject: FilesStage, name: bytes, data: bytes = b"", *, owner: Owner = ME
    ) -> OpenFile:
        """Make a file in the root and leave it open."""
        file, _ = await subject.files.create(
            await self.root(subject), name, 0o644, owner=owner, access=BOTH, deny=NONE
        )
        if data:
            await file.write(0, data)
        return file

    async def content(self, subject: FilesStage, path: bytes) -> bytes:
        """Return the whole content of a file."""
        info = await subject.files.walk(subject.volume, path)
        file = await subject.files.open(info.ref, owner=YOU, access=READ, deny=NONE)
        try:
            found = b""
            while part := bytes(await file.read(len(found), MIB)):
                found += part
            return found
        finally:
            await file.close()

    async def names(self, subject: FilesStage, path: bytes = b"", limit: int = 3) -> list[bytes]:
        """Return a directory's names, sorted, read in small pages."""
        info = await subject.files.walk(subject.volume, path)
        found: list[bytes] = []
        cookie = 0
        while True:
            page, last = await subject.files.readdir(info.ref, cookie=cookie, limit=limit)
            found += [entry.name for entry in page]
            if last:
                return sorted(found)
            cookie = page[-1].cookie
