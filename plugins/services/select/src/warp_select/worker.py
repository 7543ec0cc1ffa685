"""A worker process: `python -m warp_select.worker FD` answers queries that come over a socket, one after another, until it ends.

The process is a jail as far as a process can make one for itself: it can write no file and start no program's privileges, gets no
environment, and DuckDB inside it has no access to files, network and extensions. It ends when its socket does.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import resource
import socket
import sys
import time
from collections.abc import Iterator
from typing import Final

import msgspec
from warp_core.interfaces.queries import QueryRefused

from warp_select import messages
from warp_select.errors import refused
from warp_select.messages import HEAD, PAYLOAD_MAX, Job, pack
from warp_select.reading import STEP, Remote

TELL_S: Final = 0.5
"""Between two messages about progress."""

BESIDES: Final = 2 << 30
"""Bytes of address space beside DuckDB's memory: libraries, Python, a few pieces of the input."""

FILES_MAX: Final = 32
"""Open files of a worker; it needs a handful."""

_NO_NEW_PRIVILEGES: Final = 38  # prctl(2): PR_SET_NO_NEW_PRIVS


class Gone(Exception):
    """The node has closed the socket."""


class Channel:
    """Messages over a socket, waiting for each."""

    def __init__(self, peer: socket.socket) -> None:
        """Take over a socket."""
        self._peer = peer

    def send(self, kind: int, payload: bytes = b"") -> None:
        """Send a message.

        Raises:
            Gone: Nobody is there.
        """
        try:
            self._peer.sendall(pack(kind, payload))
        except OSError as error:
            raise Gone from error

    def receive(self, kind: int) -> bytes:
        """Wait for a message of a kind.

        Raises:
            Gone: Nobody is there, or what comes is something else.
        """
        length, found = HEAD.unpack(self._exactly(HEAD.size))
        if found != kind or length > PAYLOAD_MAX:
            raise Gone
        return bytes(self._exactly(length - 1))

    def _exactly(self, length: int) -> bytearray:
        data = bytearray(length)
        view, at = memoryview(data), 0
        while at < length:
            try:
                count = self._peer.recv_into(view[at:])
            except OSError as error:
                raise Gone from error
            if not count:
                raise Gone
            at += count
        return data


class Asked(Remote):
    """The object, asked for piece by piece."""

    def __init__(self, channel: Channel) -> None:
        """Start with nothing read."""
        self._channel = channel
        self._open = False  # something is wanted and has not come

    def settle(self) -> None:
        """Take what was asked for and is not needed any more: the next message is about another query."""
        if self._open:
            self._got()

    def stream(self, start: int, end: int) -> Iterator[bytes]:
        """Ask for the next piece before the last is worked on."""
        if start >= end:
            return
        self._want(start, min(STEP, end - start))
        while start < end:
            data = self._got()
            if not data:
                raise refused("TruncatedInput")
            start += len(data)
            if start < end:
                self._want(start, min(STEP, end - start))
            yield data

    def read_at(self, offset: int, length: int) -> bytes:
        """Ask for a range and wait for it."""
        parts: list[bytes] = []
        while length > 0:
            self._want(offset, min(STEP, length))
            data = self._got()
            if not data:
                break
            parts.append(data)
            offset += len(data)
            length -= len(data)
        return b"".join(parts)

    def _want(self, offset: int, length: int) -> None:
        self._channel.send(messages.WANT, msgspec.msgpack.encode((offset, length)))
        self._open = True

    def _got(self) -> bytes:
        data = self._channel.receive(messages.DATA)
        self._open = False
        self.scanned += len(data)
        return data


def confine(memory: int) -> None:
    """Give up what a query has no use for."""
    for limit, value in (
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, FILES_MAX),
        (resource.RLIMIT_AS, memory + BESIDES),
    ):
        with contextlib.suppress(ValueError, OSError):  # the parent's own limit is lower
            resource.setrlimit(limit, (value, value))
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)


def serve(channel: Channel) -> None:
    """Answer queries until the node closes the socket."""
    from warp_select.executing import answer

    while True:
        job = msgspec.msgpack.decode(channel.receive(messages.QUERY), type=Job)
        remote = Asked(channel)
        told = time.monotonic()

        def tell(remote: Asked = remote) -> None:
            nonlocal told
            if time.monotonic() - told >= TELL_S:
                told = time.monotonic()
                _progress(channel, remote)

        try:
            for records in answer(job.query, job.size, job.memory, job.now, remote, tell):
                _progress(channel, remote)
                channel.send(messages.RECORDS, records)
            _progress(channel, remote)
            wrong = None
        except QueryRefused as error:
            wrong = (error.code, str(error)[:2000])
        except MemoryError:
            wrong = ("ExternalEvalException", "the query needs more memory than it may use")
        remote.settle()
        if wrong is None:
            channel.send(messages.DONE)
        else:
            channel.send(messages.REFUSED, msgspec.msgpack.encode(wrong))
        gc.collect()


def _progress(channel: Channel, remote: Remote) -> None:
    counts = (remote.scanned, remote.processed)
    channel.send(messages.PROGRESS, msgspec.msgpack.encode(counts))


def main() -> None:
    """Serve the socket that the first argument names; the second is DuckDB's memory."""
    peer = socket.socket(fileno=int(sys.argv[1]))
    confine(int(sys.argv[2]))
    with contextlib.suppress(Gone):
        serve(Channel(peer))
    os._exit(0)  # nothing is worth an orderly end: there is no state


if __name__ == "__main__":
    main()
