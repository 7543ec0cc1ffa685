"""Contents are compared without cost, and a difference is told in one line."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from warp_conformance import same

MIB = 1 << 20
LINE_MAX = 240  # what pytest shows of a value in an assertion


def test_a_difference_says_where_and_what() -> None:
    found = same(bytes(5000) + b"x", bytes(5001))

    assert not found
    assert repr(found) == r"<differ at 5000: got b'x' (of 5001 bytes), wanted b'\x00' (of 5001)>"


def test_a_difference_in_length_is_where_the_shorter_ends() -> None:
    assert repr(same(b"ab", b"abc")) == "<differ at 2: got b'' (of 2 bytes), wanted b'c' (of 3)>"


def test_buffers_are_compared_by_their_bytes() -> None:
    assert same(bytearray(b"abc"), b"abc")
    assert same(memoryview(b"xabc")[1:], bytearray(b"abc"))


@pytest.mark.parametrize("other", [None, 0, "abc", [b"abc"], (), object()])
def test_what_is_no_buffer_differs(other: object) -> None:
    assert not same(other, b"abc")
    assert not same(b"abc", other)


def test_a_difference_within_a_list_names_the_item() -> None:
    assert repr(same([b"a", bytes(3)], [b"a", b"\0\0x"])).startswith("<item 1: differ at 2: ")
    assert repr(same([b"a"], [b"a", b"b"])) == "<got 1 items, wanted 2>"
    assert not same([b"a"], (b"a",))


def test_a_difference_within_a_dictionary_names_the_key() -> None:
    assert repr(same({"k": b"a"}, {"k": b"b"})).startswith("<'k': differ at 0: ")
    assert repr(same({}, {"k": b"b"})) == "<'k' is missing>"
    assert repr(same({"k": b"b"}, {})) == "<'k' is too much>"


@given(st.lists(st.binary(max_size=40)), st.lists(st.binary(max_size=40)))
def test_it_answers_as_equality_does(one: list[bytes], two: list[bytes]) -> None:
    assert bool(same(one, two)) == (one == two)
    assert same(list(one), one)
    assert bool(same(b"".join(one), b"".join(two))) == (b"".join(one) == b"".join(two))


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_it_names_the_first_offset(one: bytes, two: bytes) -> None:
    if one != two:
        first = next(
            (at for at, (a, b) in enumerate(zip(one, two, strict=False)) if a != b),
            min(len(one), len(two)),
        )
        assert f"differ at {first}:" in repr(same(one, two))


def test_a_difference_of_any_content_fits_the_line_that_pytest_shows() -> None:
    one, two = bytes(MIB), b"\xff" * MIB

    assert len(repr(same([one] * 100, [one] * 99 + [two]))) <= LINE_MAX
    assert len(repr(same({"a name of a blob": one}, {"a name of a blob": two}))) <= LINE_MAX


# Explained by pytest ------------------------------------------------------------------------------

SUITE = """
    import random, time
    from warp_conformance import same

    def test_contents_agree():
        got = random.Random(1).randbytes({size})
        want = got[: {size} // 2] + random.Random(2).randbytes({size} // 2)
        begun = time.process_time()
        try:
            assert {comparison}
        finally:
            print("CPU", time.process_time() - begun)
    """


@pytest.mark.parametrize("verbosity", [[], ["-vv"]])
@pytest.mark.parametrize(
    "comparison", ["same(got, want)", "got == want", "{'k': [got]} == {'k': [want]}"]
)
def test_a_failing_comparison_of_a_mebibyte_is_told_at_once(
    tmp_path: Path, verbosity: list[str], comparison: str
) -> None:
    suite = tmp_path / "test_contents.py"
    suite.write_text(textwrap.dedent(SUITE.format(size=MIB, comparison=comparison)))
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *verbosity, str(suite)]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "CI": "1"},
        capture_output=True,
        text=True,
        timeout=50,
    )

    assert done.returncode == 1
    assert f"differ at {MIB // 2}: got {random.Random(1).randbytes(MIB)[MIB // 2 :][:16]!r}" in (
        done.stdout
    )
    assert float(done.stdout.partition("\nCPU ")[2].split()[0]) < 0.5
