"""What the parts of the kit for Objects share: content, ways to look at it, and the fixtures that an adoption gives."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Awaitable, Callable

import pytest
from warp_core.interfaces.auth import Principal
from warp_core.views.objects import (
    Attributes,
    Condition,
    Digests,
    ObjectInfo,
    Objects,
    PartInfo,
)

from warp_conformance.kit import Kit

Usage = Callable[[str], Awaitable[tuple[int, int, int, int]]]
Reopen = Callable[[], Awaitable[Objects]]

ALICE = Principal("account:alice")
BOB = Principal("account:bob")
PLAIN = Attributes()
RICH = Attributes(
    headers={"content-type": "text/plain", "cache-control": "no-cache"},
    metadata={"colour": "grün"},
    tags={"a": "1", "b": ""},
    storage_class="STANDARD_IA",
    owner="account:alice",
)
KEYS_IN_ORDER = sorted(
    [
        b"a",
        b"a\0",
        b"a-b",
        b"a/",
        b"a/\0",
        b"a/!",
        b"a//b",
        b"a0",
        "aé".encode(),
        b"b/c/d",
        b"b/c",
        b"b",
        b"x" * 199,
        b"x" * 200,
        b"x" * 200 + b"/y",
        b"x" * 201,
        b"x" * 1024,
        b"/",
        b"//",
        b"\xff\xfe",
    ]
)

numbers = itertools.count()


def digests(data: bytes) -> Digests:
    """Return what a protocol computes over content."""
    return Digests(etag=hashlib.md5(data, usedforsecurity=False).hexdigest())


def noise(length: int, seed: int = 0) -> bytes:
    """Return bytes without a short period."""
    return hashlib.shake_128(seed.to_bytes(8, "big")).digest(length)


async def put(
    objects: Objects,
    volume: str,
    key: bytes,
    data: bytes = b"x",
    attributes: Attributes = PLAIN,
    *,
    condition: Condition | None = None,
) -> ObjectInfo:
    """Put a small object."""
    if condition is None:
        return await objects.put(volume, key, data, attributes, digests(data))
    return await objects.put(volume, key, data, attributes, digests(data), condition=condition)


async def put_part(
    objects: Objects, volume: str, key: bytes, upload: str, number: int, data: bytes
) -> PartInfo:
    """Write a part."""
    writer = await objects.part_writer(volume, key, upload, number)
    await writer.write(data)
    made = await writer.commit(digests(data))
    return PartInfo(number=number, size=made.size, etag=made.etag)


async def get(objects: Objects, volume: str, key: bytes, version: str = "") -> bytes:
    """Read a whole object."""
    reader = await objects.open(volume, key, version=version)
    try:
        data = bytearray()
        while len(data) < reader.info.size:
            piece = reader.read_now(len(data), 1 << 20)
            if piece is None:
                piece = await reader.read(len(data), 1 << 20)
            assert len(piece), "a read inside the object returned nothing"
            data += piece
        return bytes(data)
    finally:
        reader.close()


async def keys(objects: Objects, volume: str, **how: object) -> list[bytes]:
    """Return all listed keys, in pages of three."""
    found: list[bytes] = []
    after = b""
    while True:
        page = await objects.list(volume, after=after, limit=3, **how)  # type: ignore[arg-type]
        assert len(page.entries) + len(page.prefixes) <= 3
        found += [entry.key for entry in page.entries]
        if not page.next:
            return found
        after = page.next


async def rolled(
    objects: Objects, volume: str, delimiter: bytes, prefix: bytes = b"", limit: int = 2
) -> tuple[list[bytes], list[bytes]]:
    """Return keys and common prefixes, in pages of two."""
    entries: list[bytes] = []
    prefixes: list[bytes] = []
    after = b""
    for _ in range(1000):
        page = await objects.list(
            volume, prefix=prefix, delimiter=delimiter, after=after, limit=limit
        )
        entries += [entry.key for entry in page.entries]
        prefixes += page.prefixes
        if not page.next:
            return entries, prefixes
        after = page.next
    raise AssertionError("the listing does not end")


async def versions(
    objects: Objects, volume: str, limit: int = 2, **how: object
) -> list[ObjectInfo]:
    """Return all versions, in pages of two."""
    found: list[ObjectInfo] = []
    key, version = b"", ""
    for _ in range(1000):
        page = await objects.list_versions(
            volume,
            key_marker=key,
            version_marker=version,
            limit=limit,
            **how,  # type: ignore[arg-type]
        )
        found += page.entries
        if not page.next_key:
            return found
        key, version = page.next_key, page.next_version
    raise AssertionError("the listing does not end")


class ObjectsStage(Kit):
    """What every part of the kit stands on: a view, what it counts, and how it crashes."""

    @pytest.fixture
    def usage(self) -> Usage:
        """Give what a volume holds."""
        raise NotImplementedError("give the kit a fixture `usage`")

    @pytest.fixture
    def reopen(self) -> Reopen:
        """Give what crashes and comes back."""
        raise NotImplementedError("give the kit a fixture `reopen`")

    @pytest.fixture
    async def volume(self, subject: Objects) -> str:
        """Make a volume for the test."""
        name = f"kit-{next(numbers)}"
        await subject.create_volume(name, owner=ALICE)
        return name
