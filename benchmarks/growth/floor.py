"""What no index can spare: memory that no cache of the processor has.

A lookup of any of a million objects reads rows that nobody read lately, wherever they are kept. The floor is the same rows in a plain
dictionary, found by their keys and copied out, and for GET the content by one `preadv` from the page cache.
"""

from __future__ import annotations

import os
from array import array
from pathlib import Path

from warp_core.containers.format import blob_name
from warp_core.namespace import keys
from warp_core.namespace.rows import FILE, decode_name, decode_revision
from warp_core.node.assembly import Node
from warp_disk.layout import file_of
from warp_local.engine import Local

from benchmarks.growth.data import VOLUME, key

RECORD = 4176  # bytes of a record with 4 KiB of content

Place = tuple[
    bytes, bytes, int, int
]  # keys of name and revision, descriptor and offset of the content


class Floor:
    """The rows of a volume's objects in a dictionary, and where their content lies."""

    def __init__(self, node: Node, folder: Path, size: int) -> None:
        engine = node.data.metastore
        assert isinstance(engine, Local)
        volume = node.namespace.volumes.known(VOLUME)
        assert volume is not None
        index = engine._living()[0]
        prefix = self._prefix = volume.prefix
        self._rows: dict[bytes, bytes] = {}
        self._directories = array("Q", bytes(8 * (size // 1000 + 1)))
        self._revisions = array("Q", bytes(8 * size))
        self._files = array("i", bytes(4 * size))
        self._offsets = array("Q", bytes(8 * size))
        owners: dict[int, int] = {}
        descriptors: dict[int, int] = {}
        for row in index.all_rows():
            if row.key.startswith(prefix + b"D"):
                self._name(row.key, row.value, size, owners)
            elif row.key.startswith(prefix + b"R"):
                number = owners.get(int.from_bytes(row.key[-8:], "big"))
                if number is not None:
                    self._content(row.value, number, folder, descriptors)
            else:
                continue
            self._rows[row.key] = bytes(8) + row.value
        self._buffer = memoryview(bytearray(RECORD))
        self.descriptors = list(descriptors.values())

    def _name(self, row_key: bytes, value: bytes, size: int, owners: dict[int, int]) -> None:
        name = decode_name(value)
        raw = keys.raw_of(row_key[len(self._prefix) + keys.NAME_AT :])
        if name.kind != FILE:
            self._directories[int(raw[:4])] = name.inode
        elif raw.isdigit() and int(raw) < size:
            self._revisions[int(raw)] = name.revision
            owners[name.revision] = int(raw)

    def _content(
        self, value: bytes, number: int, folder: Path, descriptors: dict[int, int]
    ) -> None:
        chunk = decode_revision(value).extents[0].chunk
        descriptor = descriptors.get(chunk.container)
        if descriptor is None:
            path = file_of(folder / "store" / "blobs", blob_name(chunk.container))
            descriptor = descriptors[chunk.container] = os.open(path, os.O_RDONLY)
        self._files[number] = descriptor
        self._offsets[number] = chunk.offset

    def place(self, name: bytes) -> Place:
        """Return where an object's rows and content are, without a look at them."""
        number = int(name[5:12])
        assert key(number) == name
        component = keys.escape(name[5:]) + keys.FILE_END
        return (
            self._prefix + keys.name_key(self._directories[number // 1000], component),
            self._prefix + keys.revision_key(self._revisions[number]),
            self._files[number],
            self._offsets[number],
        )

    def rows(self, places: list[Place]) -> None:
        """Find and copy two rows of each."""
        found = self._rows
        for name, revision, _, _ in places:
            found[name][8:]
            found[revision][8:]

    def content(self, places: list[Place]) -> None:
        """Find two rows of each, and read the content."""
        found, buffers = self._rows, (self._buffer,)
        for name, revision, descriptor, offset in places:
            found[name][8:]
            found[revision][8:]
            try:
                os.preadv(descriptor, buffers, offset, os.RWF_NOWAIT)
            except BlockingIOError:  # others pushed it out of the page cache
                os.preadv(descriptor, buffers, offset)

    def close(self) -> None:
        """Close the files."""
        for descriptor in self.descriptors:
            os.close(descriptor)
