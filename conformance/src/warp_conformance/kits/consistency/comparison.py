"""Random sequences beside a plain model."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable
from typing import Any

import pytest
from hypothesis import strategies as st
from warp_core.errors import (
    Conflict,
)
from warp_core.interfaces.consistency import (
    SCAN_MAX,
    Commit,
    KeyCheck,
    Merge,
    MetaStore,
    RangeCheck,
    Row,
    Stamp,
    View,
    Write,
)

from warp_conformance.kit import given
from warp_conformance.kits.consistency.stage import MetaStoreStage
from warp_conformance.reference.consistency import Plain

KEYS = st.sampled_from([b"a", b"a\0", b"aa", b"b", b"b/c", b"c", b"ca", b"d", b"\xff"])


COUNTERS = st.sampled_from([b"n/1", b"n/2"])


BOUNDS = st.sampled_from(
    [b"\0", b"a", b"aa", b"b", b"b0", b"c", b"d", b"e", b"n", b"o", b"\xff", b"\xff\xff"]
)


VALUES = st.binary(max_size=4)


class Comparison(MetaStoreStage, kit=True):
    """Random sequences beside a plain model."""

    # Against a model ------------------------------------------------------------------------------

    @given(data=st.data())
    async def test_any_sequence_agrees_with_a_plain_model(
        self, subject: MetaStore, data: st.DataObject
    ) -> None:
        run = _Comparison(subject, data)
        try:
            for _ in range(data.draw(st.integers(1, 30))):
                await run.step()
            await run.compare_everything()
        finally:
            run.close()


class _Comparison:
    """One random sequence on the subject and on the plain model, below a prefix of its own."""

    _prefixes = itertools.count()

    def __init__(self, subject: MetaStore, data: st.DataObject) -> None:
        self.subject = subject
        self.model = Plain()
        self.data = data
        self.prefix = b"run%06d/" % next(self._prefixes)
        self.views: list[tuple[View, View]] = []
        self.versions = {0: 0}  # of the model → of the subject
        self.look()

    def close(self) -> None:
        for ours, theirs in self.views:
            ours.close()
            theirs.close()

    def look(self) -> None:
        """Open a view on both."""
        self.views.append((self.subject.view(), self.model.view()))
        if len(self.views) > 4:
            ours, theirs = self.views.pop(self.data.draw(st.integers(0, 2)))
            ours.close()
            theirs.close()

    async def step(self) -> None:
        await getattr(self, self.data.draw(st.sampled_from(["change", "change", "read", "scan"])))()

    async def change(self) -> None:
        draw = self.data.draw
        ours, theirs = draw(st.sampled_from(self.views))
        keys = draw(st.lists(KEYS, unique=True, max_size=3))
        plain: list[KeyCheck | RangeCheck] = []
        real: list[KeyCheck | RangeCheck] = []
        for key in draw(st.lists(st.one_of(KEYS, COUNTERS), max_size=2, unique=True)):
            row = await theirs.get(key)
            seen = row[1] if row else 0
            plain.append(KeyCheck(key, seen))
            real.append(KeyCheck(self.prefix + key, self.versions[seen]))
        for start, end in draw(st.lists(st.tuples(BOUNDS, BOUNDS), max_size=1)):
            plain.append(RangeCheck(start, end, theirs.version))
            real.append(RangeCheck(self.prefix + start, self.prefix + end, ours.version))
        values = [draw(st.one_of(st.none(), VALUES)) for _ in keys]
        merges = [
            Merge(key, add=(draw(st.integers(-5, 5)),), max=(draw(st.integers(-5, 5)),))
            for key in draw(st.lists(COUNTERS, max_size=1))
        ]
        stamps = [Stamp(b"s/", b"x", b"v")] if draw(st.booleans()) else []
        agreed = await _both(
            self.subject.commit(
                Commit(
                    real,
                    [
                        Write(self.prefix + key, value)
                        for key, value in zip(keys, values, strict=True)
                    ],
                    [merge._replace(key=self.prefix + merge.key) for merge in merges],
                    [stamp._replace(prefix=self.prefix + stamp.prefix) for stamp in stamps],
                )
            ),
            self.model.commit(
                Commit(
                    plain,
                    [Write(key, value) for key, value in zip(keys, values, strict=True)],
                    merges,
                    stamps,
                )
            ),
        )
        if agreed is not None:
            self.versions[agreed[1]] = agreed[0]
            self.look()

    async def read(self) -> None:
        ours, theirs = self.data.draw(st.sampled_from(self.views))
        key = self.data.draw(st.one_of(KEYS, COUNTERS))
        row = await theirs.get(key)
        expected = None if row is None else (row[0], self.versions[row[1]])
        assert await ours.get(self.prefix + key) == expected

    async def scan(self) -> None:
        draw = self.data.draw
        ours, theirs = draw(st.sampled_from(self.views))
        start, end = draw(BOUNDS), draw(BOUNDS)
        limit = draw(st.sampled_from([1, 2, 3, SCAN_MAX]))
        reverse = draw(st.booleans())
        await self.compare(ours, theirs, start, end, limit=limit, reverse=reverse)

    async def compare(self, ours: View, theirs: View, start: bytes, end: bytes, **how: Any) -> None:
        rows = await ours.scan(self.prefix + start, self.prefix + end, **how)
        expected = await theirs.scan(start, end, **how)
        found = [(self._shorn(row.key), row.value, row.version) for row in rows]
        assert found == [
            (self._translated(row), row.value, self.versions[row.version]) for row in expected
        ]

    async def compare_everything(self) -> None:
        self.look()
        for ours, theirs in self.views:
            await self.compare(ours, theirs, b"\0", b"\xff\xff", limit=SCAN_MAX, reverse=False)

    def _shorn(self, key: bytes) -> bytes:
        return key[len(self.prefix) :]

    def _translated(self, row: Row) -> bytes:
        """Return the key that the subject has for a row of the model: stamps carry versions."""
        if not row.key.startswith(b"s/"):
            return row.key
        return b"s/" + self.versions[row.version].to_bytes(8, "big") + b"x"


async def _both(ours: Awaitable[int], theirs: Awaitable[int]) -> tuple[int, int] | None:
    """Await two commits; both succeed or both conflict."""
    try:
        expected = await theirs
    except Conflict:
        with pytest.raises(Conflict):
            await ours
        return None
    return await ours, expected
