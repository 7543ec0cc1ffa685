"""One connection: asyncssh's, with its own way for bulk data.

asyncssh exchanges keys, authenticates and keeps channels. What it does with each packet is made for terminals: it opens and seals
them one by one, copies each several times, sends an empty one in front of each, and writes each to the socket. With AES-GCM, packets
of data are opened and sealed here instead, as many as there are, straight between buffers; everything else goes through asyncssh's
methods, which get their packets as if they had opened them. Other ciphers take asyncssh's way throughout.

These are internals of asyncssh (`_recv_data`, `send_newkeys`, `_send_kexinit`, ...), so its version is held to a minor one.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

import asyncssh
from asyncssh.connection import SSHServerConnection
from asyncssh.constants import MSG_IGNORE, MSG_KEXINIT
from asyncssh.encryption import GCMEncryption
from asyncssh.packet import SSHPacket
from asyncssh.public_key import SSHOpenSSHCertificate
from warp_core.interfaces.stores import Buffer

from warp_sftp.ciphers import CHANNEL_DATA, HEAD, OVERHEAD, TAG, Opener, Sealer, preferred

if TYPE_CHECKING:
    from warp_sftp.channel import FileChannel
    from warp_sftp.logins import Login

OUT_SIZE: Final = 288 * 1024
"""Bytes that go to the socket at once: eight packets of 32 KiB and what is around them."""

CLOGGED: Final = 1 << 20
"""Bytes that may wait for the socket before channels wait as well."""

HELD_MAX: Final = 1 << 20
"""Bytes that may wait while a packet before them takes its time; then the socket is left alone."""

WAITED_S: Final = 0.3
"""How long a client is waited for to say first which ciphers it knows; nearly all do so at once."""


class Connection(SSHServerConnection):
    """One client.

    Attributes:
        login: Who it is, and what it may.
        heard_s: When it last sent anything, by the monotonic clock.
        peer: Its address, for logs.
    """

    login: Login

    def __init__(
        self, loop: asyncio.AbstractEventLoop, options: asyncssh.SSHServerConnectionOptions
    ) -> None:
        """Take the options that all connections share."""
        super().__init__(loop, options)
        self._sealer: Sealer | None = None
        self._opener: Opener | None = None
        self._next_opener: Opener | None = None
        self._out = bytearray(0)
        self._clogged = False
        self._held = False
        self._first_kexinit: asyncio.TimerHandle | None = None
        self._kexinit_waits = False
        self.heard_s = time.monotonic()
        self.received = 0
        self.peer = ""

    # What the transport calls ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; see `asyncio.Protocol`."""
        assert isinstance(transport, asyncio.Transport)
        transport.set_write_buffer_limits(high=CLOGGED)
        name = transport.get_extra_info("peername")
        self.peer = f"{name[0]}:{name[1]}" if name and isinstance(name, tuple) else "local"
        super().connection_made(transport)

    def data_received(self, data: bytes, datatype: Any = None) -> None:
        """Take bytes."""
        self.heard_s = time.monotonic()
        self.received += len(data)
        self._inpbuf = self._inpbuf + data if self._inpbuf else data
        self._recv_data()
        if len(self._inpbuf) > HELD_MAX and self._transport and not self._held:
            self._held = True
            self._transport.pause_reading()

    def pause_writing(self) -> None:
        """Let channels wait: the socket takes no more."""
        self._clogged = True

    def resume_writing(self) -> None:
        """Let channels go on."""
        self._clogged = False
        self.pump()

    @property
    def waiting(self) -> int:
        """Bytes that wait for the socket."""
        return self._transport.get_write_buffer_size() if self._transport else 0

    # Keys -----------------------------------------------------------------------------------------

    def _send_kexinit(self) -> None:
        """Name algorithms; the first time, only once the client has (RFC 4253, 7.1 lets both sides begin)."""
        if not self._session_id and not self._kexinit_waits and self._first_kexinit is None:
            self._kexinit_waits = True
            self._first_kexinit = self._loop.call_later(WAITED_S, self._name_algorithms)
            return
        super()._send_kexinit()

    def _name_algorithms(self) -> None:
        if self._kexinit_waits:
            self._kexinit_waits = False
            if self._first_kexinit is not None:
                self._first_kexinit.cancel()
            if self._transport:
                super()._send_kexinit()

    async def _take_kexinit(self, kind: int, number: int, packet: SSHPacket) -> None:
        if self._kexinit_waits:
            said = SSHPacket(packet.get_full_payload())
            said.get_bytes(17)  # type and cookie
            said.get_namelist()
            said.get_namelist()
            to_us, from_us = said.get_namelist(), said.get_namelist()
            self._enc_algs = preferred([each for each in to_us if each in from_us], self._enc_algs)
            self._name_algorithms()
        await super()._process_kexinit(kind, number, packet)

    def send_newkeys(self, k: bytes, h: bytes) -> None:
        """Begin to use new keys, and send what waited for them."""
        self._sealer = None
        super().send_newkeys(k, h)
        if isinstance(self._send_encryption, GCMEncryption) and not self._compressor:
            cipher = self._send_encryption._cipher
            self._sealer = Sealer(cipher._key, cipher._iv)
            self._send_encryption = self._sealer  # type: ignore[assignment]
        self._next_opener = None
        if isinstance(self._next_recv_encryption, GCMEncryption) and not self._next_decompressor:
            cipher = self._next_recv_encryption._cipher
            self._next_opener = Opener(cipher._key, cipher._iv)
            self._next_recv_encryption = self._next_opener  # type: ignore[assignment]
        self.pump()

    # Certificates and signatures ---------------------------------------------------------------------

    async def _validate_openssh_certificate(
        self, username: str, cert: SSHOpenSSHCertificate
    ) -> asyncssh.SSHKey | None:
        if not await self.login.certified(username, cert):
            return None
        return await super()._validate_openssh_certificate(username, cert)

    async def validate_public_key(
        self, username: str, key_data: bytes, msg: bytes, signature: bytes
    ) -> bool:
        """Say whether a key may be used or, with a message, was used for its signature."""
        right = await super().validate_public_key(username, key_data, msg, signature)
        if msg and not right:
            await self.login.signed_wrongly()
        return right

    async def reload_config(self) -> None:
        """Do nothing: there are no files of options to read anew for each user."""

    # Receiving ------------------------------------------------------------------------------------

    def _finish_recv_packet(
        self, kind: int, seq: int, task: Any = None, is_async: bool = False
    ) -> None:
        super()._finish_recv_packet(kind, seq, task, is_async)
        if self._held and len(self._inpbuf) <= HELD_MAX and self._transport:
            self._held = False
            self._transport.resume_reading()

    def _recv_data(self) -> None:
        opener = self._recv_encryption
        if not isinstance(opener, Opener) or self._recv_handler != self._recv_pkthdr:
            super()._recv_data()
            for channel in list(self._channels.values()):
                channel.taken()  # type: ignore[attr-defined]
            return
        try:
            self._receive(opener)
        except asyncssh.DisconnectError as error:
            self._send_disconnect(error.code, error.reason, error.lang)
            self._force_close(error)
        except Exception:
            self.internal_error()

    def _receive(self, opener: Opener) -> None:
        """Open all whole packets: data go to their channels, everything else to asyncssh."""
        data = self._inpbuf
        view = memoryview(data)
        at, end = 0, len(data)
        touched: set[FileChannel] = set()
        while end - at >= 4:
            length = int.from_bytes(view[at : at + 4], "big")
            if length > self._max_recv_pktlen or length < 16:
                raise asyncssh.ProtocolError(f"packet of {length} bytes")
            after = at + 4 + length + TAG
            if after > end:
                break
            plain = opener.open(view[at + 4 : after], view[at : at + 4])
            if plain is None:
                raise asyncssh.MACError("MAC verification failed")
            if plain[1] == CHANNEL_DATA and self._auth_complete:
                channel = self._channels.get(int.from_bytes(plain[2:6], "big"))
                size = int.from_bytes(plain[6:10], "big")
                if channel is not None and HEAD + size + plain[0] == len(plain):
                    self._recv_seq = (self._recv_seq + 1) & 0xFFFF_FFFF
                    self._auth_final = True
                    taking: FileChannel = channel  # type: ignore[assignment]
                    taking.take(memoryview(plain)[HEAD : HEAD + size])
                    touched.add(taking)
                    at = after
                    continue
            # As if nothing had been opened: asyncssh reads this one packet, and gets what is in it.
            for each in touched:
                each.taken()
            touched.clear()
            opener.opened = plain
            self._inpbuf = data[at:after]
            at = after
            super()._recv_data()
            if not self._transport:
                return
            if (
                self._inpbuf
                or self._recv_handler != self._recv_pkthdr
                or not self._opens_with(opener)
            ):
                # It takes its time, or brought new keys: what follows is looked at anew.
                self._inpbuf += data[at:]
                for each in touched:
                    each.taken()
                if self._recv_handler == self._recv_pkthdr:
                    self._recv_data()
                return
        self._inpbuf = data[at:]
        for each in touched:
            each.taken()

    def _opens_with(self, opener: Opener) -> bool:
        now: Any = self._recv_encryption
        return now is opener

    # Sending --------------------------------------------------------------------------------------

    def send_packet(self, pkttype: int, *args: bytes, handler: Any = None) -> None:
        """Send a packet; empty ones that were to hide those of CBC ciphers are left out, as there are none."""
        if pkttype != MSG_IGNORE:
            super().send_packet(pkttype, *args, handler=handler)

    @property
    def may_send(self) -> bool:
        """Say whether channels may send data now."""
        return (
            not self._clogged
            and self._kex_complete
            and self._auth_complete
            and self._transport is not None
        )

    @property
    def bulk(self) -> bool:
        """Say whether `send_data` may be used."""
        return self._sealer is not None

    def send_data(self, channel: int, parts: deque[Buffer], length: int, packet_max: int) -> None:
        """Send the first `length` bytes of `parts`, which loses them, in packets of data."""
        sealer = self._sealer
        assert sealer is not None
        if len(self._out) < OUT_SIZE:
            self._out = bytearray(OUT_SIZE)
        out, at = memoryview(self._out), 0
        left = length
        packet_max = min(packet_max, OUT_SIZE - OVERHEAD)
        while left:
            size = min(left, packet_max)
            if at + size + OVERHEAD > OUT_SIZE:
                out, at = self._put(out, at)
            at = sealer.seal_data(out, at, channel, parts, size)
            self._send_seq = (self._send_seq + 1) & 0xFFFF_FFFF
            left -= size
        self._put(out, at)
        self._rekey_bytes_sent += length
        if self._rekey_bytes_sent >= self._rekey_bytes or (
            self._rekey_seconds and time.monotonic() >= self._rekey_time
        ):
            self._send_kexinit()
            self._kexinit_sent = True

    def _put(self, out: memoryview, at: int) -> tuple[memoryview, int]:
        """Write to the socket; the buffer is used again unless the transport still needs it."""
        if self._transport is not None:
            with contextlib.suppress(ConnectionError):
                self._transport.write(out[:at])
            if self._transport.get_write_buffer_size():
                self._out = bytearray(OUT_SIZE)
                out = memoryview(self._out)
        return out, 0

    def pump(self) -> None:
        """Let channels send what they have."""
        for channel in list(self._channels.values()):
            channel._flush_send_buf()

    _packet_handlers = {  # noqa: RUF012
        **SSHServerConnection._packet_handlers,
        MSG_KEXINIT: _take_kexinit,
    }
