"""Quotas: nobody gets past them, whichever way; what is counted is what a recount finds."""

from __future__ import annotations

import asyncio

import pytest
from warp_core.errors import InvalidArgument, QuotaExceeded
from warp_core.interfaces.auth import Principal
from warp_core.interfaces.quotas import Quota, check_quota
from warp_core.namespace.audit import audit
from warp_core.namespace.namespace import Namespace
from warp_core.namespace.objects import NamespaceObjects
from warp_core.namespace.pools import Amount
from warp_core.namespace.quotas import set_volume_quota
from warp_core.namespace.recount import miscounted
from warp_core.views.objects import Attributes, Digests, PartInfo

PLAIN = Attributes()


def digests(text: str = "e") -> Digests:
    return Digests(etag=text)


async def put(objects: NamespaceObjects, key: bytes, size: int, volume: str = "v") -> None:
    await objects.put(volume, key, bytes(size), PLAIN, digests())


async def limit(objects: NamespaceObjects, /, volume: str = "v", **limits: float) -> None:
    await set_volume_quota(objects._namespace.volumes, volume, Quota(**limits))  # type: ignore[arg-type]


async def held(objects: NamespaceObjects, volume: str = "v") -> Amount:
    pool = await objects._namespace.quotas.pool(volume=volume)
    assert pool is not None
    assert (pool.reserved_objects, pool.reserved_bytes) == (0, 0)
    assert await miscounted(objects._namespace, volume) == (0,) * 7
    assert await audit(objects._namespace, volume) == []
    return Amount(pool.objects, pool.bytes)


async def test_the_last_byte_fits_and_the_next_does_not(objects: NamespaceObjects) -> None:
    await limit(objects, bytes=5000)
    await put(objects, b"a", 3000)
    await put(objects, b"b", 2000)

    with pytest.raises(
        QuotaExceeded, match="volume 'v' holds 5000 bytes, 1 more > its quota of 5000"
    ):
        await put(objects, b"c", 1)
    assert await held(objects) == (2, 5000)


async def test_what_was_there_before_the_limit_counts(objects: NamespaceObjects) -> None:
    await put(objects, b"a", 3000)
    await limit(objects, bytes=4000, objects=2)

    with pytest.raises(QuotaExceeded):
        await put(objects, b"b", 1001)
    await put(objects, b"b", 1000)
    await put(objects, b"b", 1000)
    with pytest.raises(QuotaExceeded, match="holds 2 objects"):
        await put(objects, b"c", 0)


async def test_overwriting_counts_the_difference_and_deleting_makes_room(
    objects: NamespaceObjects,
) -> None:
    await limit(objects, bytes=5000)
    await put(objects, b"a", 4000)
    await put(objects, b"a", 5000)
    with pytest.raises(QuotaExceeded):
        await put(objects, b"a", 5001)
    await objects.delete("v", b"a")

    await put(objects, b"b", 5000)
    assert await held(objects) == (1, 5000)


async def test_versions_count_and_a_full_volume_can_be_emptied(objects: NamespaceObjects) -> None:
    await objects.set_versioning("v", "on")
    await limit(objects, bytes=3000, objects=3)
    for _ in range(3):
        await put(objects, b"a", 1000)
    with pytest.raises(QuotaExceeded):
        await put(objects, b"a", 0)

    gone = await objects.delete("v", b"a")  # leaves a marker, although there is no room for one
    assert gone.version
    assert await held(objects) == (4, 3000)
    with pytest.raises(QuotaExceeded):  # a marker for nothing would only add
        await objects.delete("v", b"never")
    versions = await objects.list_versions("v", limit=10)
    for each in versions.entries:
        await objects.delete("v", each.key, version=each.version)
    assert await held(objects) == (0, 0)


async def test_parts_count_and_completing_adds_nothing(objects: NamespaceObjects) -> None:
    await limit(objects, bytes=10_000, objects=1)
    upload = await objects.create_upload("v", b"big", PLAIN)
    with pytest.raises(QuotaExceeded):
        await objects.create_upload("v", b"other", PLAIN)
    for number, size in ((1, 6000), (2, 4000)):
        writer = await objects.part_writer("v", b"big", upload.upload, number, size=size)
        await writer.write(bytes(size))
        await writer.commit(digests(str(number)))
    with pytest.raises(QuotaExceeded):
        await objects.part_writer("v", b"big", upload.upload, 3, size=1)
    with pytest.raises(QuotaExceeded):
        await put(objects, b"a", 0)

    parts = [PartInfo(number=1, size=6000, etag="1"), PartInfo(number=2, size=4000, etag="2")]
    await objects.complete_upload("v", b"big", upload.upload, parts, digests("x-2"))
    assert await held(objects) == (1, 10_000)


async def test_a_copy_by_reference_counts_in_full(objects: NamespaceObjects) -> None:
    await limit(objects, bytes=250_000)
    writer = await objects.writer("v", b"a", PLAIN, size=100_000)
    await writer.write(bytes(100_000))
    await writer.commit(digests())
    await objects.copy("v", b"a", "v", b"b")

    with pytest.raises(QuotaExceeded):
        await objects.copy("v", b"a", "v", b"c")
    assert await held(objects) == (2, 200_000)


