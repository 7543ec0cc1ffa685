"""Bytes to events and back, without I/O: what the protocol says, in which order."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct


class Request(Struct, frozen=True):
    """One request, complete."""

    command: bytes


class Session:
    """One connection: eats bytes, gives requests; takes results, gives bytes."""

    def receive(self, data: bytes) -> Iterator[Request]:
        """Feed bytes from the peer; yield each request that they complete.

        Raises:
            RemoteProtocolError: The peer broke the protocol; the connection cannot continue.
        """
        raise NotImplementedError

    def answer(self, request: Request) -> bytes:
        """Return the bytes that answer a request."""
        raise NotImplementedError
