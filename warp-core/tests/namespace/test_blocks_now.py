"""What is done at once, and what waits for a fold that is under way."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress

import files_stage as _module
import pytest
from warp_core.errors import Locked, OutOfRange, ReadOnly
from warp_core.namespace.leases import Kind
from warp_core.namespace.objects import NamespaceObjects
from warp_core.namespace.opens import Node, Owner
from warp_core.views.objects import Attributes, Digests

MIB = 1024 * 1024


@pytest.fixture
async def stage():
    async with _module.Stage() as stage:
        await stage.blocks.create("v", b"a", size=8 * MIB)
        yield stage


@pytest.fixture
async def disk(stage):
    disk = await stage.blocks.open("v", b"a", initiator="one")
    await disk.write(0, b"first")  # the first write sets the file apart
    yield disk
    await disk.close()


def joined(runs) -> bytes:
    """Return runs as bytes; fails if they do not touch."""
    found, at = b"", runs[0][0] if runs else 0
    for offset, length, data in runs:
        assert offset == at
        found += bytes(length) if data is None else bytes(data)
        at += length
    return found


async def test_now_does_what_waiting_does(stage, disk):
    rand = random.Random(7)
    model = bytearray(3 * MIB)
    model[:5] = b"first"
    hits = 0
    for turn in range(400):
        offset, length = rand.randrange(3 * MIB - 70_000), rand.choice([1, 512, 4096, 65_536])
        verb = rand.choice(["write", "write", "read", "read", "trim", "fold"])
        if verb == "write":
            data = rand.randbytes(length)
            if not disk.write_now(offset, data):
                await disk.write(offset, data)
            model[offset : offset + length] = data
        elif verb == "trim" and turn % 5 == 0:
            await disk.trim(offset, length * 20 if turn % 10 else 3 * MIB - offset)
            end = offset + length * 20 if turn % 10 else 3 * MIB
            model[offset : min(end, 3 * MIB)] = bytes(min(end, 3 * MIB) - offset)
        elif verb == "fold" and turn % 20 == 0:
            await disk.flush()
            await stage.files.inodes.checkpoint()
        else:
            expected = bytes(model[offset : offset + length])
            runs = disk.read_now(offset, length)
            if runs is not None:
                hits += 1
                assert joined(runs) == expected, f"turn {turn}: {length} bytes at {offset}"
            assert joined(await disk.read_runs(offset, length)) == expected, f"turn {turn}"

    assert hits > 100


async def test_now_knows_the_same_limits(stage, disk):
    for attempt in (disk.read_now, lambda at, length: disk.write_now(at, bytes(length))):
        with pytest.raises(OutOfRange):
            attempt(8 * MIB - 1, 2)
    reader = await stage.blocks.open("v", b"a", initiator="two", read_only=True)
    with pytest.raises(ReadOnly):
        reader.write_now(0, b"x")
    await reader.close()


async def test_a_lease_makes_it_wait(stage, disk):
    opens = stage.opens
    client = opens.add_client("reader", tell=lambda lease: None)
    owner = Owner(client, b"r")
    info = await stage.files.walk("v", b"a")
    number = await stage.files.number("v")
    # A read lease is refused beside a writer, so ask the table itself.
    opens._leases.grant(Node(number, info.ref.inode), owner, Kind.READ)

    assert disk.read_now(0, 5) is None
    assert not disk.write_now(0, b"other")
    opens.drop_client(client)


async def test_who_reads_the_rows_waits_for_a_fold_that_is_under_way(stage, disk):
    """A checkpoint that did not would forget the records of a fold which then is cut short; a GET would see half of it."""
    inodes = stage.files.inodes
    info = await stage.files.walk("v", b"a")
    number = await stage.files.number("v")
    content = inodes.live(number, info.ref.inode)
    go = asyncio.Event()
    real = content._log.flush

    async def slow() -> None:
        await go.wait()
        await real()

    await disk.write(0, b"second")
    content._log.flush = slow
    fold = asyncio.create_task(content.fold())
    await asyncio.sleep(0.01)
    waiting = [
        asyncio.create_task(inodes.settle(number, info.ref.inode)),
        asyncio.create_task(inodes.checkpoint()),
    ]
    done, _ = await asyncio.wait(waiting, timeout=0.05)

    assert not done
    go.set()
    await asyncio.gather(fold, *waiting)
    assert not content.dirty


async def test_many_small_writes_are_folded_beside_further_ones(stage, monkeypatch):
    from warp_core.namespace import contents

    monkeypatch.setattr(contents, "FRESH_MAX", 50)
    monkeypatch.setattr(contents, "FRESH_LIMIT", 100)
    disk = await stage.blocks.open("v", b"a", initiator="one")
    model = {}
    for number in range(600):
        at = number * 7919 % 2000 * 512
        data = number.to_bytes(4, "big") * 128
        if not disk.write_now(at, data):
            await disk.write(at, data)
        if number % 40 == 0:
            await asyncio.sleep(0)
        model[at] = data

    for at, data in model.items():
        assert joined(await disk.read_runs(at, 512)) == data
    info = await stage.files.walk("v", b"a")
    content = stage.files.inodes.live(await stage.files.number("v"), info.ref.inode)
    assert len(content._fresh) <= 100
    with suppress(Exception):
        await content._background
    await disk.close()


async def test_a_disk_in_use_keeps_its_name(stage, disk):
    objects = NamespaceObjects(stage.namespace)

    def put():
        return objects.put("v", b"a", b"other", Attributes(), Digests(etag="0" * 32))

    for attempt in (put, lambda: objects.delete("v", b"a")):
        with pytest.raises(Locked):
            await attempt()
    assert bytes(await disk.read(0, 5)) == b"first"
    await disk.close()
    await put()


async def test_a_snapshot_made_beside_writes_never_changes(stage, disk):
    """What is written while it is made is in it or not, from then on."""
    rand = random.Random(11)
    done = False

    async def write_on():
        number = 0
        while not done:
            number += 1
            data = number.to_bytes(8, "big") * 512
            at = rand.randrange(2048) * 4096
            if not disk.write_now(at, data):
                await disk.write(at, data)
            if number % 50 == 0:
                await asyncio.sleep(0)

    writer = asyncio.create_task(write_on())
    seen = {}
    try:
        for turn in range(8):
            await asyncio.sleep(0.01)
            await stage.blocks.snapshot("v", b"a", f"s{turn}")
            then = await stage.blocks.open("v", b"a", snapshot=f"s{turn}", initiator="two")
            seen[turn] = [bytes(await then.read(at * MIB, MIB)) for at in range(8)]
            await then.close()
    finally:
        done = True
        await writer
    await stage.inodes.checkpoint()

    for turn, contents in seen.items():
        then = await stage.blocks.open("v", b"a", snapshot=f"s{turn}", initiator="two")
        for at in range(8):
            assert bytes(await then.read(at * MIB, MIB)) == contents[at], (turn, at)
        await then.close()


async def test_writes_beside_a_fold_that_writes_a_window_anew_are_kept(stage, disk, monkeypatch):
    """A window in too many pieces is read and written whole: what comes between must not be covered."""
    rand = random.Random(12)
    read = stage.inodes.log.read

    async def from_a_device(chunk, *, offset, length):
        await asyncio.sleep(0)
        return await read(chunk, offset=offset, length=length)

    monkeypatch.setattr(stage.inodes.log, "read_now", lambda chunk, *, offset, length: None)
    monkeypatch.setattr(stage.inodes.log, "read", from_a_device)
    volume = await stage.files.number("v")
    model = bytearray(MIB)
    model[:5] = b"first"
    done = False

    async def fold_on():
        while not done:
            await stage.inodes.settle(volume, disk.info.ref.inode)
            await asyncio.sleep(0)

    folder = asyncio.create_task(fold_on())
    try:
        for number in range(6000):
            data = bytes([number % 251 + 1]) * 700
            at = rand.randrange(MIB - 700)
            if not disk.write_now(at, data):
                await disk.write(at, data)
            model[at : at + 700] = data
            if number % 40 == 0:
                await asyncio.sleep(0)
    finally:
        done = True
        await folder

    assert bytes(await disk.read(0, MIB)) == bytes(model)


async def test_a_volume_that_is_read_anew_stays_known_meanwhile(stage, monkeypatch):
    """A transaction that was refused reads it anew; disks of the volume that are in use go on."""
    volumes = stage.namespace.volumes
    before = await volumes.get("v")
    load = volumes._load

    async def slow(name, view):
        await asyncio.sleep(0.01)
        return await load(name, view)

    monkeypatch.setattr(volumes, "_load", slow)
    reading = asyncio.create_task(volumes.reload("v"))
    await asyncio.sleep(0)

    assert volumes.known("v") is before
    assert (await reading).row == before.row
    assert volumes.known("v") is not before
