"""How a node joins: a token made by one that is there, and one conversation with it.

A token holds where to ask, the fingerprint of the cluster's authority, and a secret that works once and not for long. The
joining node has no certificate yet, so it asks over TLS that only the other side proves itself on: first for the authority's
certificate, which has to have the token's fingerprint, then, over a connection that is checked against it, to be let in. The
secret is kept hashed, in memory; the port is open while there is a token.

A message is its length (4 bytes, big endian) and a msgpack array; see docs/formats/cluster.md.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import secrets
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec

from warp_core import logs
from warp_core.calls import told, untold
from warp_core.certificates import Identity, fingerprint
from warp_core.errors import (
    AlreadyRunning,
    Busy,
    InvalidArgument,
    Unauthenticated,
    Unavailable,
    WarpError,
)

VERSION = 1
PREFIX = "warp1."
TOKEN_S = 3600.0  # how long a token is good unless its maker says otherwise
TOKENS_MAX = 64  # at once: a person makes them one by one
MESSAGE_MAX = 256 * 1024
CONNECTIONS_MAX = 16
SAY_S = 10.0  # for each message of the other side
ADMIT_S = 60.0  # etcd takes nobody in before its members were connected for some seconds

_log = logs.get("warp_core.cluster")


class Token(msgspec.Struct, array_like=True, frozen=True):
    """What `warp node token` prints, in base64url after PREFIX."""

    version: int
    address: str
    authority: bytes  # SHA-256 of its certificate
    secret: bytes


class Wanted(msgspec.Struct, array_like=True, frozen=True):
    """What a node says that wants to join."""

    version: int
    secret: bytes
    name: str
    request: bytes  # certificate request, PEM
    address: str  # HOST:PORT where other nodes reach it
    metadata: str  # HOST:PORT where the engine's other members reach its own; "": it will run none
    stores: bool  # it keeps volumes; a witness does not


class WantedMount(msgspec.Struct, array_like=True, frozen=True):
    """What a client says that wants to mount a volume."""

    version: int
    secret: bytes
    name: str  # what it calls itself: its host name
    request: bytes  # certificate request, PEM


class Partner(msgspec.Struct, array_like=True, frozen=True):
    """A node that keeps copies for the one that joins."""

    node: str
    address: str
    transport: str
    export: str  # under which it offers the joining node room
    wants: str  # under which it expects room there in return; "": it has a partner already


class Handed(msgspec.Struct, array_like=True, frozen=True):
    """What a node is given that joins and keeps volumes; paths begin at its data folder."""

    files: dict[str, bytes] = {}
    tables: dict[str, dict[str, str]] = {}  # of the configuration: option → one of the files
    elsewhere: tuple[
        str, ...
    ] = ()  # files that lie outside of the data folder, and were not handed over


class Welcome(msgspec.Struct, array_like=True, frozen=True):
    """What a node gets that was let in."""

    certificate: bytes  # PEM
    authority: bytes  # PEM
    root: tuple[str, str]  # access key and secret
    engine: str
    metadata: dict[str, Any]  # the engine's options
    cluster: dict[str, Any]  # `[cluster]`
    partner: Partner | None = None
    handed: Handed = Handed()


class _Answer(msgspec.Struct, array_like=True, frozen=True):
    error: str = ""
    text: str = ""
    value: msgspec.Raw = msgspec.Raw(b"\xc0")


@dataclass(frozen=True, slots=True)
class Talk:
    """What a conversation is about: who is let in, and how."""

    verb: str
    wanted: type[Wanted | WantedMount]  # what is said by who wants in
    prefix: str  # of tokens
    command: str  # that makes them, for messages


NODES = Talk("join", Wanted, PREFIX, "warp node token")


def write(token: Token, talk: Talk = NODES) -> str:
    """Return a token as people copy it."""
    packed = base64.urlsafe_b64encode(msgspec.msgpack.encode(token))
    return talk.prefix + packed.decode().rstrip("=")


def read(text: str, talk: Talk = NODES) -> Token:
    """Return the token that somebody copied.

    Raises:
        InvalidArgument: It is none.
    """
    text = text.strip()
    body = text.removeprefix(talk.prefix)
    try:
        if body == text:
            raise ValueError
        packed = base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))
        token = msgspec.msgpack.decode(packed, type=Token)
    except (ValueError, msgspec.DecodeError, UnicodeError):
        raise InvalidArgument(
            f"that is no token: copy all of what `{talk.command}` printed"
        ) from None
    if token.version != VERSION or len(token.authority) != 32:
        raise InvalidArgument(f"a token of version {token.version}, this release knows {VERSION}")
    return token


Admit = Callable[[Any], Awaitable[Any]]  # what the talk's `wanted` is → the answer, a struct
A = TypeVar("A")


@dataclass(frozen=True, slots=True)
class _Good:
    """A token that was not used yet."""

    digest: bytes
    until_s: float


class Admission:
    """The side that is there. Use it as a context manager; it listens while there are tokens."""

    def __init__(
        self,
        host: str,
        identity: Identity,
        admit: Admit,
        *,
        monotonic: Callable[[], float],
        talk: Talk = NODES,
    ) -> None:
        """Take where to listen, this node's certificate, and what lets somebody in."""
        self._talk = talk
        self._host = host
        self._identity = identity
        self._admit = admit
        self._now = monotonic
        self._good: list[_Good] = []
        self._server: asyncio.Server | None = None
        self._closing: asyncio.TimerHandle | None = None
        self._connections = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._good.clear()
        self._close()

    async def token(self, *, ttl_s: float = TOKEN_S) -> str:
        """Make a token that lets one node in.

        Raises:
            Busy: TOKENS_MAX.
            AlreadyRunning: The address cannot be listened at.
        """
        self._forget_old()
        if len(self._good) >= TOKENS_MAX:
            raise Busy(f"{TOKENS_MAX} tokens wait to be used")
        if self._server is None:
            self._server = await self._listening()
        port = self._server.sockets[0].getsockname()[1]
        host = f"[{self._host}]" if ":" in self._host else self._host
        secret = secrets.token_bytes(16)
        self._good.append(_Good(_digest(secret), self._now() + ttl_s))
        self._schedule()
        authority = fingerprint(self._identity.authority.read_bytes())
        return write(Token(VERSION, f"{host}:{port}", authority, secret), self._talk)

    async def _listening(self) -> asyncio.Server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(self._identity.certificate, self._identity.key)
        try:
            return await asyncio.start_server(self._serve, self._host, 0, ssl=context)
        except OSError as error:
            raise AlreadyRunning(
                f"{self._host} cannot be listened at ({error.strerror}): [peers] listen names the address"
            ) from error

    def _forget_old(self) -> None:
        now = self._now()
        self._good = [each for each in self._good if each.until_s > now]

    def _schedule(self) -> None:
        """Close the port when the last token is over."""
        if self._closing is not None:
            self._closing.cancel()
            self._closing = None
        if not self._good:
            self._close()
            return
        left = max(each.until_s for each in self._good) - self._now()
        self._closing = asyncio.get_running_loop().call_later(max(left, 0.0) + 0.01, self._expire)

    def _expire(self) -> None:
        self._forget_old()
        self._schedule()

    def _close(self) -> None:
        if self._closing is not None:
            self._closing.cancel()
            self._closing = None
        if self._server is not None:
            self._server.close()
            self._server = None

    # Conversations --------------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._connections >= CONNECTIONS_MAX:
            writer.close()
            return
        self._connections += 1
        try:
            async with asyncio.timeout(SAY_S):
                asked = await _received(reader)
            try:
                answer = _Answer(value=msgspec.Raw(msgspec.msgpack.encode(await self._do(asked))))
            except WarpError as error:
                name, text, _ = told(error)
                answer = _Answer(name, text)
            except Exception as error:
                _log.exception("somebody was not let in", error)
                answer = _Answer("StoreFailed", f"{type(error).__name__}: {error}"[:1000])
            writer.write(_framed(answer))
            async with asyncio.timeout(SAY_S):
                await writer.drain()
        except (TimeoutError, OSError, InvalidArgument) as error:
            _log.info("a conversation about joining ended", reason=str(error) or "time is over")
        finally:
            self._connections -= 1
            writer.close()

    async def _do(self, asked: bytes) -> object:
        talk = self._talk
        try:
            kind, *rest = msgspec.msgpack.decode(asked, type=list[msgspec.Raw])
            verb = msgspec.msgpack.decode(kind, type=str)
            if verb == "authority" and not rest:
                return self._identity.authority.read_bytes()
            if verb != talk.verb or len(rest) != 1:
                raise InvalidArgument(f"neither `authority` nor `{talk.verb}`")
            wanted: Any = msgspec.msgpack.decode(rest[0], type=talk.wanted)
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
            raise InvalidArgument(f"a message that cannot be read: {error}") from None
        good = self._matching(wanted.secret)
        if good is None:
            _log.warning("somebody with no good token is refused", name=wanted.name[:64])
            raise Unauthenticated(
                f"the token was used already, or its time is over: make a new one with `{talk.command}`"
            )
        self._good.remove(good)  # nobody else gets in with it meanwhile
        try:
            welcome = await self._admit(wanted)
        except BaseException:
            self._good.append(good)  # what was wrong may be put right
            raise
        finally:
            # The port stays open until this answer is on its way.
            asyncio.get_running_loop().call_later(1.0, self._expire)
        _log.info("let in", verb=talk.verb, name=wanted.name)
        return welcome

    def _matching(self, secret: bytes) -> _Good | None:
        self._forget_old()
        digest = _digest(secret)
        found = [each for each in self._good if hmac.compare_digest(each.digest, digest)]
        return found[0] if found else None


