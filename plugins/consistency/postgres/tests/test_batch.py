"""Judging batches, without a server."""

from __future__ import annotations

from warp_core.errors import Conflict, InvalidArgument
from warp_core.interfaces.consistency import Commit, KeyCheck, Merge, RangeCheck, Stamp, Write
from warp_postgres.batch import Answer, answer, judge, questions

NOTHING = Answer(10, {}, {}, {}, frozenset())


def request(number: int) -> bytes:
    return number.to_bytes(16, "big")


def test_each_commit_gets_the_next_version() -> None:
    plan = judge([Commit(request_id=request(n)) for n in range(3)], NOTHING)

    assert plan.outcomes == [11, 12, 13]
    assert plan.version == 13
    assert plan.made == ([11, 12, 13], [request(0), request(1), request(2)])


def test_a_commit_sees_what_those_before_it_wrote() -> None:
    create = [
        Commit(checks=[KeyCheck(b"k", 0)], writes=[Write(b"k", b"%d" % n)], request_id=request(n))
        for n in range(2)
    ]

    plan = judge(create, NOTHING)

    assert plan.outcomes[0] == 11
    assert isinstance(plan.outcomes[1], Conflict)
    assert plan.put == ([b"k"], [11], [b"0"])


def test_a_range_that_a_commit_before_wrote_to_changed() -> None:
    plan = judge(
        [
            Commit(writes=[Write(b"b", b"v")], request_id=request(1)),
            Commit(checks=[RangeCheck(b"a", b"c", 10)], request_id=request(2)),
            Commit(checks=[RangeCheck(b"c", b"d", 10)], request_id=request(3)),
        ],
        NOTHING,
    )

    assert [type(outcome) for outcome in plan.outcomes] == [int, Conflict, int]
    assert plan.version == 12


def test_ranges_are_counted_over_the_whole_batch() -> None:
    commits = [
        Commit(
            checks=[RangeCheck(b"a", b"b", 5), KeyCheck(b"x", 0), RangeCheck(b"c", b"d", 5)],
            request_id=request(n),
        )
        for n in range(3)
    ]
    known = Answer(10, {}, {}, {}, frozenset({3}))  # the second range of the second commit

    assert [type(outcome) for outcome in judge(commits, known).outcomes] == [int, Conflict, int]
    assert questions(commits).starts == [b"a", b"c"] * 3
    assert questions(commits).checked == [b"x"]


def test_ranges_of_requests_that_were_applied_before_are_counted_too() -> None:
    commits = [Commit(checks=[RangeCheck(b"a", b"b", 5)], request_id=request(n)) for n in range(2)]
    known = Answer(10, {}, {}, {request(0): 7}, frozenset({0}))

    assert judge(commits, known).outcomes == [7, 11]


def test_a_row_changed_several_times_leaves_its_steps_in_the_past() -> None:
    plan = judge(
        [
            Commit(writes=[Write(b"k", value)], request_id=request(number))
            for number, value in enumerate((b"1", None, b"3"))
        ],
        NOTHING,
    )

    assert (plan.changed, plan.first) == ([b"k"], [11])
    assert plan.between == ([12, 13], [b"k", b"k"], [11, None], [b"1", None])
    assert plan.put == ([b"k"], [13], [b"3"])
    assert plan.gone == []


def test_merges_of_a_batch_add_up() -> None:
    commits = [Commit(merges=[Merge(b"n", add=(2,))], request_id=request(n)) for n in range(3)]
    known = Answer(10, {}, {b"n": (4, (5).to_bytes(8, "little"))}, {}, frozenset())

    assert judge(commits, known).put == ([b"n"], [13], [(11).to_bytes(8, "little")])
    assert questions(commits).merged == [b"n"]


def test_a_merge_that_does_not_fit_spoils_nothing_but_its_commit() -> None:
    plan = judge(
        [
            Commit(
                writes=[Write(b"a", b"")], merges=[Merge(b"n", add=(1,))], request_id=request(1)
            ),
            Commit(writes=[Write(b"b", b"")], request_id=request(2)),
        ],
        Answer(10, {}, {b"n": (4, b"text")}, {}, frozenset()),
    )

    assert isinstance(plan.outcomes[0], InvalidArgument)
    assert plan.outcomes[1] == 11
    assert plan.changed == [b"b"]


def test_stamps_carry_their_commits_versions() -> None:
    plan = judge(
        [
            Commit(
                stamps=[Stamp(b"s", b"x", b"v"), Stamp(b"t", b"", b"v", descending=True)],
                request_id=request(1),
            )
        ],
        NOTHING,
    )

    assert plan.changed == [
        b"s" + (11).to_bytes(8, "big") + b"x",
        b"t" + (2**64 - 12).to_bytes(8, "big"),
    ]


def test_a_request_that_was_applied_is_not_applied_again() -> None:
    commit = Commit(writes=[Write(b"k", b"v")], request_id=request(1))

    assert judge([commit], Answer(10, {}, {}, {request(1): 3}, frozenset())).outcomes == [3]
    assert judge([commit, commit], NOTHING).outcomes == [11, 11]
    assert judge([commit, commit], NOTHING).made == ([11], [request(1)])


def test_a_check_of_a_row_that_is_gone_fails_unless_it_expects_that() -> None:
    def outcome(seen: int, **versions: int) -> type:
        known = Answer(10, {k.encode(): v for k, v in versions.items()}, {}, {}, frozenset())
        commit = Commit(checks=[KeyCheck(b"k", seen)], request_id=request(1))
        return type(judge([commit], known).outcomes[0])

    assert outcome(0) is int
    assert outcome(3) is Conflict
    assert outcome(3, k=3) is int
    assert outcome(3, k=4) is Conflict
    assert outcome(0, k=4) is Conflict


def test_answers_are_sorted_by_kind() -> None:
    rows = [
        (0, b"", 9, b""),
        (1, b"a", 3, b""),
        (2, b"n", 4, b"v"),
        (3, b"r", 5, b""),
        (4, b"", 2, b""),
    ]

    assert answer(rows) == Answer(9, {b"a": 3}, {b"n": (4, b"v")}, {b"r": 5}, frozenset({1}))
