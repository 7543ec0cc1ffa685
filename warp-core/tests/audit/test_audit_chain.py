"""The chain of the audit log: whatever is done to the files afterwards is found, at its place."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from warp_conformance.reference.consistency import Plain
from warp_core.audit.anchor import Anchor, read_anchor
from warp_core.audit.entries import NO_HASH, open_line, seal, told
from warp_core.audit.files import Head, log_files
from warp_core.audit.log import AuditLog
from warp_core.audit.reading import verify
from warp_core.errors import Corrupt
from warp_core.interfaces.audit import Caller

ADA = Caller("account:ada", "s3", "10.0.0.7")
CHANGES = 6
LINES = 2 * CHANGES


async def _written(folder: Path) -> tuple[dict[str, bytes], Anchor]:
    store = Plain()
    async with store:
        async with AuditLog(folder, store, node="a", identity="id", file_size=1500) as log:
            for number in range(CHANGES):
                async with log.change(ADA, "volume.create", {"name": f"photos-{number}"}):
                    pass
        anchor = await read_anchor(store, "id")
    assert anchor is not None
    return {file.path.name: file.path.read_bytes() for file in log_files(folder)}, anchor


@pytest.fixture(scope="module")
def written() -> tuple[dict[str, bytes], Anchor]:
    with TemporaryDirectory() as folder:
        return asyncio.run(_written(Path(folder) / "audit"))


def judged(files: dict[str, bytes], anchor: Anchor | None, **further: Head) -> object:
    with TemporaryDirectory() as name:
        folder = Path(name)
        for each, content in files.items():
            (folder / each).write_bytes(content)
        return verify(folder, anchor, **further)


def lines_in(files: dict[str, bytes]) -> Iterator[bytes]:
    for name in sorted(files):
        yield from files[name].splitlines(keepends=True)


def test_what_was_written_is_whole(written: tuple[dict[str, bytes], Anchor]) -> None:
    files, anchor = written
    found = judged(files, anchor)

    assert len(files) > 2
    assert found.broken is None
    assert (found.lines, found.first, found.head) == (LINES, 1, anchor.head)


@given(data=st.data())
@settings(max_examples=80, deadline=None)
def test_one_flipped_bit_is_found_at_its_line(
    written: tuple[dict[str, bytes], Anchor], data: st.DataObject
) -> None:
    files, anchor = written
    name = data.draw(st.sampled_from(sorted(files)))
    content = bytearray(files[name])
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= 1 << data.draw(st.integers(0, 7))
    place = bytes(files[name][:at]).count(b"\n")
    seq = int(name[:20]) + place

    found = judged({**files, name: bytes(content)}, anchor)

    assert found.broken is not None
    assert found.broken.seq == seq
    assert (found.broken.file, found.broken.line) == (name, place + 1)
    assert found.lines == seq - 1


@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_removed_moved_and_repeated_lines_are_found(
    written: tuple[dict[str, bytes], Anchor], data: st.DataObject
) -> None:
    files, anchor = written
    lines = list(lines_in(files))
    shape = [len(content.splitlines()) for _, content in sorted(files.items())]
    what = data.draw(st.sampled_from(["remove", "swap", "repeat", "cut"]))
    at = data.draw(st.integers(0, len(lines) - 1))
    if what == "remove":
        lines[at] = b""
    elif what == "swap":
        other = data.draw(st.integers(0, len(lines) - 1).filter(lambda n: n != at))
        lines[at], lines[other] = lines[other], lines[at]
        at = min(at, other)
    elif what == "repeat":
        lines[at] *= 2
        at += 1
    else:
        lines[at:] = [b""] * (len(lines) - at)
    changed, rest = {}, iter(lines)
    for name, count in zip(sorted(files), shape, strict=True):
        changed[name] = b"".join(next(rest) for _ in range(count))

    found = judged(changed, anchor)

    assert found.broken is not None
    assert found.broken.seq == at + 1


@given(cut=st.integers(1, 10_000))
@settings(max_examples=30, deadline=None)
def test_a_log_that_is_cut_off_anywhere_is_found(
    written: tuple[dict[str, bytes], Anchor], cut: int
) -> None:
    files, anchor = written
    left = dict(files)
    cut = min(cut, sum(map(len, files.values())))
    for name in sorted(files, reverse=True):
        taken = min(cut, len(left[name]))
        left[name], cut = left[name][: len(left[name]) - taken], cut - taken
        if not left[name] and not cut:
            break

    assert judged(left, anchor).broken is not None
    kept = {name: content for name, content in left.items() if content}
    assert judged(kept, anchor).broken is not None


def test_removed_files_are_found(written: tuple[dict[str, bytes], Anchor]) -> None:
    files, anchor = written
    for name in files:
        found = judged({each: files[each] for each in files if each != name}, anchor)

        assert found.broken is not None
        assert found.broken.seq == int(name[:20])
    assert judged({}, anchor).broken is not None


def test_a_chain_made_anew_is_not_the_one_that_is_anchored(
    written: tuple[dict[str, bytes], Anchor],
) -> None:
    files, anchor = written
    forged, previous = dict[str, bytes](), NO_HASH
    for name in sorted(files):
        content = b""
        for line in files[name].splitlines():
            entry, _ = open_line(line)
            entry = msgspec.structs.replace(entry, by="account:eve", prev=previous)
            sealed, previous = seal(entry)
            content += sealed
        forged[name] = content

    assert judged(forged, None).broken is None
    found = judged(forged, anchor)
    assert found.broken is not None
    assert "metadata" in found.broken.reason


def test_a_head_that_was_noted_proves_that_nothing_before_it_changed(
    written: tuple[dict[str, bytes], Anchor],
) -> None:
    files, anchor = written
    _, hash = open_line(list(lines_in(files))[4].rstrip())

    assert judged(files, anchor, expected=Head(5, hash)).broken is None
    assert judged(files, anchor, expected=Head(5, "0" * 64)).broken.seq == 5
    assert judged(files, anchor, expected=Head(LINES + 3, hash)).broken.seq == LINES + 1


def test_a_line_can_be_checked_with_common_tools(
    written: tuple[dict[str, bytes], Anchor],
) -> None:
    for line in lines_in(written[0]):
        before, _, rest = line.partition(b',"hash":"')

        assert sha256(before).hexdigest().encode() == rest[:64]


@given(st.binary(max_size=300))
def test_what_is_no_line_is_refused(junk: bytes) -> None:
    with pytest.raises(Corrupt):
        open_line(junk)
    body = b'{"v":1,"seq":' + junk.replace(b"\n", b"")
    with pytest.raises(Corrupt):
        open_line(b'%b,"hash":"%b"}' % (body, sha256(body).hexdigest().encode()))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=1200),
    lambda inner: st.lists(inner, max_size=80) | st.dictionaries(st.text(max_size=20), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=20), JSON, max_size=8))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_a_line_tells_is_short_and_hides_secrets(of: dict[str, object]) -> None:
    of = {**of, "secret": "hunter2hunter2", "settings": {"API_TOKEN": "hunter2hunter2"}}
    short = told(of)

    assert "hunter2hunter2" not in repr(short)
    assert len(repr(short)) < 500_000
    if "secret" in short:
        assert short["secret"] == "***"


def test_what_is_long_is_cut() -> None:
    short = told({"a": "x" * 5000, "b": list(range(500)), "c": {"d": {"e": {"f": {"g": 1}}}}})

    assert short["a"] == "x" * 1024 + "... (5000 characters)"
    assert len(short["b"]) == 64
    assert short["c"] == {"d": {"e": {"f": "{...}"}}}
