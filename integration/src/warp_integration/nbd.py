"""NBD for tests: a small blocking client that knows what it was promised, and disks made by the command line."""

from __future__ import annotations

import json
import os
import random
import socket
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from warp_integration.requirements import locate

BLOCK = 4096
FUA = 1


def disk(data: Path, *words: str) -> object:
    """Run `warp disk` on a data directory and return its answer."""
    return warp(data, "disk", *words)


def warp(data: Path, *words: str) -> object:
    """Run a command of `warp` with --json and return its answer."""
    command = [str(locate("warp")), *words, "--data", str(data), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise AssertionError(f"{' '.join(words)}: {done.stdout}{done.stderr}")
    return json.loads(done.stdout)


def export(endpoint: str, name: str) -> str:
    """Return the URI of an export, as clients take it."""
    parts = urlsplit(endpoint)
    query = f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme}://{parts.netloc}/{name}{query}"


class NbdDisk:
    """A connection to one export, one request at a time or many."""

    def __init__(self, uri: str) -> None:
        """Connect and take the export by its oldest option."""
        parts = urlsplit(uri)
        path = parse_qs(parts.query).get("socket", [""])[0]
        if path:
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.connect(path)
        else:
            assert parts.hostname
            assert parts.port
            self.socket = socket.create_connection((parts.hostname, parts.port))
        self.socket.settimeout(60)
        assert self.take(18)[:16] == b"NBDMAGICIHAVEOPT"
        name = parts.path.lstrip("/").encode()
        self.socket.sendall(struct.pack(">I8sII", 3, b"IHAVEOPT", 1, len(name)) + name)
        self.size, self.flags = struct.unpack(">QH", self.take(10))

    def __enter__(self) -> NbdDisk:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(
        self, command: int, cookie: int, offset: int, length: int, data: bytes = b"", flags: int = 0
    ) -> None:
        """Send a request."""
        head = struct.pack(">IHHQQI", 0x25609513, flags, command, cookie, offset, length)
        self.socket.sendall(head + data)

    def reply(self) -> tuple[int, int]:
        """Return cookie and error of the next reply."""
        magic, error, cookie = struct.unpack(">IIQ", self.take(16))
        assert magic == 0x67446698
        return cookie, error

    def read(self, offset: int, length: int) -> bytes:
        """Read."""
        self.send(0, 1, offset, length)
        assert self.reply() == (1, 0)
        return self.take(length)

    def write(self, offset: int, data: bytes, *, fua: bool = False) -> None:
        """Write."""
        self.send(1, 2, offset, len(data), data, FUA if fua else 0)
        assert self.reply() == (2, 0)

    def flush(self) -> None:
        """Flush."""
        self.send(3, 3, 0, 0)
        assert self.reply() == (3, 0)

    def take(self, length: int) -> bytes:
        """Receive exactly so many bytes."""
        data = bytearray()
        while len(data) < length:
            more = self.socket.recv(length - len(data))
            if not more:
                raise ConnectionError("the server hung up")
            data += more
        return bytes(data)


class PromisedBlocks:
    """Writes blocks until the connection breaks, and knows which contents each may have afterwards.

    A block holds its number and a count that grows. Durable is what was answered with FUA, or before a FLUSH was sent that
    was answered.
    """

    def __init__(self, blocks: int, seed: int) -> None:
        """Begin with a disk of zeros."""
        self._random = random.Random(seed)
        self._blocks = blocks
        self._written: dict[int, list[int]] = {}  # counts sent, since the last one known durable
        self._durable: dict[int, int] = {}
        self._count = 0
        self.flushed = 0
        self.refused: list[str] = []

    def run(self, uri: str, *, depth: int = 16) -> None:
        """Write until the server is gone."""
        try:
            with NbdDisk(uri) as connection:
                while True:
                    self._round(connection, depth)
        except (OSError, struct.error):
            return

    def _round(self, connection: NbdDisk, depth: int) -> None:
        """Send some writes to different blocks and a flush, and note what the answers promise."""
        sent: dict[int, tuple[int, int, bool]] = {}
        for block in self._random.sample(range(self._blocks), depth):
            self._count += 1
            fua = self._random.random() < 0.1
            self._written.setdefault(block, []).append(self._count)
            sent[self._count] = (block, self._count, fua)
            data = content(block, self._count)
            connection.send(1, self._count, block * BLOCK, BLOCK, data, FUA if fua else 0)
        answered: list[tuple[int, int]] = []
        for _ in range(depth):
            cookie, error = connection.reply()
            if error:
                self.refused.append(f"a write was refused with {error}")
                raise ConnectionError("nothing more is written")
            block, count, fua = sent.pop(cookie)
            answered.append((block, count))
            if fua:
                self._promise(block, count)
        if self._random.random() < 0.5:
            connection.flush()
            self.flushed += 1
            for block, counts in list(self._written.items()):
                self._promise(block, counts[-1])

    def _promise(self, block: int, count: int) -> None:
        self._durable[block] = count
        self._written[block] = [each for each in self._written[block] if each > count]
        if not self._written[block]:
            del self._written[block]

    def judge(self, uri: str) -> list[str]:
        """Return what is not as promised; what is there counts as durable from now on."""
        wrong = []
        with NbdDisk(uri) as connection:
            for block in sorted({*self._durable, *self._written}):
                allowed = [self._durable.get(block, 0), *self._written.get(block, ())]
                found = connection.read(block * BLOCK, BLOCK)
                count = int.from_bytes(found[8:16], "big")
                if count not in allowed or found != content(block, count):
                    wrong.append(f"block {block} holds {count}, allowed {allowed}")
                self._durable[block] = count
        self._written.clear()
        return wrong


def content(block: int, count: int) -> bytes:
    """Return a block's bytes; zeros before the first write."""
    if not count:
        return bytes(BLOCK)
    return struct.pack(">QQ", block, count) * (BLOCK // 16)


def environment() -> Mapping[str, str]:
    """Return the environment for tools that would otherwise ask the terminal."""
    return {**os.environ, "LC_ALL": "C"}
