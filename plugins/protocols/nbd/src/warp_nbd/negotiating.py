"""Answers options until an export is chosen.

```
 greeting ─▶ flags ─▶ [STARTTLS] ─▶ STRUCTURED_REPLY, SET_META_CONTEXT, LIST, INFO … ─▶ GO or EXPORT_NAME ─▶ transmission
                                                                                     └▶ ABORT, or hanging up
```
"""

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol

from warp_core import logs
from warp_core.errors import RemoteProtocolError, WarpError
from warp_core.views.blocks import Disk

from warp_nbd import wire
from warp_nbd.errors import reply_of
from warp_nbd.exports import Export, Exports
from warp_nbd.session import Asked, Negotiation
from warp_nbd.wire import Handshake, Info, Option, Reply

CONTEXT: Final = 1
"""The number of `base:allocation`, the only metadata context there is."""

_CONTEXTS: Final = ("", "base:", wire.BASE_ALLOCATION)  # queries that find it in a list

_log = logs.get("warp_nbd")


class Chosen(NamedTuple):
    """What a client is going to use, and how replies to it look."""

    export: Export
    disk: Disk
    structured: bool
    status: bool  # block status was negotiated


class Line(Protocol):
    """The connection, as negotiation needs it."""

    peer: str
    secure: bool

    def send(self, data: bytes) -> None:
        """Queue bytes for the client."""

    async def drained(self) -> None:
        """Wait until the client has taken most of what was queued."""

    async def more(self) -> None:
        """Wait for bytes."""

    async def start_tls(self) -> None:
        """Go on inside TLS, once the client begins it."""


