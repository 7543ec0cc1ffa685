"""Who may read by key what he could not read as a file."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import files_stage as stage_module
import pytest
from warp_core.interfaces.auth import Principal
from warp_core.namespace.objects import NamespaceObjects
from warp_core.namespace.opens import HERE, Access, Owner
from warp_core.namespace.principals import caller_of, name_of
from warp_core.views.files import ROOT, Caller, SetInfo
from warp_core.views.objects import Attributes, Digests

BEN = caller_of(Principal("account:ben"))
ADA = Caller(uid=1000, gid=1000, name=name_of(1000))
KEY = b"d/e/f"
ME = Owner(HERE, b"me")


class Rig:
    """A volume with a file of Ada's below two directories."""

    def __init__(self, stage: Any) -> None:
        self.files = stage.files
        self.objects = NamespaceObjects(stage.namespace)

    async def begin(self) -> None:
        root = await self.files.root("v")
        above = (await self.files.mkdir(root, b"d", 0o755, ROOT)).ref
        above = (await self.files.mkdir(above, b"e", 0o777, ROOT)).ref
        file, _ = await self.files.create(
            above, b"f", 0o644, ADA, owner=ME, access=Access.WRITE, deny=Access.NONE
        )
        await file.write(0, b"secret")
        await file.close()

    async def chmod(self, path: bytes, mode: int) -> None:
        await self.files.setattr((await self.files.walk("v", path)).ref, SetInfo(mode=mode))

    async def readable(self, caller: Caller = BEN, key: bytes = KEY, version: str = "") -> bool:
        return await self.objects.readable("v", key, caller, version=version)

    async def put(self, key: bytes) -> str:
        made = await self.objects.put("v", key, b"x", Attributes(), Digests(etag="0" * 32))
        return made.version


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with stage_module.Stage() as stage:
        rig = Rig(stage)
        await rig.begin()
        yield rig


async def test_a_file_is_read_by_whom_its_mode_lets(rig: Rig) -> None:
    assert await rig.readable()
    await rig.chmod(KEY, 0o640)
    assert not await rig.readable()
    assert await rig.readable(ADA)
    assert await rig.readable(ROOT)


async def test_a_list_lets_in(rig: Rig) -> None:
    await rig.chmod(KEY, 0o640)
    info = await rig.files.walk("v", KEY)
    entry = b"\0\0\0\1" + bytes(8) + b"\0\0\0\1" + b"\0\0\0\x0b" + b"account:ben" + b"\0"

    await rig.files.set_xattr(info.ref, b"system.nfs4_acl", entry)

    assert await rig.readable()
    assert not await rig.readable(caller_of(Principal("account:cleo")))


@pytest.mark.parametrize("path", [b"", b"d", b"d/e"])
async def test_a_directory_that_cannot_be_searched_hides_what_is_below(
    rig: Rig, path: bytes
) -> None:
    await rig.chmod(path, 0o700)
    assert not await rig.readable()
    assert not await rig.readable(key=b"d/e/none")


async def test_an_object_that_never_was_a_file_is_for_the_protocol_alone(rig: Rig) -> None:
    await rig.put(b"o")
    await rig.put(b"p/q")
    assert await rig.readable(key=b"o")
    assert await rig.readable(key=b"p/q")
    assert await rig.readable(key=b"none")
    await rig.chmod(b"o", 0o600)
    assert not await rig.readable(key=b"o")
    await rig.put(b"o")  # another file
    assert await rig.readable(key=b"o")


async def test_versions_of_files_are_not_read_by_others(rig: Rig) -> None:
    await rig.objects.set_versioning("v", "on")
    old = (await rig.objects.head("v", KEY)).version
    new = await rig.put(KEY)
    newest = await rig.put(KEY)

    assert not await rig.readable(version=old)
    assert await rig.readable(version=new)
    assert await rig.readable(version=newest)
    await rig.chmod(KEY, 0o600)
    assert not await rig.readable(version=new)
