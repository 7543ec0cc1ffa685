"""Judging and batching, without etcd."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from warp_core.errors import Conflict, InvalidArgument
from warp_core.interfaces.consistency import Commit, KeyCheck, Merge, RangeCheck, Stamp, Write
from warp_etcd.batch import Pending, Plan, Room, plan
from warp_etcd.layout import (
    Entry,
    Noted,
    pack_entry,
    pack_row,
    unpack_entry,
    unpack_row,
)
from warp_etcd.past import Past, Verdict

ROOM = Room(100, 1 << 20)
IDS = itertools.count()


def pending(commit: Commit) -> Pending:
    loop = asyncio.get_running_loop()
    request = commit.request_id or next(IDS).to_bytes(16, "big")
    return Pending(commit, request, 100, 0, 1e9, loop.create_future())


def planned(past: Past, commits: Sequence[Commit], room: Room = ROOM) -> tuple[Plan, list[Pending]]:
    waiting = [pending(commit) for commit in commits]
    return plan(past, waiting, room), waiting


def noted(version: int, *written: bytes, deleted: tuple[bytes, ...] = ()) -> Noted:
    return Noted(version, version.to_bytes(16, "little"), written, deleted)


def past_of(*batches: tuple[Noted, ...]) -> Past:
    past = Past()
    for batch in batches:
        assert past.learn(Entry(1, past.version, batch), past.version + 100, 0.0)
    return past


async def test_versions_of_a_batch_follow_one_another() -> None:
    past = past_of((noted(1, b"a"), noted(2, b"b")))
    made, _ = planned(past, [Commit(writes=[Write(b"%d" % i, b"v")]) for i in range(3)])

    assert [version for _, version in made.members] == [3, 4, 5]
    assert made.rows == {b"0": (3, b"v"), b"1": (4, b"v"), b"2": (5, b"v")}


async def test_a_row_that_is_set_twice_ends_the_batch() -> None:
    made, _ = planned(Past(), [Commit(writes=[Write(b"k", b"%d" % i)]) for i in range(2)])

    assert made.rows == {b"k": (1, b"0")}
    assert len(made.members) == 1


async def test_counters_of_several_commits_are_written_once() -> None:
    past = Past()
    past.saw_counter(b"n", None, 0)
    made, _ = planned(past, [Commit(merges=[Merge(b"n", add=(i,))]) for i in (1, 2, 3)])

    assert made.rows == {b"n": (3, (6).to_bytes(8, "little"))}
    assert [version for _, version in made.members] == [1, 2, 3]


async def test_a_counter_that_is_not_known_is_read_first() -> None:
    made, _ = planned(Past(), [Commit(merges=[Merge(b"n", add=(1,))]), Commit()])

    assert made.wanted == {b"n": True}
    assert len(made.members) == 1


async def test_a_commit_that_depends_on_one_before_it_waits_for_the_next_batch() -> None:
    first = Commit(writes=[Write(b"k", b"v")])
    past = Past()
    past.saw(b"k", 0, 0)
    for check in (KeyCheck(b"k", 0), RangeCheck(b"a", b"z", 0)):
        made, _ = planned(past, [first, Commit(checks=[check])])

        assert len(made.members) == 1
        assert not made.refused
        assert not made.doubted


async def test_a_change_behind_the_version_of_a_check_refuses_for_good() -> None:
    past = past_of((noted(1, b"k"),), (noted(2, b"k"),))
    made, waiting = planned(
        past,
        [Commit(checks=[KeyCheck(b"k", 1)]), Commit(checks=[RangeCheck(b"a", b"z", 1)])],
    )

    assert [each for each, _ in made.refused] == waiting
    assert all(isinstance(error, Conflict) for _, error in made.refused)


async def test_a_row_that_is_there_is_only_doubted_to_be_absent() -> None:
    made, _ = planned(past_of((noted(1, b"k"),)), [Commit(checks=[KeyCheck(b"k", 0)])])

    assert len(made.doubted) == 1


async def test_a_merge_that_does_not_fit_is_refused_alone() -> None:
    past = Past()
    past.saw_counter(b"n", b"text", 0)
    made, _ = planned(past, [Commit(merges=[Merge(b"n", add=(1,))]), Commit()])

    assert isinstance(made.doubted[0][1], InvalidArgument)
    assert len(made.members) == 1


async def test_a_request_that_was_applied_is_known() -> None:
    past = past_of((noted(1, b"k"),))
    made, _ = planned(past, [Commit(request_id=(1).to_bytes(16, "little"))])

    assert [version for _, version in made.known] == [1]
    assert not made.commits


async def test_stamps_carry_the_version_of_their_commit() -> None:
    made, _ = planned(
        past_of((noted(6, b"k"),)), [Commit(), Commit(stamps=[Stamp(b"s", b"e", b"v")])]
    )

    assert made.rows == {b"s" + (8).to_bytes(8, "big") + b"e": (8, b"v")}


async def test_a_batch_takes_what_fits() -> None:
    commits = [Commit(writes=[Write(b"%d" % i, b"v")]) for i in range(9)]

    assert len(planned(Past(), commits, Room(4, 1 << 20))[0].members) == 4
    assert len(planned(Past(), commits, Room(100, 250))[0].members) == 2
    assert len(planned(Past(), commits, Room(0, 0))[0].members) == 1


def test_a_hole_in_the_log_is_seen() -> None:
    past = past_of((noted(1, b"a"),))

    assert not past.learn(Entry(1, 5, (noted(6, b"b"),)), 1, 0.0)
    assert past.version == 1


def test_what_is_older_than_the_log_cannot_be_judged() -> None:
    past = past_of(*((noted(version, b"k"),) for version in range(1, 10)))
    assert past.judge(RangeCheck(b"x", b"z", 1)) is Verdict.HOLDS
    past.forget(past.cut(1.0, 100, 5))

    assert past.since == 9
    assert past.judge(RangeCheck(b"x", b"z", 1)) is Verdict.FAILS
    assert past.judge(KeyCheck(b"k", 9)) is Verdict.HOLDS
    assert past.judge(KeyCheck(b"k", 8)) is Verdict.FAILS
    assert past.judge(KeyCheck(b"other", 8)) is Verdict.UNKNOWN


def test_the_log_is_cut_by_age_and_by_count() -> None:
    past = Past()
    for version in range(1, 11):
        past.learn(Entry(1, version - 1, (noted(version),)), 1, float(version))

    assert past.cut(4.0, 100, 1) == 3
    assert past.cut(4.0, 100, 4) == 0
    assert past.cut(0.0, 2, 1) == 8


class Model:
    """Every version of every row."""

    def __init__(self) -> None:
        self.changes: list[tuple[int, bytes, bool]] = []

    def row(self, key: bytes) -> int:
        """Return the row's version, 0 if it is absent."""
        for version, changed, there in reversed(self.changes):
            if changed == key:
                return version if there else 0
        return 0

    def holds(self, check: KeyCheck | RangeCheck) -> bool:
        if isinstance(check, RangeCheck):
            return not any(
                check.start <= key < check.end and version > check.version
                for version, key, _ in self.changes
            )
        if check.version == 0:
            return self.row(check.key) == 0
        return not any(
            key == check.key and version > check.version for version, key, _ in self.changes
        )