async def test_writers_that_begin_reserve_and_those_that_give_up_return_it(
    objects: NamespaceObjects,
) -> None:
    await limit(objects, bytes=10_000)
    first = await objects.writer("v", b"a", PLAIN, size=6000)
    with pytest.raises(QuotaExceeded):
        await objects.writer("v", b"b", PLAIN, size=6000)
    await first.abort()
    second = await objects.writer("v", b"b", PLAIN, size=10_000)
    await second.write(bytes(10_000))
    await second.commit(digests())

    over = await objects.writer("v", b"b", PLAIN, size=10_000)  # in place of the other
    await over.write(bytes(10_000))
    await over.commit(digests())
    assert await held(objects) == (1, 10_000)


async def test_a_writer_of_unknown_size_is_judged_at_its_end(objects: NamespaceObjects) -> None:
    await limit(objects, bytes=10_000)
    writer = await objects.writer("v", b"a", PLAIN)
    await writer.write(bytes(10_001))

    with pytest.raises(QuotaExceeded):
        await writer.commit(digests())
    assert await held(objects) == (0, 0)


@pytest.mark.parametrize("versioning", ["off", "on"])
async def test_writers_at_once_never_get_past_together(
    objects: NamespaceObjects, versioning: str
) -> None:
    if versioning == "on":
        await objects.set_versioning("v", "on")
    await limit(objects, bytes=20_000, objects=7)

    done = await asyncio.gather(
        *(put(objects, b"k%d" % number, 4000) for number in range(12)), return_exceptions=True
    )

    refused = [each for each in done if each is not None]
    assert len(refused) == 7
    assert all(isinstance(each, QuotaExceeded) for each in refused)
    assert await held(objects) == (5, 20_000)


async def test_an_account_s_volumes_share_its_quota(objects: NamespaceObjects) -> None:
    quotas = objects._namespace.quotas
    await objects.create_volume("w", owner=Principal(name="alice"))
    await objects.create_volume("x", owner=Principal(name="bob"))
    await put(objects, b"a", 3000)
    await quotas.set_account("alice", Quota(bytes=5000))
    await put(objects, b"a", 2000, "w")

    for volume in ("v", "w"):
        with pytest.raises(QuotaExceeded, match="alice holds 5000 bytes"):
            await put(objects, b"more", 1, volume)
    await put(objects, b"more", 9000, "x")
    await objects.create_volume("y", owner=Principal(name="alice"))
    with pytest.raises(QuotaExceeded):
        await put(objects, b"a", 1, "y")
    await objects.delete("v", b"a")
    await put(objects, b"a", 3000, "y")
    await quotas.set_account("alice", None)
    await put(objects, b"a", 90_000 // 2, "w")


async def test_limits_and_counts_survive_a_restart(
    namespace: Namespace, objects: NamespaceObjects
) -> None:
    await limit(objects, bytes=5000)
    await namespace.quotas.set_account("alice", Quota(objects=2))
    await put(objects, b"a", 4000)

    again = NamespaceObjects(Namespace(namespace.store, namespace.containers))
    with pytest.raises(QuotaExceeded, match="volume"):
        await put(again, b"b", 1001)
    await put(again, b"b", 1000)
    with pytest.raises(QuotaExceeded, match="alice holds 2 objects"):
        await put(again, b"c", 0)


async def test_declared_quotas_are_the_configuration_s(namespace: Namespace) -> None:
    declared = Namespace(namespace.store, namespace.containers, quotas={"alice": Quota(bytes=100)})
    objects = NamespaceObjects(declared)
    await objects.create_volume("v", owner=Principal(name="alice"))
    with pytest.raises(QuotaExceeded):
        await put(objects, b"a", 101)
    with pytest.raises(InvalidArgument, match="in the configuration"):
        await declared.quotas.set_account("alice", Quota(bytes=1000))


async def test_a_soft_limit_is_told_and_hard_after_its_grace_time(namespace: Namespace) -> None:
    now = 10**18
    soft = Namespace(namespace.store, namespace.containers, clock_ns=lambda: now)
    objects = NamespaceObjects(soft)
    await objects.create_volume("v", owner=Principal(name="alice"))
    await limit(objects, soft_bytes=1000, grace_s=60.0)
    await put(objects, b"a", 1001)
    await soft.quotas.told()
    pool = await soft.quotas.pool(volume="v")
    assert pool is not None
    assert pool.over_since_ns == now

    now += 59 * 10**9
    await put(objects, b"b", 10)
    now += 10**9
    again = NamespaceObjects(Namespace(namespace.store, namespace.containers, clock_ns=lambda: now))
    for each in (objects, again):
        with pytest.raises(QuotaExceeded, match="grace time of 60 s is over"):
            await put(each, b"c", 1)
    await objects.delete("v", b"a")
    await soft.quotas.told()
    assert pool.over_since_ns == 0
    await put(objects, b"a", 900)


async def test_a_deleted_volume_makes_room_for_its_account(objects: NamespaceObjects) -> None:
    quotas = objects._namespace.quotas
    await quotas.set_account("alice", Quota(objects=1))
    await objects.create_upload("v", b"big", PLAIN)
    await objects.create_volume("w", owner=Principal(name="alice"))
    with pytest.raises(QuotaExceeded):
        await put(objects, b"a", 0, "w")
    await objects.delete_volume("v")

    await put(objects, b"a", 0, "w")


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        (Quota(bytes=-1), "bytes = -1"),
        (Quota(bytes=10, soft_bytes=11), "soft_bytes = 11 > bytes = 10"),
        (Quota(grace_s=5.0), "needs a soft limit"),
        (Quota(soft_bytes=1, grace_s=1e12), "grace"),
    ],
)
def test_limits_that_make_no_sense_are_refused(wrong: Quota, what: str) -> None:
    with pytest.raises(InvalidArgument, match=what):
        check_quota(wrong)