async def ask(token: Token, wanted: Wanted) -> Welcome:
    """Ask to be let into the cluster; raises as `asked`."""
    return await asked(token, NODES, wanted, Welcome)


async def asked(token: Token, talk: Talk, wanted: msgspec.Struct, answers: type[A]) -> A:
    """Ask to be let in, and return the answer.

    Raises:
        Unavailable: Nobody answers at the token's address.
        Unauthenticated: Whoever answers does not belong to those who made the token, or refuses it.
        WarpError: Why the asking one is not let in.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # the answer is checked against the token
    authority = msgspec.msgpack.decode(
        await _asked(token.address, context, ["authority"], SAY_S), type=bytes
    )
    try:
        known = hmac.compare_digest(fingerprint(authority), token.authority)
    except InvalidArgument:
        known = False
    if not known:
        raise Unauthenticated(
            f"{token.address} does not belong to those who made the token: nothing was told to it"
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # nodes are known by their authority, not by host names
    context.load_verify_locations(cadata=authority.decode("ascii", "replace"))
    answer = await _asked(token.address, context, [talk.verb, wanted], ADMIT_S)
    try:
        return msgspec.msgpack.decode(answer, type=answers)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Unavailable(f"{token.address}: an answer that cannot be read: {error}") from error


async def _asked(address: str, context: ssl.SSLContext, message: object, wait_s: float) -> bytes:
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(SAY_S):
            reader, writer = await asyncio.open_connection(
                host.strip("[]"), int(port), ssl=context, server_hostname=""
            )
    except ssl.SSLCertVerificationError as error:
        raise Unauthenticated(f"{address}: {error.verify_message}") from error
    except (OSError, TimeoutError, ValueError) as error:
        raise Unavailable(
            f"nobody answers at {address}: does the node that made the token still run? ({error})"
        ) from error
    try:
        writer.write(_framed(message))
        async with asyncio.timeout(wait_s):
            await writer.drain()
            answer = msgspec.msgpack.decode(await _received(reader), type=_Answer)
    except (OSError, TimeoutError, InvalidArgument, msgspec.DecodeError) as error:
        raise Unavailable(f"{address}: no answer that can be read: {error}") from error
    finally:
        writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(1.0):
                await writer.wait_closed()
    if answer.error:
        raise untold(answer.error, answer.text, {})
    return bytes(answer.value)


def _digest(secret: bytes) -> bytes:
    return hashlib.sha256(b"warp node token" + secret).digest()


def _framed(message: object) -> bytes:
    packed = msgspec.msgpack.encode(message)
    return len(packed).to_bytes(4, "big") + packed


async def _received(reader: asyncio.StreamReader) -> bytes:
    try:
        length = int.from_bytes(await reader.readexactly(4), "big")
        if length > MESSAGE_MAX:
            raise InvalidArgument(f"a message of {length} bytes > {MESSAGE_MAX}")
        return await reader.readexactly(length)
    except asyncio.IncompleteReadError as error:
        raise InvalidArgument("the connection ended within a message") from error