KEYS = st.sampled_from([b"a", b"b", b"c"])


@given(data=st.data())
def test_judging_agrees_with_a_plain_model(data: st.DataObject) -> None:
    past, model = Past(), Model()
    versions = [0]  # of views
    rows: dict[bytes, set[int]] = {}  # versions that views showed of rows
    for _ in range(data.draw(st.integers(1, 25))):
        action = data.draw(st.sampled_from(["own", "other", "read", "cut"]))
        if action in ("own", "other"):
            written = tuple(data.draw(st.lists(KEYS, unique=True, max_size=2)))
            deleted = tuple(
                key
                for key in data.draw(st.lists(KEYS, unique=True, max_size=1))
                if key not in written
            )
            commits = (noted(past.version + 1, *written, deleted=deleted),)
            model.changes += [(past.version + 1, key, True) for key in written]
            model.changes += [(past.version + 1, key, False) for key in deleted]
            if action == "own":
                past.applied(commits, 1, 0.0, {})
            else:
                past.learn(Entry(1, past.version, commits), 1, 0.0)
        elif action == "read":
            key = data.draw(KEYS)
            past.saw(key, model.row(key), past.version)
            rows.setdefault(key, set()).add(model.row(key))
            versions.append(past.version)
        else:
            past.forget(past.cut(1.0, 100, 1) if data.draw(st.booleans()) else 0)
        for key, shown in rows.items():
            for version in shown:
                check = KeyCheck(key, version)
                verdict = past.judge(check)
                if verdict is Verdict.HOLDS:
                    assert model.holds(check)
                elif verdict is not Verdict.UNKNOWN:
                    assert not model.holds(check)
        for version in versions:
            found = RangeCheck(b"a", data.draw(st.sampled_from([b"b", b"c", b"d"])), version)
            if past.judge(found) is Verdict.HOLDS:
                assert model.holds(found)
            elif version >= past.since:
                assert not model.holds(found)


@given(version=st.integers(0, 2**63), value=st.binary(max_size=50))
def test_rows_are_unpacked_as_they_were_packed(version: int, value: bytes) -> None:
    assert unpack_row(pack_row(version, value)) == (value, version)


def test_log_entries_are_unpacked_as_they_were_packed() -> None:
    commits = (noted(4, b"a", b"b"), noted(5, deleted=(b"\xff",)))

    assert unpack_entry(pack_entry(3, commits)) == Entry(1, 3, commits)


def test_a_newer_or_foreign_entry_is_refused() -> None:
    from warp_core.errors import Corrupt, NewerFormat

    with pytest.raises(NewerFormat):
        unpack_entry(b"\x93\x02\x00\x90")
    with pytest.raises(Corrupt):
        unpack_entry(b"hello")
    with pytest.raises(Corrupt):
        unpack_row(b"short")
