"""The file systems that the rig can put on a recorded disk."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class FileSystem:
    """How to make and mount one kind.

    The options take away what saves careless programs by luck: timed commits are put off, and
    renaming or truncating onto a file does not flush it.
    """

    name: str
    package: str  # Debian's, for the skip message
    make: tuple[str, ...]
    options: tuple[str, ...]
    size_min: int  # bytes

    @property
    def tool(self) -> str:
        """The program that makes this file system."""
        return self.make[0]

    def format(self, image: Path, size: int) -> None:
        """Create `image` as a sparse file of `size` bytes holding an empty file system."""
        if size < self.size_min:
            raise ValueError(f"{size} bytes < {self.size_min}, the least for {self.name}")
        with image.open("xb") as file:
            file.truncate(size)
        subprocess.run([*self.make, str(image)], check=True, capture_output=True)


EXT4 = FileSystem(
    name="ext4",
    package="e2fsprogs",
    # Lazy: the tables of a sparse file are zero already.
    make=("mkfs.ext4", "-qF", "-b4096", "-Enodiscard,lazy_itable_init=1,lazy_journal_init=1"),
    options=("noatime", "commit=300", "noauto_da_alloc", "noinit_itable"),
    size_min=16 * MIB,
)
XFS = FileSystem(
    name="xfs",
    package="xfsprogs",
    make=("mkfs.xfs", "-qfK"),
    options=("noatime", "nouuid"),
    size_min=300 * MIB,
)
BTRFS = FileSystem(
    name="btrfs",
    package="btrfs-progs",
    make=("mkfs.btrfs", "-qfK"),
    options=("noatime", "commit=300"),
    size_min=128 * MIB,
)
