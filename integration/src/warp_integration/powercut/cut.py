"""Cuts: which writes a power failure leaves, decided by a position and a seed.

The model: when power fails after record number `position`, everything written to a disk before its last completed
flush is there. Of every 4 KiB block written since, any number of its writes arrived, from none to all, independent
of every other block: caches reorder freely, but two writes of one block do not overtake each other.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from warp_integration.powercut.trace import Kind, Trace

BLOCK = 4096  # what disks write atomically today, and what journals rely on
SECTOR = 512

# Shares of unflushed blocks that survive. Half is the broadest; the extremes find what half hides:
# none, the program that never flushed; nearly all, the one write whose loss nobody expected.
SURVIVAL = (0.5, 0.5, 0.0, 0.05, 0.95, 1.0)


@dataclass(frozen=True, slots=True, order=True)
class Cut:
    """One power failure.

    `survival` is the chance of an unflushed block to have received a write; `torn` the chance that a surviving write is
    torn into 512-byte sectors.
    """

    position: int
    seed: int
    survival: float = 0.5
    torn: float = 0.0


def choose_cuts(
    *,
    first: int,
    last: int,
    count: int,
    seed: int,
    acks: Sequence[int] = (),
    flushes: Sequence[int] = (),
) -> list[Cut]:
    """Choose `count` cuts with positions from `first` to `last`, in order of position.

    They take turns: on an acknowledgement, where one that came too early shows; just before a flush completes, when most
    is at stake; and anywhere.
    """
    if not first <= last:
        raise ValueError(f"nothing was recorded: positions {first} to {last}")
    rng = random.Random(seed)
    inside = range(first, last + 1)
    places = [[p for p in positions if p in inside] or inside for positions in (acks, flushes)]
    turns = (*places, inside)
    cuts = []
    for number in range(count):
        position = rng.choice(turns[number % len(turns)])
        survival = rng.choice(SURVIVAL)
        cuts.append(Cut(position, rng.getrandbits(32), survival))
    return sorted(cuts)


@dataclass(frozen=True, slots=True)
class _Piece:
    """A write, or the part of it that falls into one block."""

    offset: int
    data: memoryview


class _Disk:
    """The durable image of one disk and what was written since its last flush."""

    def __init__(self, base: Path, durable: Path) -> None:
        copy_sparse(base, durable)
        self.path = durable
        self._file = os.open(durable, os.O_RDWR | os.O_CLOEXEC)
        self._unflushed: dict[int, list[_Piece]] = {}

    def write(self, offset: int, data: memoryview) -> None:
        """Note a write, block by block."""
        done = 0
        while done < len(data):
            at = offset + done
            part = min(BLOCK - at % BLOCK, len(data) - done)
            piece = _Piece(at, data[done : done + part])
            self._unflushed.setdefault(at // BLOCK, []).append(piece)
            done += part

    def flush(self) -> None:
        """Make every noted write durable."""
        for pieces in self._unflushed.values():
            for piece in pieces:
                os.pwrite(self._file, piece.data, piece.offset)
        self._unflushed.clear()

    def fail(self, target: Path, cut: Cut, rng: random.Random) -> None:
        """Write to `target` what `cut` leaves of this disk."""
        copy_sparse(self.path, target)
        file = os.open(target, os.O_RDWR | os.O_CLOEXEC)
        try:
            for block, pieces in sorted(self._unflushed.items()):
                if rng.random() >= cut.survival:
                    continue
                kept = len(pieces) if cut.survival >= 1 else rng.randint(1, len(pieces))
                for piece in pieces[: kept - 1]:
                    os.pwrite(file, piece.data, piece.offset)
                # Block 0 holds superblocks of 1 KiB, which no journal can repair: never torn.
                tear = block != 0 and rng.random() < cut.torn
                _write(file, pieces[kept - 1], rng if tear else None)
        finally:
            os.close(file)

    def close(self) -> None:
        os.close(self._file)
        self._unflushed.clear()


def _write(file: int, piece: _Piece, tear: random.Random | None) -> None:
    """Write a piece, or, to tear it, a random choice of its sectors."""
    if tear is None:
        os.pwrite(file, piece.data, piece.offset)
        return
    for start in range(0, len(piece.data), SECTOR):
        if tear.random() < 0.5:
            os.pwrite(file, piece.data[start : start + SECTOR], piece.offset + start)


class Replay:
    """Walk a trace once and build the disks of many cuts on the way."""

    def __init__(self, trace: Trace, bases: Sequence[Path], directory: Path) -> None:
        self._trace = trace
        self._bases = bases
        self._directory = directory

    def flushes(self) -> list[int]:
        """Return the positions just before each flush completes."""
        return [n for n, record in enumerate(self._trace) if record.kind is Kind.FLUSH]

    def images(self, cuts: Sequence[Cut]) -> Iterator[tuple[Cut, tuple[Path, ...]]]:
        """Yield each cut, in order of position, with one image per disk.

        The images are files in `directory`, the consumer's to change, and overwritten by the next cut.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        disks = [
            _Disk(base, self._directory / f"durable-{number}")
            for number, base in enumerate(self._bases)
        ]
        targets = tuple(self._directory / f"cut-{number}" for number in range(len(disks)))
        records = iter(self._trace)
        position = 0
        try:
            for cut in sorted(cuts):
                while position < cut.position:
                    record = next(records, None)
                    if record is None:
                        raise ValueError(f"cut at {cut.position}, but the trace ends at {position}")
                    position += 1
                    if record.kind is Kind.FLUSH:
                        disks[record.disk].flush()
                    else:
                        disks[record.disk].write(record.offset, record.data)
                rng = random.Random(cut.seed)
                for disk, target in zip(disks, targets, strict=True):
                    disk.fail(target, cut, rng)
                yield cut, targets
        finally:
            for disk in disks:
                disk.close()
                disk.path.unlink(missing_ok=True)
            for target in targets:
                target.unlink(missing_ok=True)


def copy_sparse(source: Path, target: Path) -> None:
    """Copy a file, its holes as holes; `target` is replaced, not overwritten.

    Replaced, because a loop device may still be letting go of the old one.
    """
    target.unlink(missing_ok=True)
    with source.open("rb") as read, target.open("xb") as write:
        size = os.fstat(read.fileno()).st_size
        write.truncate(size)
        at = 0
        while at < size:
            try:
                at = os.lseek(read.fileno(), at, os.SEEK_DATA)
            except OSError:  # ENXIO: only holes from here on
                return
            end = os.lseek(read.fileno(), at, os.SEEK_HOLE)
            while at < end:
                at += os.copy_file_range(read.fileno(), write.fileno(), end - at, at, at)
