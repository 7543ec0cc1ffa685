"""Random reads and changes of one file, held against an image of it in memory: what file system exercisers do since 1991.

Every way to read and write takes part: calls, memory maps, holes, ranges that are taken out or put in, copies within the file. With
several paths to one file, through several mounts, each operation takes any of them.
"""

from __future__ import annotations

import argparse
import errno
import mmap
import os
import random
from collections import deque
from collections.abc import Callable, Sequence
from ctypes import CDLL, c_long, get_errno
from pathlib import Path
from typing import Final

SIZE_MAX: Final = 256 * 1024
LENGTH_MAX: Final = 64 * 1024
BLOCK: Final = 4096  # what is taken out or put in are whole ones
SHOWN: Final = 40  # operations before a failure that are told

KEEP, PUNCH, COLLAPSE, ZERO, INSERT = 1, 2, 8, 0x10, 0x20  # FALLOC_FL_…
_libc = CDLL(None, use_errno=True)


class Differs(Exception):
    """The file is not what it should be; says after which operations."""


class Exerciser:
    """One file, open once for each path to it, and what it should hold."""

    def __init__(
        self,
        paths: Sequence[Path],
        seed: int,
        *,
        maps: bool = True,
        size_max: int = SIZE_MAX,
        length_max: int = LENGTH_MAX,
    ) -> None:
        """Make the file."""
        self._chance = random.Random(seed)
        self._seed = seed
        self._paths = paths
        self._size_max = size_max
        self._length_max = length_max
        self._done: deque[str] = deque(maxlen=SHOWN)
        self._image = bytearray()
        flags = os.O_RDWR | os.O_CREAT
        self._files = [os.open(paths[0], flags | os.O_TRUNC, 0o644)]
        self._files += [os.open(path, flags) for path in paths[1:]]
        self.counts: dict[str, int] = {}
        self._operations: list[tuple[int, Callable[[int], str]]] = [
            (8, self._read),
            (8, self._write),
            (2, self._append),
            (3, self._truncate),
            (2, self._allocate),
            (3, self._punch),
            (2, self._zero),
            (1, self._collapse),
            (1, self._insert),
            (3, self._copy),
            (1, self._reopen),
            (1, self._sync),
            (1, self._size),
        ]
        if maps:
            self._operations += [(5, self._map_read), (5, self._map_write)]

    def run(self, operations: int) -> None:
        """Make so many operations.

        Raises:
            Differs
        """
        weights = [weight for weight, _ in self._operations]
        calls = [call for _, call in self._operations]
        for number in range(operations):
            call = self._chance.choices(calls, weights)[0]
            which = self._chance.randrange(len(self._files))
            name = call.__name__[1:]
            try:
                told = call(which)
            except OSError as error:
                if error.errno != errno.EOPNOTSUPP or call not in (self._collapse, self._insert):
                    raise
                told = "is not offered"
            self.counts[name] = self.counts.get(name, 0) + 1
            self._done.append(f"{number}: {name} through {which}: {told}")
        for which in range(len(self._files)):
            self._compare(which, 0, os.pread(self._files[which], 2 * self._size_max, 0))
            self._size(which)

    def close(self) -> None:
        """Close the file."""
        while self._files:
            os.close(self._files.pop())

    # Operations; each returns what it did -----------------------------------------------------------

    def _range(self, end: int) -> tuple[int, int]:
        """Return offset and length of a range that ends there at the latest."""
        offset = self._chance.randrange(max(1, end))
        length = self._chance.randrange(1, self._length_max)
        if self._chance.random() < 0.3:  # at borders of blocks more often than chance has it
            offset -= offset % BLOCK
            length += -length % BLOCK
        return offset, max(0, min(length, end - offset))

    def _fit(self, end: int) -> None:
        if end > len(self._image):
            self._image.extend(bytes(end - len(self._image)))

    def _read(self, which: int) -> str:
        offset, length = self._range(len(self._image) + BLOCK)
        self._compare(which, offset, os.pread(self._files[which], length, offset), length)
        return f"{length} at {offset}"

    def _write(self, which: int) -> str:
        offset, length = self._range(self._size_max)
        data = self._chance.randbytes(length)
        self._wrote(os.pwrite(self._files[which], data, offset), length)
        self._fit(offset + length if length else 0)
        self._image[offset : offset + length] = data
        return f"{length} at {offset}"

    def _append(self, which: int) -> str:
        offset = len(self._image)
        length = min(self._chance.randrange(1, 9000), self._size_max - offset)
        if length <= 0:
            return "nothing"
        data = self._chance.randbytes(length)
        file = os.open(self._paths[which], os.O_WRONLY | os.O_APPEND)
        try:
            self._wrote(os.write(file, data), length)
        finally:
            os.close(file)
        self._image += data
        return f"{length} at {offset}"

    def _truncate(self, which: int) -> str:
        size = self._chance.randrange(self._size_max)
        before = len(self._image)
        os.ftruncate(self._files[which], size)
        self._fit(size)
        del self._image[size:]
        return f"{before} to {size}"

    def _allocate(self, which: int) -> str:
        offset, length = self._range(self._size_max)
        keep = self._chance.random() < 0.5
        if length:
            self._fallocate(which, KEEP if keep else 0, offset, length)
            if not keep:
                self._fit(offset + length)
        return f"{length} at {offset}{', size kept' if keep else ''}"

    def _punch(self, which: int) -> str:
        offset, length = self._range(self._size_max)
        if length:
            self._fallocate(which, PUNCH | KEEP, offset, length)
            end = min(offset + length, len(self._image))
            self._image[offset:end] = bytes(max(0, end - offset))
        return f"{length} at {offset}"

    def _zero(self, which: int) -> str:
        offset, length = self._range(self._size_max)
        keep = self._chance.random() < 0.5
        if length:
            self._fallocate(which, ZERO | (KEEP if keep else 0), offset, length)
            if not keep:
                self._fit(offset + length)
            end = min(offset + length, len(self._image))
            self._image[offset:end] = bytes(max(0, end - offset))
        return f"{length} at {offset}{', size kept' if keep else ''}"

    def _blocks(self, blocks: int) -> tuple[int, int]:
        offset = self._chance.randrange(blocks)
        length = self._chance.randrange(1, max(2, min(blocks - offset, self._length_max // BLOCK)))
        return offset * BLOCK, length * BLOCK

    def _collapse(self, which: int) -> str:
        blocks = len(self._image) // BLOCK
        if blocks < 2:
            return "nothing"
        offset, length = self._blocks(blocks)
        if offset + length >= len(self._image):
            return "nothing"
        self._fallocate(which, COLLAPSE, offset, length)
        del self._image[offset : offset + length]
        return f"{length} at {offset}"

    def _insert(self, which: int) -> str:
        blocks = len(self._image) // BLOCK
        if not blocks:
            return "nothing"
        offset, length = self._blocks(blocks)
        if offset >= len(self._image) or len(self._image) + length > self._size_max:
            return "nothing"
        self._fallocate(which, INSERT, offset, length)
        self._image[offset:offset] = bytes(length)
        return f"{length} at {offset}"

    def _copy(self, which: int) -> str:
        source, length = self._range(len(self._image))
        target = self._chance.randrange(self._size_max)
        if self._chance.random() < 0.5:
            source, target = source - source % BLOCK, target - target % BLOCK
        length = min(length, self._size_max - target, abs(target - source))  # they may not overlap
        if length <= 0:
            return "nothing"
        # Within one mount: across mounts Linux copies through its caches. It asks nobody for the size that it goes by.
        os.fstat(self._files[which])
        done = 0
        while done < length:
            count = os.copy_file_range(
                self._files[which], self._files[which], length - done, source + done, target + done
            )
            if not count:
                raise Differs(self._told(f"a copy of {length} at {source} ended after {done}"))
            done += count
        data = self._image[source : source + length]
        self._fit(target + length)
        self._image[target : target + length] = data
        return f"{length} at {source} to {target}"

    def _map_read(self, which: int) -> str:
        offset, length = self._range(len(self._image))
        if not length:
            return "nothing"
        start = offset - offset % mmap.ALLOCATIONGRANULARITY
        with mmap.mmap(
            self._files[which], offset + length - start, prot=mmap.PROT_READ, offset=start
        ) as mapped:
            self._compare(which, offset, mapped[offset - start : offset - start + length], length)
        return f"{length} at {offset}"

    def _map_write(self, which: int) -> str:
        offset, length = self._range(self._size_max)
        if not length:
            return "nothing"
        if offset + length > len(self._image):
            os.ftruncate(self._files[which], offset + length)
            self._fit(offset + length)
        start = offset - offset % mmap.ALLOCATIONGRANULARITY
        data = self._chance.randbytes(length)
        with mmap.mmap(self._files[which], offset + length - start, offset=start) as mapped:
            mapped[offset - start : offset - start + length] = data
            mapped.flush()
        self._image[offset : offset + length] = data
        return f"{length} at {offset}"

    def _reopen(self, which: int) -> str:
        os.close(self._files[which])
        self._files[which] = os.open(self._paths[which], os.O_RDWR)
        return "done"

    def _sync(self, which: int) -> str:
        os.fsync(self._files[which])
        return "done"

    def _size(self, which: int) -> str:
        found = os.fstat(self._files[which]).st_size
        if found != len(self._image):
            raise Differs(self._told(f"size {found} through {which}, not {len(self._image)}"))
        return str(found)

    # ----------------------------------------------------------------------------------------------

    def _fallocate(self, which: int, mode: int, offset: int, length: int) -> None:
        if _libc.fallocate(self._files[which], mode, c_long(offset), c_long(length)):
            raise OSError(get_errno(), f"fallocate {mode:#x} of {length} at {offset}")

    def _wrote(self, count: int, length: int) -> None:
        if count != length:
            raise Differs(self._told(f"a write of {length} wrote {count}"))

    def _compare(self, which: int, offset: int, found: bytes, length: int = 1 << 62) -> None:
        expected = bytes(self._image[offset : offset + length])
        if found == expected:
            return
        if len(found) != len(expected):
            told = f"{len(found)} bytes, not {len(expected)}, at {offset} through {which}"
        else:
            wrong = [at for at in range(len(found)) if found[at] != expected[at]]
            told = (
                f"{len(wrong)} bytes through {which} differ, from {offset + wrong[0]} to {offset + wrong[-1]}: "
                f"{found[wrong[0] : wrong[0] + 8].hex()}, not {expected[wrong[0] : wrong[0] + 8].hex()}"
            )
        raise Differs(self._told(told))

    def _told(self, what: str) -> str:
        return "\n".join((*self._done, f"seed {self._seed}: {what}"))


def exercise(
    paths: Sequence[Path], *, seed: int, operations: int, maps: bool = True
) -> dict[str, int]:
    """Exercise one file by paths that all lead to it; return how often each operation was made.

    Raises:
        Differs
    """
    exerciser = Exerciser(paths, seed, maps=maps)
    try:
        exerciser.run(operations)
    finally:
        exerciser.close()
    return exerciser.counts


def main() -> None:
    """Run from a command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("paths", nargs="+", type=Path, help="paths to one file")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--operations", type=int, default=100_000)
    parser.add_argument("--no-maps", action="store_true")
    asked = parser.parse_args()
    print(
        exercise(asked.paths, seed=asked.seed, operations=asked.operations, maps=not asked.no_maps)
    )


if __name__ == "__main__":
    main()
