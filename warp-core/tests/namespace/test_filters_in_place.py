"""A volume's filters act on what is written in place as on what is written whole: nothing lies on a store in the clear."""

from __future__ import annotations

import hashlib
import importlib.util
import random
import zlib
from pathlib import Path

import pytest
from warp_core.containers import DataPolicy
from warp_core.errors import Corrupt
from warp_core.interfaces.codecs import CodecCapabilities, Filter

_spec = importlib.util.spec_from_file_location(
    "files_stage_for_filters", Path(__file__).with_name("files_stage.py")
)
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
MIB = 1024 * 1024
SECRET = b"in the clear "


class Mask(Filter):
    """Hides bytes under a stream that belongs to their place, behind a tag of four bytes."""

    capabilities = CodecCapabilities(deterministic=True, releases_gil=False)
    stage = "encrypt"
    overhead = 4

    def encode(self, frame, *, context):
        return zlib.crc32(frame).to_bytes(4, "big") + self._masked(frame, context)

    def decode(self, stored, *, length, context):
        data = self._masked(stored[4:], context)
        if len(data) != length or zlib.crc32(data).to_bytes(4, "big") != stored[:4]:
            raise Corrupt("another place's frame")
        return data

    def _masked(self, data, context):
        stream = hashlib.shake_128(context).digest(len(data))
        both = int.from_bytes(data, "big") ^ int.from_bytes(stream, "big")
        return both.to_bytes(len(data), "big")


class Short(Filter):
    """Compresses."""

    capabilities = CodecCapabilities(deterministic=True, releases_gil=True)
    stage = "compress"

    def encode(self, frame, *, context):
        stored = zlib.compress(frame, 1)
        return stored if len(stored) < len(frame) else None

    def decode(self, stored, *, length, context):
        return zlib.decompress(stored)


def codec(name):
    return {"short": Short, "mask": Mask}[name]() if name in ("short", "mask") else _fixed(name)


_fixed = _module.codec


class Stage(_module.Stage):
    """A node whose volumes have filters."""

    filters = ("short", "mask")

    async def _begin(self):
        _module.codec = codec
        await super()._begin()
        self.namespace.policy = DataPolicy(filters=self.filters)

    async def stored(self) -> bytes:
        """Return all that lies on the store."""
        blobs = await self.blobs.list()
        found = [await self.blobs.read(each.name, offset=0, length=each.size) for each in blobs]
        return b"".join(found)


@pytest.fixture
async def stage():
    async with Stage() as stage:
        await stage.blocks.create("v", b"a", size=8 * MIB)
        yield stage


async def test_what_is_written_in_place_is_read_and_lies_nowhere_in_the_clear(stage):
    rand = random.Random(3)
    model = bytearray(8 * MIB)
    disk = await stage.blocks.open("v", b"a", initiator="one")
    for turn in range(600):
        length = rand.choice([1, 20, 512, 4096, 4096, 65_536, 300_000, 2 * MIB])
        offset = rand.randrange(8 * MIB - length)
        verb = rand.choice(["write", "write", "write", "trim", "read", "fold", "flush", "crash"])
        if verb == "write":
            some = rand.choice([SECRET, rand.randbytes(64) + SECRET])
            data = (some * (length // len(some) + 1))[:length]
            if length > 300_000 or not disk.write_now(offset, data):
                await disk.write(offset, data)
            model[offset : offset + length] = data
        elif verb == "trim":
            await disk.trim(offset, length)
            model[offset : offset + length] = bytes(length)
        elif verb == "fold" and turn % 7 == 0:
            await stage.inodes.checkpoint()
        elif verb == "flush":
            await disk.flush()
        elif verb == "crash" and turn % 5 == 0:
            await disk.flush()
            await stage.crash()
            disk = await stage.blocks.open("v", b"a", initiator="one")
        got = await disk.read(offset, length)
        assert (
            hashlib.sha256(got).digest() == hashlib.sha256(model[offset : offset + length]).digest()
        ), (turn, verb)
    for at in range(8):
        got = bytes(await disk.read(at * MIB, MIB))
        assert (
            hashlib.sha256(got).digest()
            == hashlib.sha256(model[at * MIB : (at + 1) * MIB]).digest()
        )
    await disk.flush()
    await disk.close()

    assert SECRET not in await stage.stored()


async def test_compression_makes_less_of_it(stage):
    stage.namespace.policy = DataPolicy(filters=("short",))
    disk = await stage.blocks.open("v", b"a", initiator="one")
    before = stage.journal.end
    for at in range(0, 2 * MIB, 4096):
        await disk.write(at, SECRET * 315)
    await disk.flush()
    after = stage.journal.end

    assert after.container == before.container
    assert after.offset - before.offset < MIB
    assert bytes(await disk.read(4096, 4095)) == SECRET * 315
    await disk.close()


async def test_without_the_filter_what_was_written_through_it_stays_readable_by_its_head(stage):
    disk = await stage.blocks.open("v", b"a", initiator="one")
    await disk.write(0, SECRET * 10)
    await disk.close()
    stage.namespace.policy = DataPolicy()
    disk = await stage.blocks.open("v", b"a", initiator="one")
    await disk.write(MIB, SECRET * 10)
    await disk.flush()

    assert bytes(await disk.read(0, 130)) == SECRET * 10
    assert bytes(await disk.read(MIB, 130)) == SECRET * 10
    assert SECRET in await stage.stored()  # what came later, by another policy
    await disk.close()
