"""Multipart uploads: parts, copies of parts, completion, what is left of those that never end."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from warp_core.errors import (
    InvalidArgument,
    OutOfRange,
    PreconditionFailed,
    UploadNotFound,
)
from warp_core.views.objects import (
    Condition,
    Digests,
    Objects,
    PartInfo,
)

from warp_conformance.difference import same
from warp_conformance.kits.objects.stage import (
    PLAIN,
    RICH,
    ObjectsStage,
    Usage,
    digests,
    get,
    keys,
    noise,
    put,
    put_part,
)


class Uploads(ObjectsStage, kit=True):
    """Multipart uploads: parts, copies of parts, completion, what is left of those that never end."""

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

    async def test_parts_keep_their_checksums(self, subject: Objects, volume: str) -> None:
        upload = await subject.create_upload(
            volume, b"k", PLAIN, checksum_algorithm="CRC32", checksum_type="COMPOSITE"
        )
        writer = await subject.part_writer(volume, b"k", upload.upload, 1)
        await writer.write(b"x")
        said = Digests(etag="e" * 32, checksums={"CRC32": "jNoLDQ=="})
        made = await writer.commit(said)
        listed, _ = await subject.list_parts(volume, b"k", upload.upload)
        await subject.complete_upload(volume, b"k", upload.upload, listed, Digests(etag="f-1"))
        head = await subject.head(volume, b"k")

        assert made.checksums == said.checksums
        assert [part.checksums for part in listed] == [said.checksums]
        assert [part.checksums for part in head.parts] == [said.checksums]

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
