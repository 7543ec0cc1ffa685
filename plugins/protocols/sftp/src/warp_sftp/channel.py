"""The channel of one session: data in as views of packets, data out as parts that nobody joined."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final

import asyncssh
from asyncssh.channel import SSHServerChannel
from asyncssh.constants import MSG_CHANNEL_DATA, MSG_CHANNEL_WINDOW_ADJUST
from asyncssh.packet import SSHPacket, String, UInt32
from warp_core.interfaces.stores import Buffer

from warp_sftp.connection import Connection
from warp_sftp.serving import Serving

WINDOW: Final = 4 << 20
"""Bytes that a client may send without being asked for more: what 64 writes of 64 KiB are."""

PACKET_MAX: Final = 64 * 1024
"""Bytes of data in a packet from a client."""


class FileChannel(SSHServerChannel):  # type: ignore[type-arg]
    """A channel for files."""

    _conn: Connection
    _session: Serving

    def __init__(self, conn: Connection, loop: asyncio.AbstractEventLoop) -> None:
        """Open it for a session; its own options say that it is no terminal."""
        super().__init__(
            conn, loop, False, False, False, 0, 1024, None, "strict", WINDOW, PACKET_MAX
        )
        self._waiting: deque[Buffer] = deque()
        self.waits = 0  # bytes in `_waiting`

    def _process_env_request(self, packet: SSHPacket) -> bool:
        """Refuse variables: nothing here reads them, and they would be kept."""
        return False

    # Receiving ------------------------------------------------------------------------------------

    def take(self, view: memoryview) -> None:
        """Take the data of a packet; the view stays good."""
        size = len(view)
        if self._recv_state != "open":
            raise asyncssh.ProtocolError("Channel not open for sending")
        if size > self._recv_window:
            raise asyncssh.ProtocolError("Window exceeded")
        if not size or self._send_state in ("close_pending", "closed"):
            return
        self._recv_window -= size
        if self._recv_paused:
            self._recv_buf.append((view, None))  # type: ignore[arg-type]
        else:
            self._deliver_data(view, None)  # type: ignore[arg-type]

    def taken(self) -> None:
        """Note that all packets which came at once were taken."""
        if self._session is not None:
            self._session.fed()

    def _deliver_data(self, data: bytes, datatype: int | None) -> None:
        if self._recv_window < self._init_recv_window // 2:
            adjust = self._init_recv_window - self._recv_window
            self.send_packet(MSG_CHANNEL_WINDOW_ADJUST, UInt32(adjust))
            self._recv_window = self._init_recv_window
        if self._session is not None:
            self._session.data_received(data, datatype)

    # Sending --------------------------------------------------------------------------------------

    def send(self, parts: Sequence[Buffer], length: int) -> None:
        """Send parts of `length` bytes in all, as far as the client's window and the socket allow; the rest waits."""
        if self._send_state != "open":
            return
        self._waiting.extend(parts)
        self.waits += length
        self._flush_send_buf()

    def _flush_send_buf(self) -> None:
        conn = self._conn
        if self.waits and conn is not None and self._send_chan is not None:
            while self.waits and self._send_window and conn.may_send:
                size = min(self.waits, self._send_window)
                if conn.bulk:
                    conn.send_data(self._send_chan, self._waiting, size, self._send_pktsize)
                else:
                    size = min(size, self._send_pktsize)
                    self.send_packet(MSG_CHANNEL_DATA, String(_joined(self._waiting, size)))
                self.waits -= size
                self._send_window -= size
            if self._session is not None:
                self._session.sent()
            if self.waits:
                return  # an end that waits to be sent comes behind it
        super()._flush_send_buf()

    def _close_send(self) -> None:
        self._waiting.clear()
        self.waits = 0
        super()._close_send()


def _joined(parts: deque[Buffer], size: int) -> bytes:
    """Take the first `size` bytes of parts."""
    found: list[Buffer] = []
    while size:
        part = parts[0]
        if len(part) <= size:
            parts.popleft()
        else:
            view = memoryview(part)
            parts[0], part = view[size:], view[:size]
        found.append(part)
        size -= len(part)
    return b"".join(found)
