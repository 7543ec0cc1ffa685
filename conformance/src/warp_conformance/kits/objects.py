"""The kit for the Objects view."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections.abc import Awaitable, Callable, Sequence

import pytest
from hypothesis import strategies as st
from warp_core.errors import (
    AlreadyExists,
    AlreadyOwned,
    InvalidArgument,
    IsDeleteMarker,
    NameTooLong,
    NotEmpty,
    NotFound,
    OutOfRange,
    PreconditionFailed,
    TooLarge,
    UploadNotFound,
    VersionNotFound,
    VolumeNotFound,
)
from warp_core.interfaces.auth import Principal
from warp_core.views.objects import (
    KEY_MAX,
    SMALL_MAX,
    Attributes,
    Condition,
    Digests,
    ObjectInfo,
    Objects,
    PartInfo,
)

from warp_conformance.difference import same
from warp_conformance.kit import Kit, given
from warp_conformance.model import File, ModelVolume

Usage = Callable[[str], Awaitable[tuple[int, int, int, int]]]
Reopen = Callable[[], Awaitable[Objects]]

ALICE = Principal("account:alice")
BOB = Principal("account:bob")
PLAIN = Attributes()
RICH = Attributes(
    headers={"content-type": "text/plain", "cache-control": "no-cache"},
    metadata={"colour": "grün"},
    tags={"a": "1", "b": ""},
    storage_class="STANDARD_IA",
    owner="account:alice",
)
KEYS_IN_ORDER = sorted(
    [
        b"a",
        b"a\0",
        b"a-b",
        b"a/",
        b"a/\0",
        b"a/!",
        b"a//b",
        b"a0",
        "aé".encode(),
        b"b/c/d",
        b"b/c",
        b"b",
        b"x" * 199,
        b"x" * 200,
        b"x" * 200 + b"/y",
        b"x" * 201,
        b"x" * 1024,
        b"/",
        b"//",
        b"\xff\xfe",
    ]
)

_names = itertools.count()


def digests(data: bytes) -> Digests:
    """Return what a protocol computes over content."""
    return Digests(etag=hashlib.md5(data, usedforsecurity=False).hexdigest())


def noise(length: int, seed: int = 0) -> bytes:
    """Return bytes without a short period."""
    return hashlib.shake_128(seed.to_bytes(8, "big")).digest(length)


async def put(
    objects: Objects,
    volume: str,
    key: bytes,
    data: bytes = b"x",
    attributes: Attributes = PLAIN,
    *,
    condition: Condition | None = None,
) -> ObjectInfo:
    """Put a small object."""
    if condition is None:
        return await objects.put(volume, key, data, attributes, digests(data))
    return await objects.put(volume, key, data, attributes, digests(data), condition=condition)


async def put_part(
    objects: Objects, volume: str, key: bytes, upload: str, number: int, data: bytes
) -> PartInfo:
    """Write a part."""
    writer = await objects.part_writer(volume, key, upload, number)
    await writer.write(data)
    made = await writer.commit(digests(data))
    return PartInfo(number=number, size=made.size, etag=made.etag)


async def get(objects: Objects, volume: str, key: bytes, version: str = "") -> bytes:
    """Read a whole object."""
    reader = await objects.open(volume, key, version=version)
    try:
        data = bytearray()
        while len(data) < reader.info.size:
            piece = reader.read_now(len(data), 1 << 20)
            if piece is None:
                piece = await reader.read(len(data), 1 << 20)
            assert len(piece), "a read inside the object returned nothing"
            data += piece
        return bytes(data)
    finally:
        reader.close()


async def keys(objects: Objects, volume: str, **how: object) -> list[bytes]:
    """Return all listed keys, in pages of three."""
    found: list[bytes] = []
    after = b""
    while True:
        page = await objects.list(volume, after=after, limit=3, **how)  # type: ignore[arg-type]
        assert len(page.entries) + len(page.prefixes) <= 3
        found += [entry.key for entry in page.entries]
        if not page.next:
            return found
        after = page.next


async def rolled(
    objects: Objects, volume: str, delimiter: bytes, prefix: bytes = b"", limit: int = 2
) -> tuple[list[bytes], list[bytes]]:
    """Return keys and common prefixes, in pages of two."""
    entries: list[bytes] = []
    prefixes: list[bytes] = []
    after = b""
    for _ in range(1000):
        page = await objects.list(
            volume, prefix=prefix, delimiter=delimiter, after=after, limit=limit
        )
        entries += [entry.key for entry in page.entries]
        prefixes += page.prefixes
        if not page.next:
            return entries, prefixes
        after = page.next
    raise AssertionError("the listing does not end")


async def versions(
    objects: Objects, volume: str, limit: int = 2, **how: object
) -> list[ObjectInfo]:
    """Return all versions, in pages of two."""
    found: list[ObjectInfo] = []
    key, version = b"", ""
    for _ in range(1000):
        page = await objects.list_versions(
            volume,
            key_marker=key,
            version_marker=version,
            limit=limit,
            **how,  # type: ignore[arg-type]
        )
        found += page.entries
        if not page.next_key:
            return found
        key, version = page.next_key, page.next_version
    raise AssertionError("the listing does not end")


class ObjectsKit(Kit, kit=True):
    """What the Objects view promises.

    Besides `subject` it wants `usage`: an async function of a volume's name that returns its objects, their bytes, its noncurrent
    versions and their bytes; and `reopen`: end the view as a crash would and return it anew on what was durable.
    """

    @pytest.fixture
    def usage(self) -> Usage:
        """Give what a volume holds."""
        raise NotImplementedError("give the kit a fixture `usage`")

    @pytest.fixture
    def reopen(self) -> Reopen:
        """Give what crashes and comes back."""
        raise NotImplementedError("give the kit a fixture `reopen`")

    @pytest.fixture
    async def volume(self, subject: Objects) -> str:
        """Make a volume for the test."""
        name = f"kit-{next(_names)}"
        await subject.create_volume(name, owner=ALICE)
        return name

    # Volumes --------------------------------------------------------------------------------------

    async def test_volumes_are_made_listed_and_removed(self, subject: Objects) -> None:
        made = [f"kit-{next(_names)}" for _ in range(3)]
        for name in reversed(made):
            await subject.create_volume(name, owner=ALICE)

        names = [volume.name for volume in await subject.volumes()]
        assert names == sorted(names)
        assert set(made) <= set(names)
        assert (await subject.volume(made[0])).owner == ALICE.name
        await subject.delete_volume(made[0])
        with pytest.raises(VolumeNotFound):
            await subject.volume(made[0])
        assert made[0] not in [volume.name for volume in await subject.volumes()]

    async def test_a_volume_is_made_once(self, subject: Objects, volume: str) -> None:
        with pytest.raises(AlreadyOwned):
            await subject.create_volume(volume, owner=ALICE)
        with pytest.raises(AlreadyExists) as caught:
            await subject.create_volume(volume, owner=BOB)
        assert not isinstance(caught.value, AlreadyOwned)

    async def test_a_volume_that_holds_something_stays(self, subject: Objects, volume: str) -> None:
        await put(subject, volume, b"a/b")
        with pytest.raises(NotEmpty):
            await subject.delete_volume(volume)
        await subject.set_versioning(volume, "on")
        marker = await subject.delete(volume, b"a/b")
        with pytest.raises(NotEmpty):
            await subject.delete_volume(volume)
        await subject.delete(volume, b"a/b", version=marker.version)
        await subject.delete(volume, b"a/b", version="null")

        await subject.delete_volume(volume)

    async def test_uploads_do_not_keep_a_volume(self, subject: Objects, volume: str) -> None:
        upload = await subject.create_upload(volume, b"k", PLAIN)
        await put_part(subject, volume, b"k", upload.upload, 1, b"part")

        await subject.delete_volume(volume)

    async def test_a_volume_made_again_is_empty(self, subject: Objects, volume: str) -> None:
        await subject.set_versioning(volume, "on")
        await subject.set_document(volume, "s3.cors", b"<x/>")
        upload = await subject.create_upload(volume, b"k", PLAIN)
        await subject.delete_volume(volume)
        await subject.create_volume(volume, owner=BOB)

        info = await subject.volume(volume)
        assert (info.versioning, dict(info.documents), info.owner) == ("off", {}, BOB.name)
        with pytest.raises(UploadNotFound):
            await subject.upload(volume, b"k", upload.upload)

    async def test_every_verb_refuses_an_unknown_volume(self, subject: Objects) -> None:
        for call in (
            lambda: subject.head("nowhere", b"k"),
            lambda: subject.open("nowhere", b"k"),
            lambda: put(subject, "nowhere", b"k"),
            lambda: subject.writer("nowhere", b"k", PLAIN),
            lambda: subject.delete("nowhere", b"k"),
            lambda: subject.list("nowhere"),
            lambda: subject.list_versions("nowhere"),
            lambda: subject.create_upload("nowhere", b"k", PLAIN),
            lambda: subject.list_uploads("nowhere"),
            lambda: subject.set_versioning("nowhere", "on"),
            lambda: subject.set_document("nowhere", "x", b""),
            lambda: subject.delete_volume("nowhere"),
        ):
            with pytest.raises(VolumeNotFound):
                await call()

    async def test_documents_are_kept_replaced_and_dropped(
        self, subject: Objects, volume: str
    ) -> None:
        await subject.set_document(volume, "s3.cors", b"one")
        await subject.set_document(volume, "s3.policy", bytes(60 * 1024))
        await subject.set_document(volume, "s3.cors", b"two")
        documents = (await subject.volume(volume)).documents
        assert same(dict(documents), {"s3.cors": b"two", "s3.policy": bytes(60 * 1024)})
        await subject.set_document(volume, "s3.policy", None)

        assert dict((await subject.volume(volume)).documents) == {"s3.cors": b"two"}
        with pytest.raises(InvalidArgument):
            await subject.set_document(volume, "big", bytes(60 * 1024 + 1))

    async def test_versioning_never_goes_off_again(self, subject: Objects, volume: str) -> None:
        assert (await subject.volume(volume)).versioning == "off"
        await subject.set_versioning(volume, "on")
        await subject.set_versioning(volume, "suspended")
        with pytest.raises(InvalidArgument):
            await subject.set_versioning(volume, "off")

        assert (await subject.volume(volume)).versioning == "suspended"

    # Objects --------------------------------------------------------------------------------------

    @pytest.mark.parametrize("size", [0, 1, 1023, 1024, 1025, 4096, SMALL_MAX])
    async def test_a_small_object_reads_back(
        self, subject: Objects, volume: str, size: int
    ) -> None:
        data = noise(size)
        made = await put(subject, volume, b"a/k", data)

        assert same(await get(subject, volume, b"a/k"), data)
        head = await subject.head(volume, b"a/k")
        assert (made.key, made.size, made.etag) == (b"a/k", size, digests(data).etag)
        assert (head.key, head.size, head.etag, head.version) == (
            b"a/k",
            size,
            digests(data).etag,
            "null",
        )
        assert head.modified_ns == made.modified_ns > 0

    async def test_a_payload_may_be_any_buffer_and_is_free_after_the_call(
        self, subject: Objects, volume: str
    ) -> None:
        buffer = bytearray(noise(5000))
        await subject.put(volume, b"k", memoryview(buffer)[100:], PLAIN, digests(b""))
        buffer[:] = bytes(5000)

        assert same(await get(subject, volume, b"k"), noise(5000)[100:])

    async def test_put_refuses_what_is_not_small(self, subject: Objects, volume: str) -> None:
        with pytest.raises(TooLarge):
            await put(subject, volume, b"k", bytes(SMALL_MAX + 1))
        assert await keys(subject, volume) == []

    @pytest.mark.parametrize("size", [0, 1, 70_000, 3 * 1024 * 1024 + 17])
    async def test_a_streamed_object_reads_back(
        self, subject: Objects, volume: str, size: int
    ) -> None:
        data = noise(size)
        writer = await subject.writer(volume, b"k", PLAIN)
        sent = 0
        while sent < size:
            buffer = writer.buffer()
            count = min(len(buffer), size - sent, 50_000)
            assert count
            buffer[:count] = data[sent : sent + count]
            sent += count
            if writer.wrote(count):
                await writer.drain()
        with pytest.raises(NotFound):
            await subject.head(volume, b"k")
        made = await writer.commit(digests(data))

        assert (made.size, made.etag) == (size, digests(data).etag)
        assert same(await get(subject, volume, b"k"), data)

    async def test_ranges_are_exact(self, subject: Objects, volume: str) -> None:
        data = noise(2 * 1024 * 1024 + 77)
        writer = await subject.writer(volume, b"k", PLAIN, size=len(data))
        await writer.write(data)
        await writer.commit(digests(data))
        reader = await subject.open(volume, b"k")

        for offset, length in (
            (0, 1),
            (1, 65_536),
            (65_535, 2),
            (1 << 20, 1 << 20),
            (len(data) - 1, 100),
            (len(data), 5),
            (12_345, 0),
        ):
            assert same(await reader.read(offset, length), data[offset : offset + length])
        reader.close()
        reader.close()

    async def test_an_aborted_stream_leaves_nothing(self, subject: Objects, volume: str) -> None:
        writer = await subject.writer(volume, b"k", PLAIN)
        await writer.write(noise(100_000))
        await writer.abort()
        await writer.abort()

        assert await keys(subject, volume) == []

    async def test_attributes_and_digests_are_kept(self, subject: Objects, volume: str) -> None:
        said = Digests(
            etag="e" * 32, checksums={"CRC64NVME": "AAAAAAAAAAA="}, checksum_type="FULL_OBJECT"
        )
        await subject.put(volume, b"k", b"data", RICH, said)

        head = await subject.head(volume, b"k")
        assert head.attributes == RICH
        assert (head.etag, head.checksums, head.checksum_type) == (
            said.etag,
            said.checksums,
            said.checksum_type,
        )
        assert (head.storage_class, head.owner) == (RICH.storage_class, RICH.owner)
        (entry,) = (await subject.list(volume)).entries
        assert (entry.etag, entry.size, entry.owner) == (said.etag, 4, RICH.owner)
        assert (entry.storage_class, entry.checksum_algorithms) == ("STANDARD_IA", ("CRC64NVME",))
        assert entry.modified_ns == head.modified_ns

    async def test_too_many_attributes_are_refused(self, subject: Objects, volume: str) -> None:
        fits = Attributes(metadata={"a": "x" * 8000})
        await put(subject, volume, b"k", b"", fits)
        assert (await subject.head(volume, b"k")).attributes == fits

    async def test_overwriting_replaces_everything(
        self, subject: Objects, volume: str, usage: Usage
    ) -> None:
        await put(subject, volume, b"k", noise(9000), RICH)
        await put(subject, volume, b"k", noise(2000, 1))

        assert same(await get(subject, volume, b"k"), noise(2000, 1))
        assert (await subject.head(volume, b"k")).attributes == PLAIN
        assert await usage(volume) == (1, 2000, 0, 0)

    async def test_what_is_answered_without_waiting_is_what_waiting_gives(
        self, subject: Objects, volume: str
    ) -> None:
        async def agree() -> None:
            for key in (b"k", b"d/e/k"):
                for _ in range(2):
                    info = subject.head_now(volume, key)
                    assert info is None or info == await subject.head(volume, key)
                    reader = subject.open_now(volume, key)
                    if reader is None:
                        continue
                    try:
                        assert reader.info == await subject.head(volume, key)
                        data = reader.read_now(0, reader.info.size)
                        if data is None:
                            data = await reader.read(0, reader.info.size)
                        assert same(bytes(data), await get(subject, volume, key))
                    finally:
                        reader.close()

        await agree()
        for key in (b"k", b"d/e/k"):
            await put(subject, volume, key, noise(9000), RICH)
        await agree()
        await subject.set_tags(volume, b"k", {"a": "1"})
        await agree()
        for key in (b"k", b"d/e/k"):
            await put(subject, volume, key, noise(100, 1))
        await agree()
        await subject.set_versioning(volume, "on")
        await put(subject, volume, b"k", noise(2000, 2))
        await agree()
        await subject.delete(volume, b"k")
        await subject.delete(volume, b"d/e/k")
        await agree()
        assert subject.head_now(volume, b"k") is None
        await put(subject, volume, b"k", noise(3000, 3))
        await agree()

    async def test_a_reader_keeps_what_it_opened(self, subject: Objects, volume: str) -> None:
        data = noise(300_000)
        writer = await subject.writer(volume, b"k", PLAIN)
        await writer.write(data)
        await writer.commit(digests(data))
        reader = await subject.open(volume, b"k")
        await put(subject, volume, b"k", b"other")
        await subject.delete(volume, b"k")

        assert same(await reader.read(0, len(data)), data)
        reader.close()

    async def test_keys_have_their_limits(self, subject: Objects, volume: str) -> None:
        await put(subject, volume, b"k" * KEY_MAX, b"long")
        assert await get(subject, volume, b"k" * KEY_MAX) == b"long"
        for key, error in ((b"k" * (KEY_MAX + 1), NameTooLong), (b"", InvalidArgument)):
            with pytest.raises(error):
                await put(subject, volume, key)
            with pytest.raises(error):
                await subject.writer(volume, key, PLAIN)
            with pytest.raises(error):
                await subject.create_upload(volume, key, PLAIN)

    async def test_any_bytes_are_a_key(self, subject: Objects, volume: str) -> None:
        for key in KEYS_IN_ORDER:
            await put(subject, volume, key, key)

        for key in KEYS_IN_ORDER:
            assert await get(subject, volume, key) == key
        for key in KEYS_IN_ORDER[::2]:
            assert (await subject.delete(volume, key)).found
        assert await keys(subject, volume) == KEYS_IN_ORDER[1::2]

    async def test_a_key_of_many_levels(self, subject: Objects, volume: str) -> None:
        deep = b"/".join([b"d"] * 500)
        await put(subject, volume, deep, b"deep")
        await put(subject, volume, b"/" * 1000, b"slashes")
        assert await keys(subject, volume) == [b"/" * 1000, deep]
        assert await get(subject, volume, deep) == b"deep"
        await subject.delete(volume, deep)
        await subject.delete(volume, b"/" * 1000)

        assert await rolled(subject, volume, b"/") == ([], [])
        await subject.delete_volume(volume)

    async def test_what_is_not_there_is_not_found(self, subject: Objects, volume: str) -> None:
        await put(subject, volume, b"a/b")
        for key in (b"a", b"a/", b"a/b/", b"a/bc", b"a/b/c", b"b"):
            with pytest.raises(NotFound):
                await subject.head(volume, key)
            with pytest.raises(NotFound):
                await subject.open(volume, key)
        with pytest.raises(VersionNotFound):
            await subject.head(volume, b"a/b", version="0" * 32)
        with pytest.raises(VersionNotFound):
            await subject.open(volume, b"a/b", version="no-version")

    async def test_delete_says_whether_something_was_there(
        self, subject: Objects, volume: str
    ) -> None:
        await put(subject, volume, b"k")
        first = await subject.delete(volume, b"k")
        second = await subject.delete(volume, b"k")

        assert (first.found, first.marker, first.version) == (True, False, "")
        assert not second.found
        with pytest.raises(NotFound):
            await subject.head(volume, b"k")

    async def test_tags_are_replaced_alone(self, subject: Objects, volume: str) -> None:
        before = await put(subject, volume, b"k", noise(5000), RICH)
        assert await subject.set_tags(volume, b"k", {"new": "tag"}) == "null"

        head = await subject.head(volume, b"k")
        assert head.attributes.tags == {"new": "tag"}
        assert head.attributes.metadata == RICH.metadata
        assert head.modified_ns == before.modified_ns
        assert same(await get(subject, volume, b"k"), noise(5000))
        with pytest.raises(NotFound):
            await subject.set_tags(volume, b"other", {})

    # Conditions -----------------------------------------------------------------------------------

    async def test_absent_means_no_current_object(self, subject: Objects, volume: str) -> None:
        absent = Condition(absent=True)
        await put(subject, volume, b"k", b"1", condition=absent)
        with pytest.raises(PreconditionFailed):
            await put(subject, volume, b"k", b"2", condition=absent)
        assert await get(subject, volume, b"k") == b"1"
        await subject.set_versioning(volume, "on")
        await subject.delete(volume, b"k")
        await put(subject, volume, b"k", b"3", condition=absent)

        assert await get(subject, volume, b"k") == b"3"

    async def test_an_etag_is_compared_with_the_current_object(
        self, subject: Objects, volume: str
    ) -> None:
        made = await put(subject, volume, b"k", b"1")
        with pytest.raises(PreconditionFailed):
            await put(subject, volume, b"k", b"2", condition=Condition(etag="0" * 32))
        await put(subject, volume, b"k", b"3", condition=Condition(etag=made.etag))
        await put(subject, volume, b"k", b"4", condition=Condition(etag="*"))
        with pytest.raises(NotFound):
            await put(subject, volume, b"other", b"5", condition=Condition(etag=made.etag))

        assert await get(subject, volume, b"k") == b"4"
        assert await keys(subject, volume) == [b"k"]

    async def test_a_stream_is_judged_when_it_commits(self, subject: Objects, volume: str) -> None:
        writer = await subject.writer(volume, b"k", PLAIN, condition=Condition(absent=True))
        await writer.write(b"late")
        await put(subject, volume, b"k", b"first")
        with pytest.raises(PreconditionFailed):
            await writer.commit(digests(b"late"))

        assert await get(subject, volume, b"k") == b"first"

    async def test_a_delete_may_have_conditions(self, subject: Objects, volume: str) -> None:
        made = await put(subject, volume, b"k", b"12345")
        for wrong in (
            Condition(etag="0" * 32),
            Condition(size=4),
            Condition(modified_s=made.modified_ns // 10**9 - 1),
        ):
            with pytest.raises(PreconditionFailed):
                await subject.delete(volume, b"k", condition=wrong)
        assert await keys(subject, volume) == [b"k"]
        right = Condition(etag=made.etag, size=5, modified_s=made.modified_ns // 10**9)

        assert (await subject.delete(volume, b"k", condition=right)).found

    async def test_of_many_that_demand_absence_one_succeeds(
        self, subject: Objects, volume: str
    ) -> None:
        async def attempt(number: int) -> bytes | None:
            data = b"%d" % number * 2000
            try:
                await put(subject, volume, b"d/k", data, condition=Condition(absent=True))
            except PreconditionFailed:
                return None
            return data

        won = [each for each in await asyncio.gather(*map(attempt, range(24))) if each]

        assert len(won) == 1
        assert same(await get(subject, volume, b"d/k"), won[0])

    async def test_a_counter_by_compare_and_swap_loses_nothing(
        self, subject: Objects, volume: str
    ) -> None:
        await put(subject, volume, b"n", b"0")

        async def client() -> None:
            for _ in range(6):
                while True:
                    reader = await subject.open(volume, b"n")
                    now = int(bytes(await reader.read(0, 10)))
                    etag = reader.info.etag
                    reader.close()
                    try:
                        await put(
                            subject, volume, b"n", b"%d" % (now + 1), condition=Condition(etag=etag)
                        )
                    except PreconditionFailed:
                        continue
                    break

        await asyncio.gather(*(client() for _ in range(5)))

        assert await get(subject, volume, b"n") == b"30"

    # Listing --------------------------------------------------------------------------------------

    async def test_keys_are_listed_in_the_order_of_their_bytes(
        self, subject: Objects, volume: str
    ) -> None:
        for key in KEYS_IN_ORDER[::-1]:
            await put(subject, volume, key)

        assert await keys(subject, volume) == KEYS_IN_ORDER
        whole = await subject.list(volume)
        assert [entry.key for entry in whole.entries] == KEYS_IN_ORDER
        assert whole.next == b""

    async def test_prefixes_select(self, subject: Objects, volume: str) -> None:
        for key in KEYS_IN_ORDER:
            await put(subject, volume, key)

        for prefix in (
            b"a",
            b"a/",
            b"a//",
            b"b/c",
            b"x" * 199,
            b"x" * 200,
            b"x" * 250,
            b"\xff",
            b"q",
            b"/",
        ):
            wanted = [key for key in KEYS_IN_ORDER if key.startswith(prefix)]
            assert await keys(subject, volume, prefix=prefix) == wanted

    async def test_delimiters_roll_up(self, subject: Objects, volume: str) -> None:
        model = ModelVolume()
        for key in KEYS_IN_ORDER:
            await put(subject, volume, key)
            model.put(key, File(b"x"))

        for delimiter in (b"/", b"-", b"\0", b"b", b"/c", b"xx", b"//", b"nothing"):
            for prefix in (b"", b"a", b"a/", b"b/", b"x" * 200, b"q"):
                page = model.list(prefix, delimiter)
                wanted = [key for key, _ in page.entries], page.prefixes
                assert await rolled(subject, volume, delimiter, prefix) == wanted
                assert await rolled(subject, volume, delimiter, prefix, 1000) == wanted

    async def test_a_page_begins_behind_any_bytes(self, subject: Objects, volume: str) -> None:
        for key in KEYS_IN_ORDER:
            await put(subject, volume, key)

        for after in (*KEYS_IN_ORDER, b"a/a", b"a.", b"zz", b"x" * 205, b"b/c/", b"\0"):
            page = await subject.list(volume, after=after)
            assert [entry.key for entry in page.entries] == [
                key for key in KEYS_IN_ORDER if key > after
            ]

    async def test_a_common_prefix_is_skipped_as_a_whole(
        self, subject: Objects, volume: str
    ) -> None:
        for key in (b"a/1", b"a/2", b"b", b"c/1"):
            await put(subject, volume, key)
        page = await subject.list(volume, delimiter=b"/", after=b"a/")
        assert ([entry.key for entry in page.entries], list(page.prefixes)) == ([b"b"], [b"c/"])
        page = await subject.list(volume, delimiter=b"/", after=b"a/1")

        assert list(page.prefixes) == [b"a/", b"c/"]

    async def test_a_limit_of_zero_lists_nothing(self, subject: Objects, volume: str) -> None:
        await put(subject, volume, b"k")
        page = await subject.list(volume, limit=0)

        assert (list(page.entries), list(page.prefixes), page.next) == ([], [], b"")

    async def test_more_than_one_scan(self, subject: Objects, volume: str) -> None:
        wanted = [b"%05d" % number for number in range(1100)]
        for key in wanted:
            await put(subject, volume, b"d/" + key)
        page = await subject.list(volume, prefix=b"d/")
        rest = await subject.list(volume, prefix=b"d/", after=page.next)

        assert len(page.entries) == 1000
        assert same([entry.key[2:] for entry in (*page.entries, *rest.entries)], wanted)

    # Versions -------------------------------------------------------------------------------------

    async def test_every_put_makes_a_version(
        self, subject: Objects, volume: str, usage: Usage
    ) -> None:
        await put(subject, volume, b"k", b"old")
        await subject.set_versioning(volume, "on")
        made = [await put(subject, volume, b"k", noise(2000 + n)) for n in range(3)]

        assert len({info.version for info in made}) == 3
        found = await versions(subject, volume)
        assert [entry.version for entry in found] == [
            *(info.version for info in reversed(made)),
            "null",
        ]
        assert [entry.latest for entry in found] == [True, False, False, False]
        for number, info in enumerate(made):
            assert same(await get(subject, volume, b"k", info.version), noise(2000 + number))
            head = await subject.head(volume, b"k", version=info.version)
            assert (head.version, head.size) == (info.version, 2000 + number)
        assert await get(subject, volume, b"k", "null") == b"old"
        assert await usage(volume) == (1, 2002, 3, 2000 + 2001 + 3)
        gone = await subject.delete(volume, b"k")
        assert [entry.version for entry in await versions(subject, volume)] == [
            gone.version,
            *(entry.version for entry in found),
        ]

    async def test_a_marker_hides_and_its_removal_shows(
        self, subject: Objects, volume: str
    ) -> None:
        await subject.set_versioning(volume, "on")
        made = await put(subject, volume, b"d/k", b"content")
        gone = await subject.delete(volume, b"d/k")

        assert gone.marker
        assert gone.version not in ("", made.version)
        assert await keys(subject, volume) == []
        assert await rolled(subject, volume, b"/") == ([], [])
        with pytest.raises(IsDeleteMarker) as caught:
            await subject.head(volume, b"d/k")
        assert caught.value.version == gone.version
        with pytest.raises(IsDeleteMarker):
            await subject.open(volume, b"d/k", version=gone.version)
        assert await get(subject, volume, b"d/k", made.version) == b"content"
        removed = await subject.delete(volume, b"d/k", version=gone.version)
        assert (removed.marker, removed.version) == (True, gone.version)
        assert await get(subject, volume, b"d/k") == b"content"
        assert await keys(subject, volume) == [b"d/k"]

    async def test_a_delete_of_nothing_leaves_a_marker(self, subject: Objects, volume: str) -> None:
        await subject.set_versioning(volume, "on")
        gone = await subject.delete(volume, b"x/y/z")
        (entry,) = await versions(subject, volume)

        assert (entry.key, entry.version, entry.marker, entry.latest) == (
            b"x/y/z",
            gone.version,
            True,
            True,
        )
        await subject.delete(volume, b"x/y/z", version=gone.version)
        await subject.delete_volume(volume)

    async def test_removing_the_current_version_shows_the_one_before(
        self, subject: Objects, volume: str, usage: Usage
    ) -> None:
        await subject.set_versioning(volume, "on")
        made = [await put(subject, volume, b"a/k", b"%d" % n) for n in range(3)]
        await subject.delete(volume, b"a/k", version=made[2].version)
        assert await get(subject, volume, b"a/k") == b"1"
        await subject.delete(volume, b"a/k", version=made[0].version)
        assert await get(subject, volume, b"a/k") == b"1"
        assert await usage(volume) == (1, 1, 0, 0)
        await subject.delete(volume, b"a/k", version=made[1].version)

        assert await versions(subject, volume) == []
        assert await usage(volume) == (0, 0, 0, 0)
        with pytest.raises(NotFound):
            await subject.head(volume, b"a/k")

    async def test_removing_no_version_does_nothing(self, subject: Objects, volume: str) -> None:
        await subject.set_versioning(volume, "on")
        made = await put(subject, volume, b"k")
        for version in ("null", "0" * 32, "junk"):
            assert not (await subject.delete(volume, b"k", version=version)).found
        assert not (await subject.delete(volume, b"other", version=made.version)).found

        assert [entry.version for entry in await versions(subject, volume)] == [made.version]

    async def test_suspended_keeps_one_null_version(self, subject: Objects, volume: str) -> None:
        await put(subject, volume, b"k", b"0")
        await subject.set_versioning(volume, "on")
        one = await put(subject, volume, b"k", b"1")
        await subject.set_versioning(volume, "suspended")
        assert (await put(subject, volume, b"k", b"2")).version == "null"
        await put(subject, volume, b"k", b"3")
        assert [entry.version for entry in await versions(subject, volume)] == ["null", one.version]
        assert await get(subject, volume, b"k", "null") == b"3"
        gone = await subject.delete(volume, b"k")
        assert (gone.version, gone.marker) == ("null", True)
        assert [(entry.version, entry.marker) for entry in await versions(subject, volume)] == [
            ("null", True),
            (one.version, False),
        ]
        await subject.set_versioning(volume, "on")
        two = await put(subject, volume, b"k", b"4")

        assert [entry.version for entry in await versions(subject, volume)] == [
            two.version,
            "null",
            one.version,
        ]

    async def test_versions_are_listed_key_by_key(self, subject: Objects, volume: str) -> None:
        await subject.set_versioning(volume, "on")
        wanted: list[tuple[bytes, str, bool]] = []
        for key in KEYS_IN_ORDER:
            one = await put(subject, volume, key, b"1")
            gone = await subject.delete(volume, key)
            two = await put(subject, volume, key, b"2")
            wanted += [
                (key, two.version, False),
                (key, gone.version, True),
                (key, one.version, False),
            ]

        for limit in (2, 7, 1000):
            found = await versions(subject, volume, limit)
            assert same([(entry.key, entry.version, entry.marker) for entry in found], wanted)
        found = await versions(subject, volume, prefix=b"a/")
        assert [entry.key for entry in found] == [
            key for key, _, _ in wanted if key.startswith(b"a/")
        ]
        page = await subject.list_versions(volume, delimiter=b"/")
        assert list(page.prefixes) == [b"/", b"a/", b"b/", b"x" * 200 + b"/"]
        assert [entry.version for entry in page.entries] == [
            version for key, version, _ in wanted if b"/" not in key
        ]

    async def test_tags_belong_to_a_version(self, subject: Objects, volume: str) -> None:
        await subject.set_versioning(volume, "on")
        one = await put(subject, volume, b"k", b"1", RICH)
        two = await put(subject, volume, b"k", b"2", RICH)
        assert await subject.set_tags(volume, b"k", {"t": "1"}, version=one.version) == one.version

        assert (await subject.head(volume, b"k", version=one.version)).attributes.tags == {"t": "1"}
        assert (await subject.head(volume, b"k", version=two.version)).attributes.tags == RICH.tags

    # Copies ---------------------------------------------------------------------------------------

    @pytest.mark.parametrize("size", [10, 5000, 300_000])
    async def test_a_copy_outlives_its_source(
        self, subject: Objects, volume: str, usage: Usage, size: int
    ) -> None:
        data = noise(size)
        other = f"kit-{next(_names)}"
        await subject.create_volume(other, owner=ALICE)
        writer = await subject.writer(volume, b"a/from", RICH)
        await writer.write(data)
        await writer.commit(digests(data))
        await subject.copy(volume, b"a/from", volume, b"near")
        await subject.copy(volume, b"a/from", other, b"far/away")
        await subject.copy(other, b"far/away", volume, b"back")
        await subject.delete(volume, b"a/from")
        await subject.delete(other, b"far/away")

        for key in (b"near", b"back"):
            assert same(await get(subject, volume, key), data)
            assert (await subject.head(volume, key)).attributes == RICH
        assert await usage(volume) == (2, 2 * size, 0, 0)
        assert await usage(other) == (0, 0, 0, 0)
        await subject.delete(volume, b"near")
        assert same(await get(subject, volume, b"back"), data)

    async def test_a_copy_may_have_other_attributes(self, subject: Objects, volume: str) -> None:
        await put(subject, volume, b"k", noise(2000), RICH)
        other = Attributes(metadata={"x": "y"}, owner="account:bob")
        said = Digests(etag="d" * 32)
        made = await subject.copy(volume, b"k", volume, b"k", attributes=other, digests=said)

        assert made.etag == said.etag
        head = await subject.head(volume, b"k")
        assert (head.attributes, head.etag) == (other, said.etag)
        assert same(await get(subject, volume, b"k"), noise(2000))

    async def test_any_version_can_be_copied(self, subject: Objects, volume: str) -> None:
        await subject.set_versioning(volume, "on")
        one = await put(subject, volume, b"k", b"1" * 3000)
        await put(subject, volume, b"k", b"2" * 3000)
        await subject.copy(volume, b"k", volume, b"k", source_version=one.version)
        assert same(await get(subject, volume, b"k"), b"1" * 3000)
        assert len(await versions(subject, volume)) == 3
        await subject.delete(volume, b"k", version=one.version)

        assert same(await get(subject, volume, b"k"), b"1" * 3000)

    async def test_a_copy_of_nothing_or_against_a_condition_fails(
        self, subject: Objects, volume: str
    ) -> None:
        await put(subject, volume, b"k", b"1")
        with pytest.raises(NotFound):
            await subject.copy(volume, b"none", volume, b"t")
        with pytest.raises(VersionNotFound):
            await subject.copy(volume, b"k", volume, b"t", source_version="0" * 32)
        with pytest.raises(PreconditionFailed):
            await subject.copy(volume, b"k", volume, b"k", condition=Condition(absent=True))
        await subject.set_versioning(volume, "on")
        await subject.delete(volume, b"k")
        with pytest.raises(NotFound):
            await subject.copy(volume, b"k", volume, b"t")

        assert await keys(subject, volume) == []

    # Multipart uploads ----------------------------------------------------------------------------

    async def test_parts_make_an_object_in_the_order_of_their_numbers(
        self, subject: Objects, volume: str, usage: Usage
    ) -> None:
        upload = await subject.create_upload(
            volume, b"d/k", RICH, checksum_algorithm="CRC32", checksum_type="COMPOSITE"
        )
        described = await subject.upload(volume, b"d/k", upload.upload)
        assert (described.key, described.upload, described.attributes) == (
            b"d/k",
            upload.upload,
            RICH,
        )
        assert (described.checksum_algorithm, described.checksum_type) == ("CRC32", "COMPOSITE")
        third = await put_part(subject, volume, b"d/k", upload.upload, 3, noise(9_000, 3))
        first = await put_part(subject, volume, b"d/k", upload.upload, 1, noise(70_000, 1))
        assert await keys(subject, volume) == []
        said = Digests(etag="e" * 32 + "-2")
        made = await subject.complete_upload(volume, b"d/k", upload.upload, [first, third], said)

        assert (made.size, made.etag) == (79_000, said.etag)
        assert same(await get(subject, volume, b"d/k"), noise(70_000, 1) + noise(9_000, 3))
        head = await subject.head(volume, b"d/k")
        assert head.attributes == RICH
        assert [(part.number, part.size, part.etag) for part in head.parts] == [
            (1, 70_000, first.etag),
            (3, 9_000, third.etag),
        ]
        assert await usage(volume) == (1, 79_000, 0, 0)
        again = await subject.complete_upload(volume, b"d/k", upload.upload, [first, third], said)
        assert (again.etag, again.version) == (made.etag, made.version)
        with pytest.raises(UploadNotFound):
            await subject.upload(volume, b"d/k", upload.upload)
        with pytest.raises(UploadNotFound):
            await subject.part_writer(volume, b"d/k", upload.upload, 4)

    async def test_a_part_sent_again_replaces_the_first(
        self, subject: Objects, volume: str
    ) -> None:
        upload = await subject.create_upload(volume, b"k", PLAIN)
        old = await put_part(subject, volume, b"k", upload.upload, 1, b"old" * 1000)
        new = await put_part(subject, volume, b"k", upload.upload, 1, b"new" * 2000)
        parts, more = await subject.list_parts(volume, b"k", upload.upload)
        assert ([(part.number, part.size, part.etag) for part in parts], more) == (
            [(1, 6000, new.etag)],
            False,
        )
        with pytest.raises(InvalidArgument):
            await subject.complete_upload(volume, b"k", upload.upload, [old], digests(b""))
        await subject.complete_upload(volume, b"k", upload.upload, [new], digests(b""))

        assert same(await get(subject, volume, b"k"), b"new" * 2000)

    async def test_what_does_not_fit_completes_nothing(self, subject: Objects, volume: str) -> None:
        upload = await subject.create_upload(volume, b"k", PLAIN)
        one = await put_part(subject, volume, b"k", upload.upload, 1, b"1")
        two = await put_part(subject, volume, b"k", upload.upload, 2, b"2")
        missing = PartInfo(number=3, size=1, etag=one.etag)
        wrongs: Sequence[list[PartInfo]] = ([], [two, one], [one, one], [one, missing])
        for wrong in wrongs:
            with pytest.raises(InvalidArgument):
                await subject.complete_upload(volume, b"k", upload.upload, wrong, digests(b""))
        await put(subject, volume, b"k", b"there")
        with pytest.raises(PreconditionFailed):
            await subject.complete_upload(
                volume,
                b"k",
                upload.upload,
                [one, two],
                digests(b""),
                condition=Condition(absent=True),
            )
        assert await get(subject, volume, b"k") == b"there"
        await subject.complete_upload(volume, b"k", upload.upload, [one, two], digests(b"12"))

        assert await get(subject, volume, b"k") == b"12"

    async def test_part_numbers_have_their_limits(self, subject: Objects, volume: str) -> None:
        upload = await subject.create_upload(volume, b"k", PLAIN)
        for number in (0, -1, 10_001):
            with pytest.raises(InvalidArgument):
                await subject.part_writer(volume, b"k", upload.upload, number)
        made = await put_part(subject, volume, b"k", upload.upload, 10_000, b"last")
        await subject.complete_upload(volume, b"k", upload.upload, [made], digests(b""))

        assert await get(subject, volume, b"k") == b"last"

    async def test_parts_are_listed_in_pages(self, subject: Objects, volume: str) -> None:
        upload = await subject.create_upload(volume, b"k", PLAIN)
        for number in (7, 300, 2, 256):
            await put_part(subject, volume, b"k", upload.upload, number, b"x" * number)
        one, more = await subject.list_parts(volume, b"k", upload.upload, limit=3)
        two, rest = await subject.list_parts(volume, b"k", upload.upload, after=256, limit=3)

        assert ([part.number for part in one], more) == ([2, 7, 256], True)
        assert ([part.number for part in two], rest) == ([300], False)
        assert [part.size for part in one] == [2, 7, 256]

    async def test_an_aborted_upload_is_gone(self, subject: Objects, volume: str) -> None:
        upload = await subject.create_upload(volume, b"k", PLAIN)
        part = await put_part(subject, volume, b"k", upload.upload, 1, noise(5000))
        await subject.abort_upload(volume, b"k", upload.upload)

        for call in (
            lambda: subject.upload(volume, b"k", upload.upload),
            lambda: subject.list_parts(volume, b"k", upload.upload),
            lambda: subject.abort_upload(volume, b"k", upload.upload),
            lambda: subject.complete_upload(volume, b"k", upload.upload, [part], digests(b"")),
            lambda: subject.part_writer(volume, b"k", upload.upload, 1),
        ):
            with pytest.raises(UploadNotFound):
                await call()
        assert (await subject.list_uploads(volume))[0] == []

    async def test_an_upload_belongs_to_its_key(self, subject: Objects, volume: str) -> None:
        upload = await subject.create_upload(volume, b"k", PLAIN)
        for key, number in ((b"other", upload.upload), (b"k", "0" * 32), (b"k", "junk")):
            with pytest.raises(UploadNotFound):
                await subject.upload(volume, key, number)

    async def test_uploads_are_listed_by_key_then_age(self, subject: Objects, volume: str) -> None:
        long = b"z" * 300
        wanted = []
        for key in (b"a", b"a/1", b"a/1", b"b/2", b"c", long + b"b", long + b"a", long):
            made = await subject.create_upload(volume, key, PLAIN)
            wanted.append((key, made.upload))
        wanted.sort(key=lambda pair: pair[0])

        found, prefixes, more = await subject.list_uploads(volume)
        assert [(each.key, each.upload) for each in found] == wanted
        assert (list(prefixes), more) == ([], False)
        paged: list[tuple[bytes, str]] = []
        key, number = b"", ""
        for _ in range(20):
            found, _, more = await subject.list_uploads(
                volume, key_marker=key, upload_marker=number, limit=3
            )
            paged += [(each.key, each.upload) for each in found]
            if not more:
                break
            key, number = paged[-1]
        assert paged == wanted
        found, prefixes, _ = await subject.list_uploads(volume, delimiter=b"/")
        assert list(prefixes) == [b"a/", b"b/"]
        assert [each.key for each in found] == [b"a", b"c", long, long + b"a", long + b"b"]
        found, _, _ = await subject.list_uploads(volume, prefix=b"a/")
        assert [each.key for each in found] == [b"a/1", b"a/1"]
        found, _, _ = await subject.list_uploads(volume, key_marker=b"a/1")
        assert [each.key for each in found] == [b"b/2", b"c", long, long + b"a", long + b"b"]

    @pytest.mark.parametrize("size", [700, 200_000])
    async def test_parts_are_copied_from_objects(
        self, subject: Objects, volume: str, size: int
    ) -> None:
        data = noise(size)
        writer = await subject.writer(volume, b"from", PLAIN)
        await writer.write(data)
        await writer.commit(digests(data))
        upload = await subject.create_upload(volume, b"k", PLAIN)
        middle = await subject.copy_part(
            volume, b"from", volume, b"k", upload.upload, 2, offset=100, length=size - 300
        )
        whole = await subject.copy_part(
            volume, b"from", volume, b"k", upload.upload, 5, digests=digests(data)
        )
        for wrong in ((size, 1), (0, size + 1), (-1, 5)):
            with pytest.raises(OutOfRange):
                await subject.copy_part(
                    volume,
                    b"from",
                    volume,
                    b"k",
                    upload.upload,
                    6,
                    offset=wrong[0],
                    length=wrong[1],
                )
        await subject.delete(volume, b"from")
        await subject.complete_upload(volume, b"k", upload.upload, [middle, whole], digests(b""))

        assert (middle.size, whole.size, whole.etag) == (size - 300, size, digests(data).etag)
        assert same(await get(subject, volume, b"k"), data[100 : size - 200] + data)
        reader = await subject.open(volume, b"k")
        assert await reader.read(size - 310, 20) == data[size - 210 : size - 200] + data[:10]
        reader.close()

    # Crashes and sequences ------------------------------------------------------------------------

    async def test_what_was_acknowledged_survives_a_crash(
        self, subject: Objects, volume: str, reopen: Reopen, usage: Usage
    ) -> None:
        await subject.set_versioning(volume, "on")
        one = await put(subject, volume, b"d/k", noise(5000), RICH)
        two = await put(subject, volume, b"d/k", noise(500, 2))
        await subject.delete(volume, b"gone")
        upload = await subject.create_upload(volume, b"up", PLAIN)
        part = await put_part(subject, volume, b"up", upload.upload, 1, noise(80_000))
        unfinished = await subject.writer(volume, b"half", PLAIN)
        await unfinished.write(noise(200_000))
        before = await usage(volume)
        anew = await reopen()

        assert [entry.key for entry in (await anew.list(volume)).entries] == [b"d/k"]
        assert await get(anew, volume, b"d/k") == noise(500, 2)
        assert same(await get(anew, volume, b"d/k", one.version), noise(5000))
        assert (await anew.head(volume, b"d/k", version=one.version)).attributes == RICH
        assert (await anew.head(volume, b"d/k")).version == two.version
        assert len(await versions(anew, volume)) == 3
        await anew.complete_upload(volume, b"up", upload.upload, [part], digests(b""))
        assert same(await get(anew, volume, b"up"), noise(80_000))
        assert (await usage(volume))[1] == before[1] + 80_000

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(
                    [
                        "put",
                        "put",
                        "put",
                        "delete",
                        "delete",
                        "remove",
                        "remove",
                        "copy",
                        "versioning",
                        "tags",
                    ]
                ),
                st.integers(0, 7),
                st.integers(0, 5),
            ),
            max_size=30,
        )
    )
    async def test_random_sequences_agree_with_the_model(
        self, subject: Objects, usage: Usage, steps: list[tuple[str, int, int]]
    ) -> None:
        volume = f"kit-{next(_names)}"
        await subject.create_volume(volume, owner=ALICE)
        model = ModelVolume()
        for number, (verb, which, choice) in enumerate(steps):
            await follow(subject, volume, model, number, verb, which, choice)
        await agree(subject, volume, model, usage)


NAMES = (b"a", b"a/b", b"a/c", b"a/", b"a/b/c", b"b", b"x" * 220, b"x" * 220 + b"/\0")


async def follow(
    subject: Objects,
    volume: str,
    model: ModelVolume,
    number: int,
    verb: str,
    which: int,
    choice: int,
) -> None:
    """Do one step of a random sequence on the subject and on the model."""
    key = NAMES[which]
    if verb == "put":
        data = noise((0, 10, 1500, 5000, 100, 70_000)[choice], number)
        if len(data) > SMALL_MAX:
            writer = await subject.writer(volume, key, PLAIN)
            await writer.write(data)
            made = await writer.commit(digests(data))
        else:
            made = await put(subject, volume, key, data)
        model.put(key, File(data), made.version)
    elif verb == "delete":
        gone = await subject.delete(volume, key)
        assert gone.found == model.delete(key, gone.version or "null")
    elif verb == "remove":
        ids = [each.version for each in model.names.get(key, ())]
        version = ids[choice % len(ids)] if ids else "0" * 32
        removed = await subject.delete(volume, key, version=version)
        wanted = model.remove(key, version)
        assert removed.found == (wanted is not None)
        assert removed.marker == (wanted is not None and wanted.marker)
    elif verb == "copy":
        target = NAMES[choice]
        source = model.current(key)
        try:
            made = await subject.copy(volume, key, volume, target)
        except NotFound:
            assert source is None
        else:
            assert source is not None
            assert source.file is not None
            model.put(target, File(source.file.content), made.version)
    elif verb == "tags":
        try:
            await subject.set_tags(volume, key, {"step": str(number)})
        except NotFound:
            assert model.current(key) is None
    else:
        state = ("on", "suspended")[choice % 2]
        if choice < 4:
            await subject.set_versioning(volume, state)  # type: ignore[arg-type]
            model.versioning = state


async def agree(subject: Objects, volume: str, model: ModelVolume, usage: Usage) -> None:
    """Compare everything that can be seen of a volume with its model."""
    page = await subject.list(volume)
    assert [(entry.key, entry.version) for entry in page.entries] == model.list().entries
    found = await versions(subject, volume, 3)
    assert [(entry.key, entry.version) for entry in found] == model.list_versions().entries
    for delimiter in (b"/", b"b", b"x/"):
        rolled_up = model.list(b"", delimiter)
        assert await rolled(subject, volume, delimiter) == (
            [key for key, _ in rolled_up.entries],
            rolled_up.prefixes,
        )
    for key, kept in model.names.items():
        for number, each in enumerate(kept):
            if each.file is not None:
                assert same(await get(subject, volume, key, each.version), each.file.content)
                continue
            with pytest.raises(IsDeleteMarker):
                await subject.head(volume, key, version=each.version)
            if not number:
                with pytest.raises(IsDeleteMarker):
                    await subject.head(volume, key)
    assert await usage(volume) == model.usage()
