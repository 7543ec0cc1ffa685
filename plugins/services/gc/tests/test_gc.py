"""Space of what is gone comes back, and nothing else does."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from warp_conformance.reference import data_plane as rig
from warp_conformance.reference.consistency import Plain
from warp_conformance.reference.stores import Medium
from warp_core.containers import Containers, DataPolicy
from warp_core.interfaces.auth import Principal
from warp_core.interfaces.services import ServiceContext
from warp_core.metrics import Metrics
from warp_core.namespace.namespace import Namespace
from warp_core.namespace.objects import NamespaceObjects
from warp_core.views.objects import Attributes, Digests, PartInfo
from warp_gc import Collection, Config

ALICE = Principal("account:alice")
POLICY = DataPolicy(chunker="fixed:100000")
SMALL = 64 * 1024


@dataclass
class Node:
    containers: Containers
    namespace: Namespace
    objects: NamespaceObjects
    service: Collection

    async def put(self, key: bytes, data: bytes) -> None:
        digests = Digests(etag=f"{len(data)}")
        if len(data) <= SMALL:
            await self.objects.put("v", key, data, Attributes(), digests)
            return
        writer = await self.objects.writer("v", key, Attributes(), size=len(data))
        await writer.write(data)
        await writer.commit(digests)

    async def get(self, key: bytes) -> bytes:
        reader = await self.objects.open("v", key)
        parts = [
            bytes(await reader.read(at, 1 << 20)) for at in range(0, reader.info.size, 1 << 20)
        ]
        reader.close()
        return b"".join(parts)

    async def collect(self) -> dict[str, int]:
        """Work until idle."""
        context = ServiceContext(self.namespace, self.containers, Metrics())
        total: dict[str, int] = {}
        for _ in range(50):
            report = await self.service.work(context)
            for name, count in report.counts.items():
                total[name] = total.get(name, 0) + count
            if report.idle:
                return total
        raise AssertionError("never idle")

    async def seal(self) -> None:
        """Begin new containers, so that the old ones can be freed."""
        for shared in self.containers._shared.values():
            await shared.close()
        await self.containers._leases.close()


@asynccontextmanager
async def node(meta: Plain, *media: Medium, crash: bool = False) -> AsyncIterator[Node]:
    opened = rig.crashing(*media) if crash else rig.node(*media)
    async with opened as containers:
        namespace = Namespace(meta, containers, policy=POLICY)
        yield Node(containers, namespace, NamespaceObjects(namespace), Collection(Config()))


@pytest.fixture
async def meta() -> AsyncIterator[Plain]:
    async with Plain() as engine:
        yield engine


async def test_what_was_deleted_and_overwritten_is_freed(meta: Plain) -> None:
    medium = Medium()
    async with node(meta, medium) as one:
        await one.objects.create_volume("v", owner=ALICE)
        for n in range(12):
            await one.put(b"small%d" % n, rig.noise(5_000, n))
            await one.put(b"large%d" % n, rig.noise(350_000, n))
        await one.put(b"small0", b"now short" * 200)
        await one.put(b"large0", rig.noise(350_000, 99))
        for n in range(1, 12):
            await one.objects.delete("v", b"small%d" % n)
            await one.objects.delete("v", b"large%d" % n)
        await one.seal()
        before = sum(len(blob.data) for name, blob in medium.blobs.items() if name.startswith("c/"))
        counts = await one.collect()
        after = sum(len(blob.data) for name, blob in medium.blobs.items() if name.startswith("c/"))

        assert counts["rows"] >= 24
        assert counts["unreadable_manifests"] == 0
        assert before > 4_000_000
        assert after < 1_000_000
        assert await one.get(b"small0") == b"now short" * 200
        assert await one.get(b"large0") == rig.noise(350_000, 99)
        for key in (b"small0", b"large0"):
            await one.objects.delete("v", key)
        await one.collect()
        assert rig.blobs(medium) == []


async def test_an_open_reader_keeps_what_it_reads(meta: Plain) -> None:
    medium = Medium()
    async with node(meta, medium) as one:
        await one.objects.create_volume("v", owner=ALICE)
        await one.put(b"k", rig.noise(350_000, 1))
        await one.seal()
        reader = await one.objects.open("v", b"k")
        await one.objects.delete("v", b"k")
        await one.collect()
        assert bytes(await reader.read(0, 350_000)) == rig.noise(350_000, 1)
        reader.close()
        await one.collect()
        assert rig.blobs(medium) == []


async def test_after_a_crash_what_was_never_linked_is_freed_and_what_was_is_kept(
    meta: Plain,
) -> None:
    medium = Medium()
    async with node(meta, medium, crash=True) as one:
        await one.objects.create_volume("v", owner=ALICE)
        await one.put(b"kept", rig.noise(350_000, 1))
        await one.put(b"short", rig.noise(2_000, 2))
        upload = await one.objects.create_upload("v", b"big", Attributes())
        part = await one.objects.part_writer("v", b"big", upload.upload, 1, size=300_000)
        await part.write(rig.noise(300_000, 3))
        done = await part.commit(Digests(etag="part"))
        for n in range(3):
            writer = await one.objects.writer("v", b"cut off %d" % n, Attributes(), size=1_400_000)
            await writer.write(rig.noise(1_400_000, 4))

    async with node(meta, medium) as one:
        await one.collect()
        kept = sum(len(blob.data) for name, blob in medium.blobs.items() if name.startswith("c/"))
        assert kept < 1_500_000
        assert await one.get(b"kept") == rig.noise(350_000, 1)
        assert await one.get(b"short") == rig.noise(2_000, 2)
        info = PartInfo(number=1, size=300_000, etag=done.etag)
        await one.objects.complete_upload("v", b"big", upload.upload, [info], Digests(etag="whole"))
        await one.collect()
        assert await one.get(b"big") == rig.noise(300_000, 3)
        for key in (b"kept", b"short", b"big"):
            await one.objects.delete("v", key)
        await one.collect()
        assert rig.blobs(medium) == []


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_happens_every_object_reads_back_and_nothing_is_left_at_the_end(
    meta: Plain, seed: int
) -> None:
    media = Medium(), Medium()
    source = random.Random(seed)
    model: dict[bytes, bytes] = {}
    for session in range(4):
        async with node(meta, *media, crash=session % 2 == 0) as one:
            if session == 0:
                await one.objects.create_volume("v", owner=ALICE)
            for step in range(40):
                key = b"k%d" % source.randrange(12)
                verb = source.choice(
                    [
                        "put",
                        "put",
                        "large",
                        "delete",
                        "copy",
                        "multipart",
                        "abort",
                        "collect",
                        "seal",
                    ]
                )
                data = rig.noise(source.choice([100, 3_000, 60_000]), step)
                if verb == "put":
                    await one.put(key, data)
                    model[key] = data
                elif verb == "large":
                    data = rig.noise(source.randrange(300_000, 700_000), step)
                    await one.put(key, data)
                    model[key] = data
                elif verb == "delete":
                    await one.objects.delete("v", key)
                    model.pop(key, None)
                elif verb == "copy" and model:
                    origin = source.choice(sorted(model))
                    if origin != key:
                        await one.objects.copy("v", origin, "v", key)
                        model[key] = model[origin]
                elif verb in ("multipart", "abort"):
                    upload = await one.objects.create_upload("v", key, Attributes())
                    parts, whole = [], b""
                    for number in (1, 2):
                        piece = rig.noise(150_000, step + number)
                        part = await one.objects.part_writer(
                            "v", key, upload.upload, number, size=len(piece)
                        )
                        await part.write(piece)
                        done = await part.commit(Digests(etag=f"p{number}"))
                        parts.append(PartInfo(number=number, size=len(piece), etag=done.etag))
                        whole += piece
                    if verb == "abort":
                        await one.objects.abort_upload("v", key, upload.upload)
                    else:
                        await one.objects.complete_upload(
                            "v", key, upload.upload, parts, Digests(etag="w")
                        )
                        model[key] = whole
                elif verb == "collect":
                    await one.collect()
                elif verb == "seal":
                    await one.seal()
            for name, expected in model.items():
                assert await one.get(name) == expected
    async with node(meta, *media) as one:
        await one.collect()
        for name, expected in model.items():
            assert await one.get(name) == expected
        report = await one.containers.scrub(deep=True)
        assert report.lost == []
        for name in model:
            await one.objects.delete("v", name)
        await one.collect()
    assert rig.blobs(media[0]) == rig.blobs(media[1]) == []
