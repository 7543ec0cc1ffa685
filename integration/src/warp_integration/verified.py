"""A client of one disk that never takes anything on trust: it goes on over refusals and new connections, and checks every read.

Two promises are checked. While nothing was refused and the connection stayed, a block reads as what was last answered. Whatever
happened, it reads as what was last made durable, or as something sent after that.
"""

from __future__ import annotations

import random
import struct
import time
from collections import Counter
from dataclasses import dataclass, field

from warp_integration.kept import KeptBlocks
from warp_integration.nbd import BLOCK, FUA, NbdDisk, content

DEPTH = 8
PAUSE_S = 0.03  # between rounds: what is tested is not speed, and four such clients can keep two nodes busy
KEEP = 0.1  # of rounds write a block that stays
AGAIN_S = 0.05  # until a server that is not there is tried again


@dataclass(slots=True)
class _Block:
    durable: int = 0
    sent: list[int] = field(default_factory=list)  # since `durable`, oldest first
    latest: int | None = 0  # what it has to read as; None: unknown since something was refused


class VerifiedDisk:
    """Writes, reads and flushes blocks of one disk until told to stop."""

    def __init__(self, seed: int, *, blocks: int = 64, kept: int = 0) -> None:
        """Begin with a disk of zeros; `kept` blocks behind those that change are each written once."""
        self.kept = KeptBlocks(blocks, kept)
        self.findings: list[str] = []
        self.counts: Counter[str] = Counter()
        self.longest_s = 0.0  # without an answer
        self._random = random.Random(seed)
        self._blocks = [_Block() for _ in range(blocks)]
        self._count = 0
        self._stop = False

    def stop(self) -> None:
        """End `run` soon."""
        self._stop = True

    def run(self, uri: str) -> None:
        """Ask until `stop`; where the connection ends, connect anew."""
        self._stop = False
        while not self._stop:
            try:
                with NbdDisk(uri) as connection:
                    self.counts["connected"] += 1
                    while not self._stop:
                        self._round(connection)
                        time.sleep(PAUSE_S)
            except (OSError, struct.error):
                self._doubt()
                time.sleep(AGAIN_S)

    def judge(self, uri: str, *, patience_s: float = 30.0) -> None:
        """Read every block once; the server may need some time until it takes a connection."""
        with _connected(uri, time.monotonic() + patience_s) as connection:
            for number in range(len(self._blocks)):
                connection.send(0, 1, number * BLOCK, BLOCK)
                _, error = connection.reply()
                if error:
                    self.findings.append(f"block {number} cannot be read: {error}")
                else:
                    self._read(number, connection.take(BLOCK))

    def _round(self, connection: NbdDisk) -> None:
        """Send requests for different blocks, and take their answers; then perhaps flush."""
        began = time.monotonic()
        chosen = self._random.sample(range(len(self._blocks)), DEPTH)
        sent: dict[int, tuple[str, int, int]] = {}
        for number in chosen:
            self._count += 1
            if self._random.random() < 0.4:
                sent[self._count] = ("read", number, 0)
                connection.send(0, self._count, number * BLOCK, BLOCK)
                continue
            fua = self._random.random() < 0.1
            block = self._blocks[number]
            block.sent.append(self._count)
            block.latest = None
            sent[self._count] = ("fua" if fua else "write", number, self._count)
            data = content(number, self._count)
            connection.send(1, self._count, number * BLOCK, BLOCK, data, FUA if fua else 0)
        refused = False
        for _ in chosen:
            cookie, error = connection.reply()
            kind, number, count = sent.pop(cookie)
            self.counts[f"{kind} refused" if error else kind] += 1
            if error:
                refused = True
            elif kind == "read":
                self._read(number, connection.take(BLOCK))
            else:
                self._blocks[number].latest = count
                if kind == "fua":
                    self._promise(self._blocks[number])
        if refused:
            self._doubt()
        if self._random.random() < 0.3:
            connection.send(3, 1, 0, 0)
            _, error = connection.reply()
            self.counts["flush refused" if error else "flush"] += 1
            if error:
                self._doubt()
            else:
                for block in self._blocks:
                    self._promise(block)
        if self._random.random() < KEEP and not self.kept.write(connection):
            self._doubt()
        self.longest_s = max(self.longest_s, time.monotonic() - began)

    @staticmethod
    def _promise(block: _Block) -> None:
        if block.latest is not None and block.latest in block.sent:
            block.durable = block.latest
            block.sent = [each for each in block.sent if each > block.latest]

    def _doubt(self) -> None:
        """Something was refused, or the connection ended: what was not flushed may be gone."""
        for block in self._blocks:
            if block.sent:
                block.latest = None

    def _read(self, number: int, data: bytes) -> None:
        block = self._blocks[number]
        found = int.from_bytes(data[8:16], "big")
        whole = data == content(number, found)
        allowed = [block.durable, *block.sent] if block.latest is None else [block.latest]
        if not whole or found not in allowed:
            self.findings.append(
                f"block {number} holds {found}{'' if whole else ', mixed'}, allowed {allowed},"
                f" durable {block.durable}"
            )
        block.latest = found if whole else None


def _connected(uri: str, until_s: float) -> NbdDisk:
    while True:
        try:
            return NbdDisk(uri)
        except (OSError, struct.error):
            if time.monotonic() > until_s:
                raise
            time.sleep(AGAIN_S)
