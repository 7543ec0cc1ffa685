"""Sealed contents: nothing lies in the clear, every view reads what it may, and a change in any byte is found."""

from __future__ import annotations

import hashlib
import importlib.util
import random
from pathlib import Path

import pytest
from warp_aead.filter import Aead
from warp_conformance.reference.consistency import Plain
from warp_core.contexts import AuthContext
from warp_core.errors import Corrupt, KeyNotFound, Sealed, Unsupported
from warp_core.namespace.check import Check
from warp_core.namespace.locks import Owner
from warp_core.namespace.objects import NamespaceObjects
from warp_core.namespace.sealing import Sealer
from warp_core.namespace.shares import HERE, Access
from warp_core.namespace.snapshots import Snapshots
from warp_core.views.files import SetInfo
from warp_core.views.objects import Attributes, Digests, PartInfo, Sealing
from warp_kms.config import Config
from warp_kms.service import LocalKeys

_spec = importlib.util.spec_from_file_location(
    "files_stage_for_sealing", Path(__file__).with_name("files_stage.py")
)
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
_fixed = _module.codec
MIB = 1024 * 1024
TEXT = b"nobody reads this "
KEY = b"k" * 32
OTHER = b"o" * 32


def codec(name):
    return Aead(name) if name in ("aes-gcm", "chacha20-poly1305") else _fixed(name)


class Stage(_module.Stage):
    """A node with a key service, which outlives its crashes."""

    def __init__(self, folder, cipher="aes-gcm"):
        super().__init__()
        self.folder = folder
        self.cipher = cipher
        self.rows = Plain()
        self.keys = None

    async def _begin(self):
        _module.codec = codec
        await super()._begin()

    async def _open(self):
        await super()._open()
        if self.keys is None:
            await self.rows.__aenter__()
            context = AuthContext(self.folder, self.rows, ("R", "s"))
            self.keys = LocalKeys(Config(keys=("one", "two")), context)
            await self.keys.__aenter__()
        self.sealer = Sealer(self.containers.keyring, self.keys, cipher=self.cipher)
        # `Stage._begin` makes the namespace; what it seals with is this.
        _module.Namespace = lambda meta, containers, **more: _Namespace(
            meta, containers, sealer=self.sealer, **more
        )

    @property
    def objects(self):
        return NamespaceObjects(self.namespace)

    async def stored(self) -> bytes:
        blobs = await self.blobs.list()
        found = [await self.blobs.read(each.name, offset=0, length=each.size) for each in blobs]
        return b"".join(found)


_Namespace = _module.Namespace


@pytest.fixture(params=["aes-gcm", "chacha20-poly1305"])
async def stage(request, tmp_path):
    async with Stage(tmp_path, request.param) as stage:
        yield stage
        assert len(stage.containers.keyring) == 0, "a key was kept after its last use"


def digests(data):
    return Digests(etag=hashlib.md5(data, usedforsecurity=False).hexdigest())


