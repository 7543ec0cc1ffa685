"""Replies to requests: which bytes say it, with and without structured replies."""

from collections.abc import Sequence
from typing import Final

from warp_core.interfaces.stores import Buffer
from warp_core.views.blocks import Run, Status

from warp_nbd import wire
from warp_nbd.wire import CHUNK, CHUNK_DONE, CHUNK_MAGIC, Errno

_ZEROS: Final = memoryview(bytes(1024 * 1024))

HOLE_WORTH: Final = 4096
"""Bytes of a hole that is told as one: below, its chunk and the next one's head cost more than the zeros."""


class Replies:
    """How one connection is answered. Each method returns buffers to send one behind the other.

    Attributes:
        structured: Structured replies were negotiated.
    """

    def __init__(self, *, structured: bool) -> None:
        self.structured = structured

    def done(self, cookie: int) -> bytes:
        """Say that a request without data to return succeeded."""
        return wire.SIMPLE.pack(wire.SIMPLE_REPLY_MAGIC, 0, cookie)

    def error(self, cookie: int, error: Errno, message: str) -> bytes:
        """Say that a request failed."""
        if self.structured:
            return wire.pack_error(cookie, error, message)
        return wire.SIMPLE.pack(wire.SIMPLE_REPLY_MAGIC, error, cookie)

    def data(
        self, cookie: int, runs: Sequence[Run], *, whole: bool = False, last: bool = True
    ) -> list[Buffer]:
        """Return what was read; `whole` wants it in one chunk, and without `last` more of it follows."""
        if not self.structured:
            return [wire.SIMPLE.pack(wire.SIMPLE_REPLY_MAGIC, 0, cookie), *_bytes(runs)]
        if not runs:
            return [wire.pack_done(cookie)]
        if len(runs) == 1:
            offset, length, data = runs[0]
            return self.chunk(cookie, offset, length, data, CHUNK_DONE if last else 0)
        parts = [runs] if whole else _together(runs)
        answer: list[Buffer] = []
        for number, part in enumerate(parts, 1):
            flags = CHUNK_DONE if last and number == len(parts) else 0
            offset = part[0][0]
            length = part[-1][0] + part[-1][1] - offset
            if len(part) == 1:
                answer += self.chunk(cookie, offset, length, part[0][2], flags)
                continue
            head = wire.DATA_CHUNK.pack(
                CHUNK_MAGIC, flags, wire.CHUNK_DATA, cookie, 8 + length, offset
            )
            answer += [head, *_bytes(part)]
        return answer

    def chunk(
        self, cookie: int, offset: int, length: int, data: Buffer | None, flags: int
    ) -> list[Buffer]:
        """Return one chunk of data, or of a hole."""
        if data is None:
            return [
                wire.HOLE_CHUNK.pack(
                    CHUNK_MAGIC, flags, wire.CHUNK_HOLE, cookie, 12, offset, length
                )
            ]
        return [
            wire.DATA_CHUNK.pack(
                CHUNK_MAGIC, flags, wire.CHUNK_DATA, cookie, 8 + length, offset
            ),
            data,
        ]  # fmt: skip

    def status(self, cookie: int, context: int, runs: Sequence[Status]) -> bytes:
        """Return block status: runs that are alike and touch are told as one."""
        extents: list[tuple[int, int]] = []
        for _, length, hole in runs:
            state = wire.STATE_HOLE | wire.STATE_ZERO if hole else 0
            if extents and extents[-1][1] == state:
                extents[-1] = (extents[-1][0] + length, state)
            else:
                extents.append((length, state))
        return wire.pack_status(cookie, context, extents)


def _bytes(runs: Sequence[Run]) -> list[Buffer]:
    """Return runs as bytes, holes as zeros."""
    found: list[Buffer] = []
    for _, length, data in runs:
        if data is not None:
            found.append(data)
            continue
        while length:
            step = min(length, len(_ZEROS))
            found.append(_ZEROS[:step])
            length -= step
    return found


def _together(runs: Sequence[Run]) -> list[list[Run]]:
    """Put into one chunk what is data, with small holes in it; CHUNK for each large hole."""
    parts: list[list[Run]] = []
    filling = False
    for run in runs:
        hole = run[2] is None and run[1] >= HOLE_WORTH
        if filling and not hole:
            parts[-1].append(run)
        else:
            parts.append([run])
        filling = not hole
    return parts


assert CHUNK.size == 20
