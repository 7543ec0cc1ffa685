"""Bytes of one SFTP session → its messages.

    receive(bytes) ──▶ views of whole messages, without their lengths

A message that lies whole in what was received is not copied; one that comes in parts is gathered in a buffer of its own size.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from warp_core.errors import RemoteProtocolError

from warp_sftp.wire import MESSAGE_MAX

_HEAD: Final = 4


class Session:
    """The framing of one session. A session that failed stays failed."""

    __slots__ = ("_body", "_failed", "_filled", "_head")

    def __init__(self) -> None:
        self._head = b""  # of the length of a message that comes in parts
        self._body: bytearray | None = None
        self._filled = 0
        self._failed = False

    def receive(self, data: bytes | memoryview) -> Iterator[memoryview]:
        """Feed bytes that stay as they are; yield each message they complete.

        Raises:
            RemoteProtocolError: A length that no message has; the session cannot continue.
        """
        if self._failed:
            raise RemoteProtocolError("the session failed before")
        view = memoryview(data)
        at, end = 0, len(view)
        while at < end:
            if self._body is None:
                need = _HEAD - len(self._head)
                if end - at < need:
                    self._head += bytes(view[at:])
                    return
                if self._head:
                    length = int.from_bytes(self._head + bytes(view[at : at + need]), "big")
                    self._head = b""
                else:
                    length = int.from_bytes(view[at : at + _HEAD], "big")
                at += need
                if not 1 <= length <= MESSAGE_MAX:
                    self._failed = True
                    raise RemoteProtocolError(
                        f"message of {length} bytes, allowed 1 to {MESSAGE_MAX}"
                    )
                if end - at >= length:
                    yield view[at : at + length]
                    at += length
                    continue
                self._body, self._filled = bytearray(length), 0
            body = self._body
            part = min(len(body) - self._filled, end - at)
            body[self._filled : self._filled + part] = view[at : at + part]
            self._filled += part
            at += part
            if self._filled == len(body):
                self._body = None
                yield memoryview(body)

    @property
    def between_messages(self) -> bool:
        """Say whether nothing of a message is missing."""
        return self._body is None and not self._head
