"""Clients that compete for a few files: each is written anew beside the others and renamed over its name, as editors do.

So a name is a register as an object is: whoever opens it finds the whole of one version, whatever dies.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from typing import ClassVar

from warp_core.errors import AlreadyExists, NotFound, StaleHandle, VolumeNotFound, WarpError
from warp_core.namespace.locks import Owner
from warp_core.namespace.shares import Access
from warp_core.views.files import Files, Ref, Rename

from warp_conformance.simulation.objects import (
    ABSENT,
    STEP,
    ObjectClients,
    Request,
    Viewed,
    Wrong,
    content,
)

VERBS = ("put", "put", "first", "get", "get", "get", "delete", "list")
OWNER = Owner(1, b"simulated")
ANEW = 20  # names that lead to a file which is gone by the time it is opened are looked up again so often


class FileClients(ObjectClients):
    """Clients of the files in the root of one volume. What begins with a dot is being written."""

    verbs: ClassVar = VERBS

    async def _do(self, node: Viewed, verb: str, asked: Request, key: str, size: int) -> str | bool:
        """As `ObjectClients._do`; the ETag of a file is that of what was written into it."""
        files, name = node.files, key.encode()
        root = await files.root(self.volume)
        if verb == "list":
            entries, _ = await files.readdir(root)
            for entry in entries:
                if entry.name.decode() not in self.history and not entry.name.startswith(b"."):
                    raise Wrong(f"the directory shows {entry.name!r}")
            return True
        if verb == "get":
            return await self._read(files, root, name)
        if verb == "delete":
            try:
                await files.unlink(root, name)
            except VolumeNotFound:
                raise
            except NotFound:
                pass
            return True
        return await self._write(files, root, name, asked, size)

    async def _write(self, files: Files, root: Ref, name: bytes, asked: Request, size: int) -> bool:
        body = content(asked.new, size)
        self._known[hashlib.sha256(body).digest()] = asked.new
        draft = b"." + asked.new[-6:].encode()
        opened, _ = await files.create(
            root, draft, 0o644, owner=OWNER, access=Access.WRITE, deny=Access.NONE, exclusive=True
        )
        try:
            for at in range(0, size, STEP):
                await opened.write(at, body[at : at + STEP])
            await opened.sync()
        finally:
            with suppress(WarpError):  # it ends with its home
                await opened.close()
        how = Rename.NOREPLACE if asked.expected else Rename.REPLACE
        try:
            await files.rename(root, draft, root, name, how=how)
        except AlreadyExists:
            await files.unlink(root, draft)
            return False
        return True

    async def _read(self, files: Files, root: Ref, name: bytes) -> str:
        for _ in range(ANEW):
            try:
                found = await files.lookup(root, name)
                opened = await files.open(
                    found.ref, owner=OWNER, access=Access.READ, deny=Access.NONE
                )
            except VolumeNotFound:
                raise
            except StaleHandle:
                continue  # another took its name meanwhile
            except NotFound:
                return ABSENT
            try:
                size = (await opened.info()).size
                data = bytes(await opened.read(0, size)) if size else b""
            finally:
                with suppress(WarpError):
                    await opened.close()
            etag = self._known.get(hashlib.sha256(data).digest())
            if etag is None:
                raise Wrong(f"{name!r} has {size} bytes that nobody wrote together")
            return etag
        raise Wrong(f"{name!r} led {ANEW} times to a file that was gone")
