"""Limits of users and groups within a volume."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import files_stage as stage_module
import pytest
from warp_core.errors import AlreadyExists, NotFound, PermissionDenied, QuotaExceeded
from warp_core.interfaces.quotas import Quota
from warp_core.namespace import keys
from warp_core.namespace.audit import audit
from warp_core.namespace.objects import NamespaceObjects
from warp_core.namespace.opens import HERE, Access, Owner
from warp_core.namespace.owners import (
    correct_owners,
    held_by_owners,
    miscounted_owners,
    recount_owners,
    set_owner_quota,
)
from warp_core.namespace.pools import Amount
from warp_core.namespace.snapshots import Snapshots
from warp_core.views.files import Caller, OpenFile, SetInfo
from warp_core.views.objects import Attributes, Digests

ADA, BEN = Caller(uid=1, gid=9), Caller(uid=2, gid=9)
ME = Owner(HERE, b"me")
KIB = 1024


@pytest.fixture
async def stage() -> AsyncIterator[Any]:
    async with stage_module.Stage() as stage:
        root = await stage.files.root("v")
        await stage.files.setattr(root, SetInfo(mode=0o777))
        yield stage


async def make(stage: Any, name: bytes, caller: Caller, size: int = 0) -> OpenFile:
    file, _ = await stage.files.create(
        await stage.files.root("v"), name, 0o666, caller,
        owner=ME, access=Access.READ | Access.WRITE, deny=Access.NONE,
    )  # fmt: skip
    if size:
        await file.write(0, bytes(size))
    return file


async def held(stage: Any, owner: str) -> Amount:
    volume = await stage.namespace.volumes.get("v")
    return (await held_by_owners(stage.namespace, volume)).get(owner, Amount())


async def limit(stage: Any, owner: str, **limits: Any) -> None:
    await set_owner_quota(stage.namespace, "v", owner, Quota(**limits) if limits else None)


async def test_a_user_holds_no_more_than_his_limit(stage: Any) -> None:
    await limit(stage, "uid:1", bytes=10 * KIB, objects=2)
    first = await make(stage, b"a", ADA, 8 * KIB)

    with pytest.raises(QuotaExceeded, match="uid:1 in volume 'v'"):
        await first.write(8 * KIB, bytes(4 * KIB))
    await first.write(8 * KIB, bytes(2 * KIB))
    await make(stage, b"b", ADA)
    with pytest.raises(QuotaExceeded):
        await make(stage, b"c", ADA)
    await make(stage, b"c", BEN, 50 * KIB)
    await first.truncate(0)
    await first.close()
    await (await make(stage, b"b", ADA)).write(0, bytes(9 * KIB))


async def test_a_group_has_a_limit_together(stage: Any) -> None:
    await limit(stage, "gid:9", bytes=10 * KIB)
    await make(stage, b"a", ADA, 6 * KIB)
    second = await make(stage, b"b", BEN)

    with pytest.raises(QuotaExceeded):
        await second.write(0, bytes(5 * KIB))
    await second.write(0, bytes(4 * KIB))


async def test_what_was_there_before_counts(stage: Any) -> None:
    file = await make(stage, b"a", ADA, 8 * KIB)
    await file.close()
    await limit(stage, "uid:1", bytes=10 * KIB)

    assert await held(stage, "uid:1") == (1, 8 * KIB)
    with pytest.raises(QuotaExceeded):
        await make(stage, b"b", ADA, 3 * KIB)


async def test_giving_a_file_away_gives_what_it_counts(stage: Any) -> None:
    file = await make(stage, b"a", ADA, 8 * KIB)
    await file.close()
    await limit(stage, "uid:1", bytes=10 * KIB)
    await limit(stage, "uid:2", bytes=4 * KIB)

    with pytest.raises(QuotaExceeded):
        await stage.files.setattr(file.ref, SetInfo(uid=2))
    await limit(stage, "uid:2", bytes=8 * KIB)
    await stage.files.setattr(file.ref, SetInfo(uid=2))

    assert await held(stage, "uid:1") == (0, 0)
    assert await held(stage, "uid:2") == (1, 8 * KIB)
    await make(stage, b"b", ADA, 10 * KIB)


async def test_a_soft_limit_is_hard_when_its_grace_is_over(stage: Any) -> None:
    await limit(stage, "uid:1", soft_bytes=1 * KIB, grace_s=60.0)
    now = [10**18]
    stage.namespace.clock_ns = stage.namespace.quotas.clock_ns = lambda: now[0]
    file = await make(stage, b"a", ADA, 2 * KIB)
    await file.close()
    await stage.namespace.quotas.told()
    await make(stage, b"b", ADA, 1 * KIB)
    await stage.crash()
    stage.namespace.clock_ns = stage.namespace.quotas.clock_ns = lambda: now[0]

    now[0] += 61 * 10**9
    with pytest.raises(QuotaExceeded, match="grace time"):
        await make(stage, b"c", ADA, 1 * KIB)


async def test_a_limit_that_was_taken_away_and_set_again_knows_what_came_meanwhile(
    stage: Any,
) -> None:
    await limit(stage, "uid:1", bytes=4 * KIB)
    await make(stage, b"a", ADA, 3 * KIB)
    await limit(stage, "uid:1")
    more = await make(stage, b"b", ADA, 20 * KIB)
    await more.close()
    await limit(stage, "uid:1", bytes=25 * KIB)

    with pytest.raises(QuotaExceeded):
        await make(stage, b"c", ADA, 3 * KIB)
    await make(stage, b"d", ADA, 2 * KIB)


async def test_writers_side_by_side_do_not_get_past_together(stage: Any) -> None:
    await limit(stage, "uid:1", bytes=10 * KIB)
    files = [await make(stage, b"%d" % number, ADA) for number in range(8)]

    done = await asyncio.gather(
        *(file.write(0, bytes(2 * KIB)) for file in files), return_exceptions=True
    )

    assert sum(each == 2 * KIB for each in done) == 5
    assert sum(isinstance(each, QuotaExceeded) for each in done) == 3
    for file in files:
        await file.close()
    assert (await held(stage, "uid:1")).bytes == 10 * KIB


async def test_counters_are_what_rows_say_after_all_kinds_of_changes(stage: Any) -> None:
    """Also across crashes, snapshots, hard links, clones, S3 over files, and files without names."""
    await limit(stage, "uid:1", bytes=10**9)
    chance = random.Random(5)
    objects = NamespaceObjects(stage.namespace)
    root = await stage.files.root("v")
    names = [b"a", b"b", b"c", b"d"]
    for number in range(120):
        name, other = chance.sample(names, 2)
        caller = chance.choice((ADA, BEN))
        try:
            match chance.randrange(10):
                case 0 | 1 | 2:
                    file = await make(stage, name, caller, chance.randrange(1, 9000))
                    await file.close()
                case 3:
                    await stage.files.unlink(root, name)
                case 4:
                    await stage.files.link((await stage.files.lookup(root, name)).ref, root, other)
                case 5:
                    await stage.files.clone(
                        (await stage.files.lookup(root, name)).ref, root, other, caller
                    )
                case 6:
                    await objects.put("v", name, b"x" * 50, Attributes(), Digests(etag="0" * 32))
                case 7:
                    change = SetInfo(uid=chance.choice((1, 2)), size=chance.randrange(5000))
                    await stage.files.setattr((await stage.files.lookup(root, name)).ref, change)
                case 8:
                    await stage.files.rename(root, name, root, other)
                case 9 if number % 3 == 0:
                    await Snapshots(stage.namespace, stage.inodes).create("v", f"s{number}")
                case 9:
                    await stage.crash()
                    objects = NamespaceObjects(stage.namespace)
        except (NotFound, AlreadyExists, PermissionDenied):
            continue  # what cannot be done changes nothing
    await stage.files.settle_collections()
    for node in list(stage.inodes._contents):
        await stage.inodes.settle(*node)

    volume = await stage.namespace.volumes.get("v")
    rows = await recount_owners(stage.namespace, volume)

    assert rows
    assert await held_by_owners(stage.namespace, volume) == rows
    assert await miscounted_owners(stage.namespace, "v") == {}


async def test_what_is_miscounted_is_found_and_corrected(stage: Any) -> None:
    await limit(stage, "uid:1", bytes=10 * KIB)
    file = await make(stage, b"a", ADA, 2 * KIB)
    await file.close()

    async def wrong(change: Any) -> None:
        change.rows.merge(keys.owner_key("uid:1"), add=(3, 5 * KIB))

    await stage.namespace.change("v", wrong)

    assert await miscounted_owners(stage.namespace, "v") == {"uid:1": (3, 5 * KIB)}
    [problem] = await audit(stage.namespace, "v") or []
    assert "uid:1" in problem
    assert await correct_owners(stage.namespace, "v")
    assert await miscounted_owners(stage.namespace, "v") == {}
    await make(stage, b"b", ADA, 8 * KIB)
