"""What a client that mounts one volume gets at, and what it does not."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from warp_conformance.reference.node import Stage
from warp_core.errors import PermissionDenied, ReadOnly
from warp_core.forward.confined import CHANGING, LOOKING, ConfinedFiles, confined
from warp_core.forward.verbs import OF
from warp_core.namespace.leases import Kind
from warp_core.namespace.locks import Owner
from warp_core.namespace.shares import HERE, Access
from warp_core.views.files import ROOT_INODE, Ref, SetInfo

OWNER = Owner(HERE, b"me")


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with Stage() as stage:
        await stage.namespace.volumes.create("other", owner="me")
        yield stage


def test_every_verb_is_one_that_looks_or_one_that_changes() -> None:
    assert set(OF["files"][1]) == CHANGING | LOOKING
    assert not CHANGING & LOOKING


async def test_another_volume_is_refused_by_name_by_reference_and_as_a_target(stage: Stage) -> None:
    files = confined(stage.files, "v", read_only=False).files
    mine, other = Ref("v", ROOT_INODE), Ref("other", ROOT_INODE)
    made = await files.mkdir(mine, b"d", 0o755)
    for call in (
        files.root("other"),
        files.statfs("other"),
        files.getattr(other),
        files.rename(mine, b"d", other, b"d"),
        files.link(made.ref, directory=other, name=b"x"),
        files.claims.lease(other, OWNER, Kind.READ),
        files.claims.lock(other, OWNER, 0, 1, exclusive=True),
    ):
        with pytest.raises(PermissionDenied):
            await call
    assert (await files.lookup(mine, b"d")).ref == made.ref


async def test_objects_and_disks_are_refused(stage: Stage) -> None:
    views = confined(stage.files, "v", read_only=False)
    for call in (views.objects.volumes(), views.objects.head("v", b"k"), views.blocks.disks("v")):
        with pytest.raises(PermissionDenied):
            await call


async def test_read_only_changes_nothing_by_whatever_verb(stage: Stage) -> None:
    root = Ref("v", ROOT_INODE)
    made, _ = await stage.files.create(
        root, b"f", 0o644, owner=OWNER, access=Access.WRITE, deny=Access.NONE
    )
    await made.close()
    files = ConfinedFiles(stage.files, "v", read_only=True)
    for call in (
        files.mkdir(root, b"d", 0o755),
        files.unlink(root, b"f"),
        files.setattr(made.ref, SetInfo(mode=0)),
        files.clone(made.ref, root, b"g"),
        files.open(made.ref, owner=OWNER, access=Access.WRITE, deny=Access.NONE),
        files.open(made.ref, owner=OWNER, access=Access.READ, deny=Access.NONE, truncate=True),
        files.create(root, b"f", 0, owner=OWNER, access=Access.READ, deny=Access.NONE),
    ):
        with pytest.raises(ReadOnly):
            await call
    opened = await files.open(made.ref, owner=OWNER, access=Access.READ, deny=Access.NONE)
    await opened.close()
