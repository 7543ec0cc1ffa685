"""Order and inverses of row keys."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st
from warp_core.interfaces.consistency import KEY_MAX
from warp_core.namespace import keys

PIECES = st.sampled_from(
    [
        b"a",
        b"b",
        b"/",
        b"//",
        b"\0",
        b"\0\0",
        b"\1",
        b"\xff",
        b"-",
        b"0",
        b".",
        b"a" * 199,
        b"a" * 200,
        b"\0" * 200,
        b"b" * 401,
    ]
)
S3_KEYS = st.one_of(st.binary(max_size=12), st.lists(PIECES, max_size=6).map(b"".join)).map(
    lambda key: key[:1024]
)


def walk_position(key: bytes) -> tuple[bytes, ...]:
    """Return what decides a key's place in a depth-first walk: the component keys on its way, compared one level after another."""
    return tuple(step.key for step in keys.steps(key))


@given(S3_KEYS, S3_KEYS)
@example(b"a", b"a\0")
@example(b"a-b", b"a/")
@example(b"a" * 200, b"a" * 199 + b"/")
@example(b"a" * 200 + b"/x", b"a" * 200 + b"-")
def test_a_depth_first_walk_is_the_order_of_s3_keys(one: bytes, other: bytes) -> None:
    assert (walk_position(one) < walk_position(other)) == (one < other)
    assert (walk_position(one) == walk_position(other)) == (one == other)


@given(S3_KEYS)
def test_steps_rebuild_their_key(key: bytes) -> None:
    path = keys.steps(key)

    assert b"".join(step.raw for step in path) == key
    assert b"".join(keys.raw_of(step.key) for step in path) == key


@given(
    st.lists(
        st.binary(max_size=1024).map(lambda key: key.replace(b"/", b"")), min_size=1, max_size=3
    )
)
def test_no_key_is_longer_than_engines_take(names: list[bytes]) -> None:
    for step in keys.steps(b"/".join(names)):
        version = keys.version_key(2**64 - 1, step.key, 7)
        for key in (
            keys.archive_key(version, 2**63),
            keys.dead_key(9, version, 2**63),
            keys.upload_key(names[0], 2**63),
        ):
            assert keys.PREFIX_BYTES + len(key) <= KEY_MAX


@given(st.binary(max_size=300))
def test_escaping_has_an_inverse(raw: bytes) -> None:
    assert keys.unescape(keys.escape(raw)) == raw


@given(S3_KEYS, st.binary(max_size=9))
def test_the_end_of_a_component_is_found_before_any_tail(key: bytes, tail: bytes) -> None:
    for step in keys.steps(key):
        assert keys.end_of_component(b"V" * 9 + step.key + tail, 9) == 9 + len(step.key)


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_greater_sequences_sort_first(one: int, other: int) -> None:
    assert keys.from_descending(keys.descending(one)) == one
    assert (keys.descending(one) < keys.descending(other)) == (one > other)


@given(st.binary(min_size=1, max_size=8), st.binary(max_size=4))
def test_after_is_above_everything_that_begins_so(start: bytes, tail: bytes) -> None:
    end = keys.after(start)

    assert not end or start + tail < end
    assert not end or not end.startswith(start)


def test_archive_and_dead_list_keys_name_their_row() -> None:
    key = keys.name_key(7, b"x\0\0")

    assert keys.archive_parts(keys.archive_key(key, 3)) == (key, 3)
    assert keys.dead_parts(keys.dead_key(2, key, 3)) == (key, 3)


def test_worked_example_of_order() -> None:
    rows = [
        [step.key for step in keys.steps(key)]
        for key in sorted(
            [b"a", b"a\0", b"a-b", b"a/", b"a/\0", b"a/!", b"a//b", b"a0", "aé".encode()]
        )
    ]

    assert rows == [
        [b"a\0\0"],
        [b"a\0\xff\0\0"],
        [b"a-b\0\0"],
        [b"a/\0\0", b"\0\0"],
        [b"a/\0\0", b"\0\xff\0\0"],
        [b"a/\0\0", b"!\0\0"],
        [b"a/\0\0", b"/\0\0", b"b\0\0"],
        [b"a0\0\0"],
        ["aé".encode() + b"\0\0"],
    ]
