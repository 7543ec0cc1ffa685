"""A node's data plane on stores that lose power: what tests of containers and of everything above them need."""

from __future__ import annotations

import asyncio
import random
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal

from warp_core.containers import Chunk, Containers, DataPolicy, Owner, StoreSlot
from warp_core.containers.fleet import Container
from warp_core.errors import Corrupt, NotFound
from warp_core.interfaces.codecs import Chunker, Codec, Filter
from warp_core.interfaces.stores import BlobStore, Buffer

from warp_conformance.reference.stores import Medium, Plain

OWNER = Owner(1, 2, 3)
SIZE = 256 * 1024  # of a container in these tests
NONE = DataPolicy(chunker="fixed:100000")
TWICE = DataPolicy(redundancy="replica:2", chunker="fixed:100000")


class PowerCut(BaseException):
    """Nothing after this happened."""


class Disk(Plain):
    """A store in memory that a test may stop before or after any effect, and damage."""

    capacity = 64 * 1024 * 1024
    reserve = 1024 * 1024

    def __init__(self, medium: Medium, step: Callable[[str, str], None] | None = None) -> None:
        super().__init__(medium)
        self.step = step or (lambda call, name: None)

    async def put(self, name: str, buffers: Sequence[Buffer], *, vital: bool = False) -> None:
        """See `BlobStore.put`."""
        self.step("put", name)
        await super().put(name, buffers, vital=vital)
        self.step("put", name)

    async def create(self, name: str, **options: Any) -> None:
        """See `BlobStore.create`."""
        self.step("create", name)
        await super().create(name, **options)
        self.step("create", name)

    async def write(
        self, name: str, *, offset: int, buffers: Sequence[Buffer], sync: bool = False
    ) -> None:
        """See `BlobStore.write`."""
        self.step("write", name)
        await super().write(name, offset=offset, buffers=buffers, sync=sync)

    async def sync(self, name: str) -> None:
        """See `BlobStore.sync`."""
        self.step("sync", name)
        await super().sync(name)
        self.step("sync", name)

    async def seal(self, name: str, *, size: int) -> None:
        """See `BlobStore.seal`."""
        self.step("seal", name)
        await super().seal(name, size=size)

    async def delete(self, name: str) -> None:
        """See `BlobStore.delete`."""
        self.step("delete", name)
        await super().delete(name)
        self.step("delete", name)


class Fixed(Chunker):
    """Cuts at one size."""

    def __init__(self, size: int) -> None:
        self.min_size = self.max_size = size

    def cut(self, window: memoryview, *, final: bool) -> int:
        """Cut every `size` bytes."""
        length = len(window)
        return self.max_size if length >= self.max_size else length if final else 0


class Marks(Chunker):
    """Content-defined: cuts after a byte below 2, 1000 to 50,000 bytes apart."""

    min_size, max_size = 1_000, 50_000

    def cut(self, window: memoryview, *, final: bool) -> int:
        """Look for a low byte."""
        found = bytes(window[self.min_size : self.max_size])
        hits = [at for at in (found.find(b"\0"), found.find(b"\1")) if at >= 0]
        if hits:
            return self.min_size + min(hits) + 1
        return self.max_size if len(window) >= self.max_size else len(window) if final else 0


class Zip(Filter):
    """zlib."""

    stage: Literal["compress", "encrypt"] = "compress"

    def encode(self, frame: memoryview, *, context: bytes) -> Buffer | None:
        """Compress, or keep what grows."""
        stored = zlib.compress(frame, 1)
        return stored if len(stored) < len(frame) else None

    def decode(self, stored: memoryview, *, length: int, context: bytes) -> Buffer:
        """Decompress."""
        frame = zlib.decompress(stored)
        if len(frame) != length:
            raise Corrupt("wrong length")
        return frame


class Bind(Filter):
    """An encryptor in shape: adds a tag that depends on the place, and expects its exact length back."""

    stage: Literal["compress", "encrypt"] = "encrypt"
    overhead = 4

    def encode(self, frame: memoryview, *, context: bytes) -> Buffer | None:
        """Mask the frame, append the tag."""
        return bytes(byte ^ 0x55 for byte in frame) + zlib.crc32(context + bytes(frame)).to_bytes(4)

    def decode(self, stored: memoryview, *, length: int, context: bytes) -> Buffer:
        """Check the tag, take off the mask."""
        frame = bytes(byte ^ 0x55 for byte in stored[:-4])
        if len(frame) != length or zlib.crc32(context + frame).to_bytes(4) != stored[-4:]:
            raise Corrupt("the tag does not match")
        return frame


def codec(name: str) -> Codec:
    """Make a codec of these, by a policy's word."""
    kind, _, argument = name.partition(":")
    if kind == "fixed":
        return Fixed(int(argument))
    made: dict[str, type[Codec]] = {"marks": Marks, "zip": Zip, "bind": Bind}
    if kind not in made:
        raise NotFound(f"no codec {name}")
    return made[kind]()


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        """Return the time."""
        return self.now


def make(
    *media: Medium | BlobStore,
    domains: Sequence[str] = (),
    clock: Clock | None = None,
    **options: Any,
) -> Containers:
    """Return a data plane on some disks, not yet open."""
    stores = [Disk(one) if isinstance(one, Medium) else one for one in media]
    slots = [
        StoreSlot(f"s{number}", store, domains[number] if domains else "")
        for number, store in enumerate(stores)
    ]
    clock = clock or Clock()
    options.setdefault("container_size", SIZE)
    return Containers(slots, codec=codec, monotonic=clock.monotonic, **options)


@asynccontextmanager
async def node(*media: Medium | BlobStore, **options: Any) -> AsyncIterator[Containers]:
    """Open the data plane on some disks, for a session that ends cleanly."""
    async with make(*media, **options) as containers:
        yield containers


@asynccontextmanager
async def crashing(*media: Medium | BlobStore, **options: Any) -> AsyncIterator[Containers]:
    """Open the data plane and lose power at the end: what was not synced is gone."""
    containers = make(*media, **options)
    await containers.__aenter__()
    yield containers
    await quiet()  # nobody closes anything: only what the media hold counts from now on


async def quiet() -> None:
    """Let tasks that are under way come to rest."""
    for _ in range(20):
        await asyncio.sleep(0)


def noise(length: int, seed: int = 0) -> bytes:
    """Return bytes without a pattern."""
    return random.Random(seed).randbytes(length)


async def stream(
    containers: Containers,
    data: bytes,
    policy: DataPolicy = NONE,
    *,
    owner: Owner = OWNER,
    hint: int | None = None,
) -> list[Chunk]:
    """Write a stream and return its chunks."""
    writer = containers.writer(policy, owner, size_hint=len(data) if hint is None else hint)
    await writer.write(data)
    return [chunk for _, chunk in await writer.finish()]


async def content(containers: Containers, chunks: Sequence[Chunk]) -> bytes:
    """Read chunks back to back."""
    return b"".join([bytes(await containers.read(chunk)) for chunk in chunks])


def entries(containers: Containers) -> dict[int, Container]:
    """Look at the catalogue."""
    return containers._fleet.containers


def blobs(medium: Medium) -> list[str]:
    """Return the durable blobs of containers."""
    return sorted(name for name in medium.blobs if name.startswith("c/"))


def flip(medium: Medium, name: str, at: int) -> None:
    """Change one bit on a medium (before it is opened)."""
    medium.blobs[name].data[at] ^= 1


async def yes(owner: Owner, chunk: Chunk) -> bool:
    """Refer to everything."""
    return True


async def no(owner: Owner, chunk: Chunk) -> bool:
    """Refer to nothing."""
    return False
