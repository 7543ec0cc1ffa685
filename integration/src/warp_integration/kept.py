"""Objects and blocks that are written once, at any time, and have to be there ever after.

Histories show that what clients saw fits one order; this shows the plain thing: what was acknowledged rounds ago, in whatever
state the cluster was, can still be read, whole. Content follows from the name, so nothing but names is remembered.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import struct
from collections.abc import Callable, Sequence

from warp_integration.nbd import BLOCK, FUA, NbdDisk, content
from warp_integration.s3client import ConnectionLost, S3Connection

SIZES = (0, 100, 4_000, 40_000, 200_000)  # bytes: inline, small, and streams
READERS = 8  # at once
AGAIN = 100  # times that a read is tried
AGAIN_S = 0.05  # after a refusal


class KeptObjects:
    """Objects of one bucket, under names that are used once."""

    def __init__(self, bucket: str, seed: int) -> None:
        """Begin with none."""
        self.acknowledged: list[int] = []
        self._bucket = bucket
        self._rng = random.Random(seed)
        self._count = 0

    async def write(
        self, endpoints: Callable[[], Sequence[str]], over: Callable[[], bool], *, pause_s: float
    ) -> None:
        """Put one after the other until it is over, each through any endpoint; one that was refused may be there or not."""
        while not over():
            async with S3Connection(self._rng.choice(endpoints())) as s3:
                while not over():
                    self._count += 1
                    number = self._count
                    try:
                        answer = await s3.request("PUT", self._path(number), body=_body(number))
                    except ConnectionLost:
                        await asyncio.sleep(AGAIN_S)
                        break
                    if answer.status == 200:
                        self.acknowledged.append(number)
                    await asyncio.sleep(pause_s if answer.status == 200 else AGAIN_S)

    def start_at(self, number: int) -> None:
        """Number objects from here on, where others wrote into the bucket before."""
        self._count = number

    async def missing(
        self, endpoints: Sequence[str], *, since: int = 0, sample: int | None = None
    ) -> list[str]:
        """Read those that were acknowledged, from the one at `since` on or a sample of all; return what is wrong."""
        wanted = self.acknowledged[since:]
        if sample is not None and len(wanted) > sample:
            wanted = self._rng.sample(wanted, sample)
        left = iter(wanted)
        wrong: list[str] = []

        async def read(endpoint: str) -> None:
            async with S3Connection(endpoint) as s3:
                for number in left:
                    for _ in range(AGAIN):  # homes may move on a busy machine
                        answer = await s3.request("GET", self._path(number))
                        if answer.status < 500:
                            break
                        await asyncio.sleep(AGAIN_S)
                    if answer.status != 200 or answer.body != _body(number):
                        wrong.append(f"{self._path(number)}: {answer.status} {answer.code}")

        async with asyncio.TaskGroup() as group:
            for number in range(READERS):
                group.create_task(read(endpoints[number % len(endpoints)]))
        return wrong

    def _path(self, number: int) -> str:
        return f"/{self._bucket}/kept/{number:08}"


def _body(number: int) -> bytes:
    size = SIZES[number % len(SIZES)]
    seed = hashlib.sha256(number.to_bytes(8, "big")).digest()
    return (seed * (size // len(seed) + 1))[:size]


class KeptBlocks:
    """Blocks of a disk behind those that others write, each written once, durably."""

    def __init__(self, first: int, blocks: int) -> None:
        """Take the number of the first block, and how many there are."""
        self.acknowledged: list[int] = []
        self._left = iter(range(first, first + blocks))

    def write(self, connection: NbdDisk) -> bool:
        """Write one, and say whether it was taken; the end of the connection raises."""
        number = next(self._left, None)
        if number is None:
            return True
        connection.send(1, number, number * BLOCK, BLOCK, content(number, number), FUA)
        _, error = connection.reply()
        if not error:
            self.acknowledged.append(number)
        return not error

    def missing(self, uri: str) -> list[str]:
        """Read all that were acknowledged; return what is wrong."""
        wrong: list[str] = []
        try:
            with NbdDisk(uri) as connection:
                for number in self.acknowledged:
                    connection.send(0, 1, number * BLOCK, BLOCK)
                    _, error = connection.reply()
                    if error:
                        wrong.append(f"block {number} cannot be read: {error}")
                    elif connection.take(BLOCK) != content(number, number):
                        wrong.append(f"block {number} is lost")
        except (OSError, struct.error) as error:
            wrong.append(f"{uri}: {error}")
        return wrong
