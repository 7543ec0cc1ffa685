from __future__ import annotations

from pathlib import Path

import pytest
from warp_integration.powercut import Cut, Replay, Trace, choose_cuts
from warp_integration.powercut.cut import BLOCK, SECTOR, copy_sparse
from warp_integration.powercut.trace import TraceWriter

SIZE = 16 * BLOCK


@pytest.fixture
def bases(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "base-a", tmp_path / "base-b"]
    for path in paths:
        path.write_bytes(bytes(SIZE))
    return paths


@pytest.fixture
def writer(tmp_path: Path) -> TraceWriter:
    return TraceWriter(tmp_path / "trace")


def write(writer: TraceWriter, block: int, letter: bytes, *, disk: int = 0, count: int = 1) -> None:
    writer.write(disk, block * BLOCK, memoryview(letter * BLOCK * count))


def after(tmp_path: Path, bases: list[Path], *cuts: Cut) -> list[list[bytes]]:
    replay = Replay(Trace(tmp_path / "trace"), bases, tmp_path / "replay")
    return [[image.read_bytes() for image in images] for _, images in replay.images(cuts)]


def letters(image: bytes) -> bytes:
    return bytes(image[at] for at in range(0, len(image), BLOCK))


def test_what_was_flushed_survives_and_what_was_not_may_be_lost(
    tmp_path: Path, bases: list[Path], writer: TraceWriter
) -> None:
    write(writer, 1, b"a")
    writer.flush(0)
    write(writer, 2, b"b")
    writer.close()

    (image, _), (kept, _) = after(tmp_path, bases, Cut(3, 1, 0.0), Cut(3, 2, 1.0))

    assert letters(image)[:3] == b"\0a\0"
    assert letters(kept)[:3] == b"\0ab"


def test_a_flush_counts_for_its_disk_alone(
    tmp_path: Path, bases: list[Path], writer: TraceWriter
) -> None:
    write(writer, 1, b"a", disk=0)
    write(writer, 1, b"a", disk=1)
    writer.flush(1)
    writer.close()

    ((first, second),) = after(tmp_path, bases, Cut(3, 1, 0.0))

    assert (letters(first)[1:2], letters(second)[1:2]) == (b"\0", b"a")


def test_blocks_survive_independently(
    tmp_path: Path, bases: list[Path], writer: TraceWriter
) -> None:
    write(writer, 0, b"a", count=16)
    writer.close()

    images = after(tmp_path, bases, *(Cut(1, seed) for seed in range(50)))

    patterns = {letters(image) for image, _ in images}
    assert len(patterns) == 50
    assert all(set(pattern) <= set(b"\0a") for pattern in patterns)


def test_later_writes_of_a_block_do_not_go_under_earlier_ones(
    tmp_path: Path, bases: list[Path], writer: TraceWriter
) -> None:
    write(writer, 1, b"a")
    writer.write(0, BLOCK, memoryview(b"b" * SECTOR))
    writer.close()

    images = after(tmp_path, bases, *(Cut(2, seed) for seed in range(50)))

    blocks = {image[BLOCK : 2 * BLOCK] for image, _ in images}
    assert blocks == {
        bytes(BLOCK),
        b"a" * BLOCK,
        b"b" * SECTOR + b"a" * (BLOCK - SECTOR),
    }


def test_torn_blocks_mix_whole_sectors(
    tmp_path: Path, bases: list[Path], writer: TraceWriter
) -> None:
    write(writer, 0, b"a", count=2)
    writer.close()

    images = after(tmp_path, bases, *(Cut(1, seed, 1.0, torn=1.0) for seed in range(20)))

    for image, _ in images:
        assert image[:BLOCK] == b"a" * BLOCK
        sectors = [image[at : at + SECTOR] for at in range(BLOCK, 2 * BLOCK, SECTOR)]
        assert {bytes(s) for s in sectors} <= {bytes(SECTOR), b"a" * SECTOR}
    assert len({image for image, _ in images}) > 10


def test_a_cut_depends_on_nothing_but_its_numbers(
    tmp_path: Path, bases: list[Path], writer: TraceWriter
) -> None:
    for number in range(30):
        write(writer, number % 16, bytes([65 + number]))
        if number % 7 == 0:
            writer.flush(0)
    writer.close()
    cuts = [Cut(position, position * 7) for position in (5, 17, 30)]

    together = after(tmp_path, bases, *cuts)
    alone = [after(tmp_path, bases, cut)[0] for cut in cuts]

    assert together == alone


def test_a_torn_end_of_the_trace_is_left_out(tmp_path: Path, writer: TraceWriter) -> None:
    write(writer, 1, b"a")
    write(writer, 2, b"b")
    writer.close()
    path = tmp_path / "trace"
    path.write_bytes(path.read_bytes()[:-1])

    assert [record.offset for record in Trace(path)] == [BLOCK]


def test_another_file_is_no_trace(tmp_path: Path) -> None:
    path = tmp_path / "other"
    path.write_bytes(b"something else")

    with pytest.raises(ValueError, match="not a trace"):
        Trace(path)


def test_a_cut_past_the_end_is_refused(
    tmp_path: Path, bases: list[Path], writer: TraceWriter
) -> None:
    writer.close()

    with pytest.raises(ValueError, match="trace ends at 0"):
        after(tmp_path, bases, Cut(1, 1))


def test_cuts_are_chosen_by_seed_within_bounds() -> None:
    acks, flushes = [12, 15, 99], [13, 14]
    cuts = choose_cuts(first=10, last=20, count=30, seed=1, acks=acks, flushes=flushes)

    assert cuts == choose_cuts(first=10, last=20, count=30, seed=1, acks=acks, flushes=flushes)
    assert cuts != choose_cuts(first=10, last=20, count=30, seed=2, acks=acks, flushes=flushes)
    assert cuts == sorted(cuts)
    positions = [cut.position for cut in cuts]
    assert set(positions) <= set(range(10, 21))
    assert sum(p in (12, 15) for p in positions) >= 10
    assert sum(p in (13, 14) for p in positions) >= 10


def test_holes_are_copied_as_holes(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    with source.open("wb") as file:
        file.truncate(64 << 20)
        file.seek(32 << 20)
        file.write(b"x" * BLOCK)

    copy_sparse(source, target)

    assert target.read_bytes() == source.read_bytes()
    assert target.stat().st_blocks * 512 < 1 << 20