def text(size):
    return (TEXT * (size // len(TEXT) + 1))[:size]


async def put(stage, key, data, sealing, volume="v"):
    if len(data) <= 64 * 1024:
        return await stage.objects.put(
            volume, key, data, Attributes(), digests(data), sealing=sealing
        )
    writer = await stage.objects.writer(volume, key, Attributes(), sealing=sealing)
    await writer.write(data)
    return await writer.commit(digests(data))


async def get(stage, key, secret=b"", volume="v", version=""):
    reader = await stage.objects.open(volume, key, version=version, secret=secret)
    try:
        found = bytearray()
        while len(found) < reader.info.size:
            found += await reader.read(len(found), MIB)
        return bytes(found)
    finally:
        reader.close()


@pytest.mark.parametrize("size", [0, 1, 1000, 4096, 65_536, 70_000, 3 * MIB + 17])
@pytest.mark.parametrize("wish", [Sealing(), Sealing(key="two"), Sealing(secret=KEY)])
async def test_what_is_sealed_is_read_back_and_lies_nowhere_in_the_clear(stage, size, wish):
    data = text(size)
    info = await put(stage, b"k", data, wish)
    await stage.containers.sync()
    assert info.seal.own == bool(wish.secret)

    assert await get(stage, b"k", wish.secret) == data
    assert TEXT not in await stage.stored()


async def test_the_same_content_is_never_stored_the_same(stage):
    before = len(await stage.stored())
    for at in range(8):
        await put(stage, b"%d" % at, bytes(4096), Sealing())
    await stage.containers.sync()

    stored = await stage.stored()
    assert len(stored) >= before
    pieces = {stored[at : at + 64] for at in range(0, len(stored) - 64, 8)}
    frames = [piece for piece in pieces if piece.count(0) < 8]
    assert len(frames) == len(set(frames))


async def test_a_secret_is_needed_and_no_other_opens(stage):
    await put(stage, b"k", text(4096), Sealing(secret=KEY))
    for secret, why in ((b"", "missing"), (OTHER, "wrong")):
        with pytest.raises(Sealed) as caught:
            await stage.objects.open("v", b"k", secret=secret)
        assert caught.value.why == why
        with pytest.raises(Sealed) as caught:
            await stage.objects.head("v", b"k", secret=secret)
        assert caught.value.why == why
    await put(stage, b"p", text(4096), None)
    await put(stage, b"s", text(4096), Sealing())
    for key in (b"p", b"s"):
        with pytest.raises(Sealed) as caught:
            await stage.objects.open("v", key, secret=KEY)
        assert caught.value.why == "needless"

    assert (await stage.objects.head("v", b"k")).seal.own


async def test_no_row_and_no_store_has_a_callers_secret(stage):
    await put(stage, b"k", text(100), Sealing(secret=KEY))
    await put(stage, b"l", text(MIB), Sealing(secret=KEY))
    await stage.containers.sync()
    rows = [row.value for row in await stage.meta.view().scan(b"", b"\xff")]

    assert not [row for row in rows if KEY in row]
    assert KEY not in await stage.stored()
    assert "k" * 8 not in repr(Sealing(secret=KEY))


async def test_every_flipped_byte_of_a_frame_is_found_also_where_its_checksum_was_made_to_fit(
    tmp_path,
):
    """A thief of disks can compute checksums; what seals a frame has to find the change."""
    from warp_core.containers import format as fmt
    from warp_core.containers.filters import decode_frames

    async with Stage(tmp_path) as stage:
        _, hold = await stage.sealer.seal(Sealing())
        packer = stage.containers.packer(hold.word)
        buffers, stored = packer.pack(1, 77, 4096, fmt.Owner(1, 2, 3), 1, text(300))
        record = b"".join(bytes(each) for each in buffers)[:stored]
        chain = stage.containers._codecs.chain(hold.word)
        head = fmt.require_head(record, fmt.Chunk(77, 4096, stored, 300))
        frame = record[head.size :]
        assert bytes(decode_frames(chain, head, 0, frame)) == text(300)
        for at in range(len(frame)):
            changed = bytearray(frame)
            changed[at] ^= 1 << at % 8
            with pytest.raises(Corrupt):
                decode_frames(chain, head, 0, changed)
        for container, offset in ((78, 4096), (77, 4104)):  # the same bytes at another place
            moved = head._replace(container=container, offset=offset)
            with pytest.raises(Corrupt):
                decode_frames(chain, moved, 0, frame)
        hold.release()


async def test_copies_keep_or_change_how_they_are_sealed(stage):
    wishes = {
        b"plain": None,
        b"node": Sealing(),
        b"two": Sealing(key="two"),
        b"own": Sealing(secret=KEY),
        b"other": Sealing(secret=OTHER),
    }
    data = text(200_000)
    for source, wish in wishes.items():
        await put(stage, source, data, wish)
    for source, before in wishes.items():
        for target, after in wishes.items():
            info = await stage.objects.copy(
                "v",
                source,
                "v",
                b"copy",
                source_secret=before.secret if before else b"",
                sealing=after,
            )
            assert (info.seal is None) == (after is None), (source, target)
            assert await get(stage, b"copy", after.secret if after else b"") == data
    with pytest.raises(Sealed):
        await stage.objects.copy("v", b"own", "v", b"copy", sealing=Sealing())


async def test_a_copy_under_another_key_moves_no_byte_and_outlives_its_source(stage):
    await put(stage, b"k", text(MIB), Sealing(key="one"))
    await stage.containers.sync()
    before = len(await stage.stored())
    info = await stage.objects.copy("v", b"k", "v", b"c", sealing=Sealing(key="two"))
    await stage.objects.delete("v", b"k")
    await stage.keys.enable_key("one", enabled=False)
    stage.sealer.forget()

    assert info.seal.key == "two"
    assert len(await stage.stored()) - before < 64 * 1024
    assert await get(stage, b"c") == text(MIB)


async def test_parts_are_sealed_with_the_key_of_their_upload(stage):
    for wish in (Sealing(), Sealing(secret=KEY), None):
        secret = wish.secret if wish else b""
        await put(stage, b"src", text(100_000), Sealing(secret=OTHER))
        upload = await stage.objects.create_upload("v", b"m", Attributes(), sealing=wish)
        parts = []
        for number in (1, 2):
            writer = await stage.objects.part_writer(
                "v", b"m", upload.upload, number, secret=secret
            )
            await writer.write(text(300_000 + number))
            made = await writer.commit(digests(text(300_000 + number)))
            parts.append(PartInfo(number=number, size=made.size, etag=made.etag))
        copied = await stage.objects.copy_part(
            "v", b"src", "v", b"m", upload.upload, 3, offset=10, length=5000,
            source_secret=OTHER, secret=secret,
        )  # fmt: skip
        if wish is not None and wish.secret:
            for wrong, why in ((b"", "missing"), (OTHER, "wrong")):
                with pytest.raises(Sealed) as caught:
                    await stage.objects.part_writer("v", b"m", upload.upload, 4, secret=wrong)
                assert caught.value.why == why
        await stage.objects.complete_upload(
            "v", b"m", upload.upload, [*parts, copied], Digests(etag="e")
        )
        expected = text(300_001) + text(300_002) + text(100_000)[10:5010]

        assert await get(stage, b"m", secret) == expected


async def test_a_check_needs_no_key_and_finds_what_is_damaged(stage):
    for at, wish in enumerate((Sealing(), Sealing(secret=KEY))):
        for size in (100, 70_000, 2 * MIB):
            await put(stage, b"%d-%d" % (at, size), text(size), wish)
    found = await Check(stage.namespace, deep=True, progress=lambda _: None).run()
    assert found.problems == []
    await stage.containers.sync()
    await stage.journal.flush()
    stage.keys = None

    found = await Check(stage.namespace, deep=True, progress=lambda _: None).run()
    assert found.problems == []
    for blob in await stage.blobs.list():
        if blob.name.startswith("c/") and blob.size > MIB:
            await stage.blobs.write(blob.name, offset=MIB, buffers=[bytes(8)])
    found = await Check(stage.namespace, deep=True, progress=lambda _: None).run()
    assert found.problem_count >= 1
    assert "damaged" in str(found.problems)


async def test_an_aborted_write_lets_its_key_go(stage):
    writer = await stage.objects.writer("v", b"k", Attributes(), sealing=Sealing())
    await writer.write(text(2 * MIB))
    await writer.abort()
    with pytest.raises(KeyNotFound):
        await stage.objects.writer("v", b"k", Attributes(), sealing=Sealing(key="nobody's"))

    assert len(stage.containers.keyring) == 0


async def test_a_disabled_key_opens_nothing_once_it_is_forgotten(stage):
    await put(stage, b"k", text(4096), Sealing(key="one"))
    await stage.keys.enable_key("one", enabled=False)
    assert await get(stage, b"k") == text(4096)
    stage.sealer.forget()

    with pytest.raises(Exception, match="disabled"):
        await get(stage, b"k")
    await stage.keys.enable_key("one", enabled=True)
    assert await get(stage, b"k") == text(4096)


async def test_rotation_rewrites_nothing_and_opens_everything(stage):
    await put(stage, b"before", text(4096), Sealing(key="one"))
    await stage.keys.rotate_key("one")
    await put(stage, b"after", text(4096), Sealing(key="one"))
    stage.sealer.forget()

    assert await get(stage, b"before") == await get(stage, b"after") == text(4096)


async def test_without_a_key_service_only_own_secrets_seal(stage):
    stage.sealer._service = None
    with pytest.raises(Unsupported):
        await put(stage, b"k", text(10), Sealing())
    await put(stage, b"k", text(10), Sealing(secret=KEY))

    assert await get(stage, b"k", KEY) == text(10)


async def test_sealed_objects_are_files_and_disks_and_stay_sealed_when_they_are_written(stage):
    """Reads, writes, truncation, folds and crashes over a disk that S3 put sealed."""
    rand = random.Random(5)
    size = 4 * MIB
    model = bytearray(text(size))
    await put(stage, b"a", bytes(model), Sealing(key="two"))
    await stage.blocks.create("v", b"a", size=None)
    disk = await stage.blocks.open("v", b"a", initiator="one")
    for turn in range(150):
        length = rand.choice([1, 512, 4096, 65_536, 300_000])
        offset = rand.randrange(size - length)
        verb = rand.choice(["write", "write", "read", "trim", "fold", "crash"])
        if verb == "write":
            data = text(length)
            await disk.write(offset, data)
            model[offset : offset + length] = data
        elif verb == "trim":
            await disk.trim(offset, length)
            model[offset : offset + length] = bytes(length)
        elif verb == "fold" and turn % 5 == 0:
            await stage.inodes.checkpoint()
        elif verb == "crash" and turn % 4 == 0:
            await disk.flush()
            await stage.crash()
            disk = await stage.blocks.open("v", b"a", initiator="one")
        got = await disk.read(offset, length)
        assert same(got, model[offset : offset + length]), (turn, verb)
    await disk.flush()
    await disk.close()
    assert same(await get(stage, b"a"), model)
    assert (await stage.objects.head("v", b"a")).seal.key == "two"

    assert TEXT not in await stage.stored()


async def test_what_a_rollback_brings_back_is_sealed_as_it_was(stage):
    model = bytearray(text(2 * MIB))
    await put(stage, b"a", bytes(model), Sealing(key="one"))
    await stage.blocks.create("v", b"a", size=None)
    snapshots = Snapshots(stage.namespace, stage.inodes)
    disk = await stage.blocks.open("v", b"a", initiator="one")
    for turn in range(3):
        for at in range(0, 2 * MIB, 300_000):
            await disk.write(at, text(5000))
            model[at : at + 5000] = text(5000)
        await snapshots.create("v", f"S{turn}")
        expected = bytes(model)
        await disk.write(7, b"later" * 1000)
        model[7:5007] = b"later" * 1000
    await disk.close()
    for name in ("S2", "S0", "S2"):
        await snapshots.rollback("v", name)

    assert same(await get(stage, b"a"), expected)
    assert (await stage.objects.head("v", b"a")).seal.key == "one"
    assert TEXT not in await stage.stored()
    assert b"laterlater" not in await stage.stored()


async def test_what_a_caller_sealed_is_no_file_to_others(stage):
    await put(stage, b"a", text(8192), Sealing(secret=KEY))
    with pytest.raises(Sealed):
        await stage.blocks.create("v", b"a", size=None)
    found = await stage.files.lookup(await stage.files.root("v"), b"a")
    with pytest.raises(Sealed):
        await stage.files.open(
            found.ref, owner=Owner(HERE, 1), access=Access.READ, deny=Access.NONE
        )
    await stage.files.setattr(found.ref, SetInfo(mode=0o600))

    assert found.size == 8192
    assert await get(stage, b"a", KEY) == text(8192)
    await stage.crash()
    assert await get(stage, b"a", KEY) == text(8192)


async def test_a_start_that_needs_a_lost_key_says_so_and_loses_nothing(stage):
    await put(stage, b"a", text(8192), Sealing())
    await stage.blocks.create("v", b"a", size=None)
    disk = await stage.blocks.open("v", b"a", initiator="one")
    await disk.write(100, b"x" * 50)
    await disk.flush()
    await stage.keys.enable_key("default", enabled=False)
    with pytest.raises(Exception, match="disabled"):
        await stage.crash()
    await stage.keys.enable_key("default", enabled=True)
    await stage.crash()

    expected = text(100) + b"x" * 50 + text(8192)[150:]
    assert await get(stage, b"a") == expected


def same(found, expected):
    return hashlib.sha256(found).digest() == hashlib.sha256(expected).digest()
