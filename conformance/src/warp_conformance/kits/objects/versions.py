"""Versions, delete markers and copies."""

from __future__ import annotations

import contextlib

import pytest
from msgspec.structs import replace
from warp_core.errors import (
    AlreadyExists,
    InvalidArgument,
    IsDeleteMarker,
    NotFound,
    PreconditionFailed,
    VersionNotFound,
)
from warp_core.views.objects import (
    Attributes,
    Condition,
    Digests,
    Objects,
    Provenance,
)

from warp_conformance.difference import same
from warp_conformance.kits.objects.stage import (
    ALICE,
    KEYS_IN_ORDER,
    RICH,
    ObjectsStage,
    Usage,
    digests,
    get,
    keys,
    noise,
    numbers,
    put,
    put_part,
    rolled,
    versions,
)


async def history(subject: Objects, volume: str) -> list[tuple[object, ...]]:
    """Return what a volume has of each version, newest first."""
    return [
        (entry.key, entry.version, entry.modified_ns, entry.marker, entry.latest, entry.size)
        for entry in await versions(subject, volume)
    ]


class Versions(ObjectsStage, kit=True):
    """Versions, delete markers and copies."""

    # Versions from elsewhere ----------------------------------------------------------------------

    @pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)])
    async def test_versions_of_elsewhere_are_the_same_here_in_whatever_order_they_come(
        self, subject: Objects, volume: str, usage: Usage, order: tuple[int, ...]
    ) -> None:
        await subject.set_versioning(volume, "on")
        await subject.create_volume("there", owner=ALICE)
        await subject.set_versioning("there", "on")
        for number in range(2):
            await put(subject, volume, b"d/k", noise(2000 + number))
        await subject.delete(volume, b"d/k")
        await put(subject, volume, b"d/k", b"last")
        made = list(reversed(await versions(subject, volume)))

        for _ in range(2):
            for number in order:
                entry = made[number]
                provenance = Provenance(version=entry.version, modified_ns=entry.modified_ns)
                if entry.marker:
                    with contextlib.suppress(AlreadyExists):
                        await subject.delete("there", b"d/k", provenance=provenance)
                    continue
                data = await get(subject, volume, b"d/k", entry.version)
                with contextlib.suppress(AlreadyExists):
                    await put(subject, "there", b"d/k", data, Attributes(provenance=provenance))

        assert await history(subject, "there") == await history(subject, volume)
        assert await usage("there") == await usage(volume)
        assert same(await get(subject, "there", b"d/k", made[1].version), noise(2001))
        assert await get(subject, "there", b"d/k") == b"last"

    async def test_what_comes_after_a_version_of_elsewhere_is_newer(
        self, subject: Objects, volume: str
    ) -> None:
        await subject.set_versioning(volume, "on")
        provenance = Provenance(version=f"{1000:016x}{7:016x}", modified_ns=10**18)
        first = await put(subject, volume, b"k", b"1", Attributes(provenance=provenance))
        second = await put(subject, volume, b"k", b"2")
        assert (first.version, first.modified_ns) == (provenance.version, 10**18)
        found = await versions(subject, volume)
        assert [entry.version for entry in found] == [second.version, first.version]

    async def test_a_place_that_another_version_has_is_refused(
        self, subject: Objects, volume: str
    ) -> None:
        await subject.set_versioning(volume, "on")
        made = [await put(subject, volume, b"k", data) for data in (b"1", b"2")]
        for entry in made:
            taken = Provenance(version=entry.version[:16] + f"{7:016x}")
            with pytest.raises(PreconditionFailed):
                await put(subject, volume, b"k", b"3", Attributes(provenance=taken))
            with pytest.raises(PreconditionFailed):
                await subject.delete(volume, b"k", provenance=taken)
        for wrong in ("null", "f" * 32):
            with pytest.raises(InvalidArgument):
                await put(
                    subject, volume, b"k", b"3", Attributes(provenance=Provenance(version=wrong))
                )
        found = await versions(subject, volume)
        assert [entry.version for entry in found] == [made[1].version, made[0].version]

    async def test_an_upload_makes_the_version_that_it_was_begun_for(
        self, subject: Objects, volume: str
    ) -> None:
        await subject.set_versioning(volume, "on")
        provenance = Provenance(version=f"{5:016x}{7:016x}", modified_ns=10**18)
        begun = await subject.create_upload(volume, b"k", Attributes(provenance=provenance))
        part = await put_part(subject, volume, b"k", begun.upload, 1, b"part")
        made = await subject.complete_upload(volume, b"k", begun.upload, [part], digests(b"part"))
        assert (made.version, made.modified_ns) == (provenance.version, 10**18)

    async def test_volumes_without_versions_keep_the_time_alone(
        self, subject: Objects, volume: str
    ) -> None:
        for _ in range(2):
            provenance = Provenance(version=f"{5:016x}{7:016x}", modified_ns=10**18)
            made = await put(subject, volume, b"k", b"1", Attributes(provenance=provenance))
            assert (made.version, made.modified_ns) == ("null", 10**18)

    async def test_how_far_a_copy_is_is_told(self, subject: Objects, volume: str) -> None:
        made = await put(subject, volume, b"k", b"1", Attributes(replication="PENDING"))
        assert made.attributes.replication == "PENDING"
        await subject.set_replication(volume, b"k", "COMPLETED")
        assert (await subject.head(volume, b"k")).attributes.replication == "COMPLETED"
        copy = await subject.copy(volume, b"k", volume, b"copy")
        assert copy.attributes.replication == ""

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

    async def test_an_acl_belongs_to_a_version(self, subject: Objects, volume: str) -> None:
        await subject.set_versioning(volume, "on")
        one = await put(subject, volume, b"k", b"1", replace(RICH, acl=b"said"))
        two = await put(subject, volume, b"k", b"2")
        assert await subject.set_acl(volume, b"k", b"new", version=two.version) == two.version

        for version, acl in ((one.version, b"said"), (two.version, b"new"), ("", b"new")):
            found = (await subject.head(volume, b"k", version=version)).attributes
            assert found.acl == acl
        tags = (await subject.head(volume, b"k", version=one.version)).attributes.tags
        assert tags == RICH.tags

    # Copies ---------------------------------------------------------------------------------------

    @pytest.mark.parametrize("size", [10, 5000, 300_000])
    async def test_a_copy_outlives_its_source(
        self, subject: Objects, volume: str, usage: Usage, size: int
    ) -> None:
        data = noise(size)
        other = f"kit-{next(numbers)}"
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
