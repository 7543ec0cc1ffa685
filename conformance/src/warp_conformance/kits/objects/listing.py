"""Listings: every order, delimiter, page."""

from __future__ import annotations

from warp_core.views.objects import (
    Objects,
)

from warp_conformance.difference import same
from warp_conformance.kits.objects.stage import KEYS_IN_ORDER, ObjectsStage, keys, put, rolled
from warp_conformance.model import File, ModelVolume


class Listing(ObjectsStage, kit=True):
    """Listings: every order, delimiter, page."""

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