class Negotiator:
    """One client's negotiation."""

    def __init__(
        self,
        line: Line,
        session: Negotiation,
        exports: Exports,
        *,
        tls: bool,
        leaving: Callable[[], bool],
    ) -> None:
        """Begin.

        Args:
            tls: TLS can be had, and so must be.
            leaving: Tells whether the server is about to end.
        """
        self._line = line
        self._session = session
        self._exports = exports
        self._tls = tls
        self._leaving = leaving
        self._structured = False
        self._shut = False
        self._context_of: str | None = None  # the export whose block status was asked for

    async def run(self) -> Chosen | None:
        """Answer options; None if the client wants no export.

        Raises:
            RemoteProtocolError: It broke the protocol, or asked for what cannot be refused but by hanging up.
        """
        self._line.send(wire.greeting())
        while True:
            asked = self._session.next()
            if asked is None:
                if self._leaving() and not self._session.begun:
                    return None
                await self._line.more()
                continue
            if asked.option == Option.EXPORT_NAME:
                return await self._export_name(asked)
            assert self._session.flags is not None
            if not self._session.flags & Handshake.FIXED_NEWSTYLE:
                raise RemoteProtocolError(
                    f"option {asked.option} of a client without fixed newstyle"
                )
            if asked.option == Option.ABORT:
                self._ack(asked)
                return None
            chosen = await self._answered(asked)
            if chosen is not None:
                return chosen
            await self._line.drained()

    async def _answered(self, asked: Asked) -> Chosen | None:
        """Answer an option that may be refused."""
        if self._leaving():
            if self._shut:
                self._reply(asked, Reply.ERR_SHUTDOWN, b"the server is about to end")
                return None
            self._shut = True  # this one was on its way
        if self._tls and not self._line.secure and asked.option != Option.STARTTLS:
            self._reply(asked, Reply.ERR_TLS_REQD, b"start TLS first")
            return None
        handler = _HANDLERS.get(asked.option)
        if handler is None:
            self._reply(asked, Reply.ERR_UNSUP, b"unknown option")
            return None
        if asked.data is None:
            self._reply(asked, Reply.ERR_TOO_BIG, b"longer than %d bytes" % wire.OPTION_MAX)
            return None
        try:
            return await handler(self, asked, asked.data)
        except WarpError as error:
            self._reply(asked, reply_of(error), str(error).encode()[: wire.NAME_MAX])
            return None

    # Options --------------------------------------------------------------------------------------

    async def _export_name(self, asked: Asked) -> Chosen:
        """Open the export or hang up: this option knows no error."""
        if self._tls and not self._line.secure:
            raise RemoteProtocolError("an export was asked for before TLS")
        if asked.data is None:
            raise RemoteProtocolError("the name of an export is too long")
        name = wire.unpack_name(asked.data)
        try:
            chosen = await self._open(name)
        except WarpError as error:
            raise RemoteProtocolError(f"export {name!r}: {error}") from error
        assert self._session.flags is not None
        zeroes = not self._session.flags & Handshake.NO_ZEROES
        self._line.send(wire.pack_export(chosen.export.size, chosen.export.flags, zeroes=zeroes))
        return chosen

    async def _go(self, asked: Asked, data: bytes) -> Chosen:
        wanted = wire.unpack_info_request(data)
        chosen = await self._open(wanted.name)
        self._tell(asked, chosen.export, wanted.infos)
        self._ack(asked)
        return chosen

    async def _info(self, asked: Asked, data: bytes) -> None:
        wanted = wire.unpack_info_request(data)
        _, export = await self._exports.describe(wanted.name)
        self._tell(asked, export, wanted.infos)
        self._ack(asked)

    async def _list(self, asked: Asked, data: bytes) -> None:
        _nothing(data)
        for name in await self._exports.names():
            self._reply(asked, Reply.SERVER, wire.pack_server(name))
        self._ack(asked)

    async def _start_tls(self, asked: Asked, data: bytes) -> None:
        _nothing(data)
        if self._line.secure:
            raise RemoteProtocolError("TLS was started already")
        if not self._tls:
            self._reply(asked, Reply.ERR_POLICY, b"this server has no certificate")
            return
        if (
            self._session.begun
        ):  # in the clear, before TLS: whoever put it there may not be the client
            raise RemoteProtocolError("bytes between STARTTLS and its answer")
        self._structured = False
        self._context_of = None
        self._ack(asked)
        await self._line.start_tls()

    async def _structured_reply(self, asked: Asked, data: bytes) -> None:
        _nothing(data)
        self._structured = True
        self._ack(asked)

    async def _list_contexts(self, asked: Asked, data: bytes) -> None:
        wanted = self._contexts_wanted(data)
        await self._exports.describe(wanted.name)
        if not wanted.queries or any(query in _CONTEXTS[1:] for query in wanted.queries):
            self._reply(asked, Reply.META_CONTEXT, wire.pack_context(0, wire.BASE_ALLOCATION))
        self._ack(asked)

    async def _set_contexts(self, asked: Asked, data: bytes) -> None:
        self._context_of = None  # also if this one fails
        wanted = self._contexts_wanted(data)
        await self._exports.describe(wanted.name)
        if wire.BASE_ALLOCATION in wanted.queries:
            self._context_of = wanted.name
            self._reply(asked, Reply.META_CONTEXT, wire.pack_context(CONTEXT, wire.BASE_ALLOCATION))
        self._ack(asked)

    def _contexts_wanted(self, data: bytes) -> wire.WantsContexts:
        if not self._structured:
            raise RemoteProtocolError("metadata contexts need structured replies first")
        return wire.unpack_context_request(data)

    # ----------------------------------------------------------------------------------------------

    async def _open(self, name: str) -> Chosen:
        export, disk = await self._exports.open(name, self._line.peer)
        _log.info("export opened", export=export.name, peer=self._line.peer)
        status = self._structured and self._context_of == name
        return Chosen(export, disk, self._structured, status)

    def _tell(self, asked: Asked, export: Export, infos: tuple[int, ...]) -> None:
        self._reply(asked, Reply.INFO, wire.pack_info_export(export.size, export.flags))
        if Info.NAME in infos:
            self._reply(asked, Reply.INFO, wire.pack_info_text(Info.NAME, export.name))
        if Info.DESCRIPTION in infos:
            self._reply(
                asked, Reply.INFO, wire.pack_info_text(Info.DESCRIPTION, export.description)
            )
        if Info.BLOCK_SIZE in infos:
            self._reply(asked, Reply.INFO, wire.pack_info_block_size())

    def _ack(self, asked: Asked) -> None:
        self._reply(asked, Reply.ACK)

    def _reply(self, asked: Asked, reply: Reply, data: bytes = b"") -> None:
        self._line.send(wire.pack_option_reply(asked.option, reply, data))


def _nothing(data: bytes) -> None:
    if data:
        raise RemoteProtocolError(f"{len(data)} bytes of data where none belong")


_Handler = Callable[[Negotiator, Asked, bytes], Awaitable[Chosen | None]]

_HANDLERS: Final[Mapping[int, _Handler]] = MappingProxyType(
    {
        Option.LIST: Negotiator._list,
        Option.STARTTLS: Negotiator._start_tls,
        Option.INFO: Negotiator._info,
        Option.GO: Negotiator._go,
        Option.STRUCTURED_REPLY: Negotiator._structured_reply,
        Option.LIST_META_CONTEXT: Negotiator._list_contexts,
        Option.SET_META_CONTEXT: Negotiator._set_contexts,
    }
)
