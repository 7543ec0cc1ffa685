"""The transport: dialing and accepting links."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from warp_core import logs
from warp_core.certificates import Identity
from warp_core.contexts import TransportContext
from warp_core.errors import (
    AlreadyRunning,
    InvalidArgument,
    TimedOut,
    Unauthenticated,
    Unavailable,
    WarpError,
)
from warp_core.interfaces.transports import Link, Listener, Transport, TransportCapabilities

from warp_tcp.config import Config
from warp_tcp.link import TLS_STEP, TcpLink
from warp_tcp.tls import Cipher, contexts, peer_name

HANDSHAKE_S = 10.0  # for an accepted connection to prove who it is
HANDSHAKES_MAX = (
    128  # of accepted connections at once: each may cost a millisecond of CPU and some 50 KiB
)
BACKLOG = 256
ACCEPT_BURST = 32  # connections accepted before the loop sees to others
ACCEPT_PAUSE_S = 0.5  # without descriptors, accepting waits for some to be closed
KEEPALIVE_S = 15  # of silence, then a probe every 5 s; a dead host is found in about 30 s
KEEPALIVE_PROBES = 3

Serve = Callable[[Link], Awaitable[None]]
Contexts = tuple[ssl.SSLContext, ssl.SSLContext]
Place = tuple[str, int]  # numeric host, port

log = logs.get("warp_tcp")


class Tcp(Transport):
    """Links over TCP, with mutual TLS unless the configuration says `plaintext`."""

    def __init__(self, config: Config, context: TransportContext) -> None:
        self.capabilities = TransportCapabilities(
            authenticated=not config.plaintext, encrypted=not config.plaintext
        )
        self._config = config
        self._node = context.node
        self._identity = Identity(
            context.data / config.authority,
            context.data / config.certificate,
            context.data / config.key,
        )
        self._contexts: Contexts | None = None
        self._staging = memoryview(bytearray(TLS_STEP if not config.plaintext else 0))
        self._links: set[TcpLink] = set()
        self._listeners: set[TcpListener] = set()
        metrics = context.metrics
        self._opened = metrics.counters(
            "warp_tcp_links_total", "Links opened", labels=("side", "outcome")
        )
        metrics.gauge("warp_tcp_links", "Links open", lambda: float(len(self._links)))

    async def __aenter__(self) -> Self:
        """Load certificate and key.

        Raises:
            ConfigError: They are missing, unusable, or of another node.
        """
        if not self._config.plaintext:
            self._contexts = contexts(self._identity, node=self._node)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close every listener and link."""
        for listener in list(self._listeners):
            await listener.close()
        for link in list(self._links):
            link.end()

    async def dial(self, address: str, *, peer: str = "", timeout_s: float = 5.0) -> Link:
        """Open a link to `HOST:PORT`; see `Transport`."""
        if peer and self._contexts is None:
            raise Unauthenticated(f'a plaintext link cannot prove that the other side is "{peer}"')
        try:
            async with asyncio.timeout(timeout_s):
                link = await self._dial(address, peer)
        except TimeoutError as error:
            self._count("dialed", "timed out")
            raise TimedOut(f"{address} did not answer within {timeout_s:g} s") from error
        except WarpError:
            self._count("dialed", "failed")
            raise
        self._count("dialed", "opened")
        return link

    async def listen(self, address: str, serve: Serve) -> Listener:
        """Accept links at `HOST:PORT`, port 0 for any; see `Transport`."""
        host, port = split_address(address)
        found = await _resolve(host, port, passive=True)
        family, place = found[0]
        if self._config.plaintext and not _loopback(place[0]):
            raise InvalidArgument(f"plaintext links are for loopback addresses, {address} is none")
        endpoint = socket.socket(family, socket.SOCK_STREAM)
        try:
            endpoint.setblocking(False)
            endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._tune(endpoint)  # accepted connections inherit it
            endpoint.bind(place)
            endpoint.listen(BACKLOG)
        except OSError as error:
            endpoint.close()
            if error.errno == errno.EADDRINUSE:
                raise AlreadyRunning(
                    f"{address} is taken by another process: stop it, or choose another port"
                ) from error
            raise Unavailable(f"cannot listen at {address}: {error.strerror}") from error
        listener = TcpListener(self, endpoint, host, serve, self._config.links)
        self._listeners.add(listener)
        return listener

    async def accepted(self, endpoint: socket.socket) -> TcpLink:
        """Make a link of an accepted connection once it proved who it is."""
        try:
            async with asyncio.timeout(HANDSHAKE_S):
                return await self._establish(endpoint, server=True, wanted="")
        except TimeoutError as error:
            raise TimedOut(f"no handshake within {HANDSHAKE_S:g} s") from error

    def forget(self, listener: TcpListener) -> None:
        """Drop a closed listener."""
        self._listeners.discard(listener)

    async def _dial(self, address: str, peer: str) -> Link:
        host, port = split_address(address)
        failure: OSError | None = None
        for family, place in await _resolve(host, port, passive=False):
            if self._config.plaintext and not _loopback(place[0]):
                raise InvalidArgument(
                    f"plaintext links are for loopback addresses, {address} is none"
                )
            endpoint = socket.socket(family, socket.SOCK_STREAM)
            try:
                endpoint.setblocking(False)
                self._tune(endpoint)
                await asyncio.get_running_loop().sock_connect(endpoint, place)
            except OSError as error:
                endpoint.close()
                failure = error
                continue
            except BaseException:
                endpoint.close()
                raise
            return await self._establish(endpoint, server=False, wanted=peer)
        raise Unavailable(f"nobody answers at {address}: {failure and failure.strerror}")

    async def _establish(self, endpoint: socket.socket, *, server: bool, wanted: str) -> TcpLink:
        """Prove both names, exchange hellos; the socket is closed if that fails."""
        name, cipher = "", None
        try:
            if self._contexts is not None:
                cipher = Cipher(self._contexts[0 if server else 1], server=server)
                await _handshake(endpoint, cipher)
                name = peer_name(cipher.tls)
                if wanted and name != wanted:
                    raise Unauthenticated(f'the other side is node "{name}", not "{wanted}"')
        except ssl.SSLError as error:
            endpoint.close()
            reason = getattr(error, "verify_message", "") or error.reason or str(error)
            raise Unauthenticated(f"TLS handshake failed: {reason}") from error
        except OSError as error:
            endpoint.close()
            raise Unavailable(f"the link ended in its handshake: {error}") from error
        except BaseException:
            endpoint.close()
            raise
        link = TcpLink(
            endpoint,
            cipher=cipher,
            staging=self._staging,
            peer=name,
            stall_s=self._config.stall,
            ended=self._links.discard,
        )
        self._links.add(link)
        try:
            await link.greet()
        except BaseException:
            link.end()
            raise
        return link

    def _tune(self, endpoint: socket.socket) -> None:
        endpoint.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (
            ("TCP_KEEPIDLE", KEEPALIVE_S),
            ("TCP_KEEPINTVL", 5),
            ("TCP_KEEPCNT", KEEPALIVE_PROBES),
        ):
            if hasattr(socket, option):
                endpoint.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
        if self._config.congestion and hasattr(socket, "TCP_CONGESTION"):
            with contextlib.suppress(OSError):  # a kernel without it keeps its default
                name = self._config.congestion.encode()
                endpoint.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, name)

    def _count(self, side: str, outcome: str) -> None:
        self._opened.labels(side, outcome).value += 1

    def count_accepted(self, outcome: str) -> None:
        """Count what became of an accepted connection."""
        self._count("accepted", outcome)


class TcpListener(Listener):
    """A listening socket and the links that it accepted."""

    def __init__(
        self, owner: Tcp, endpoint: socket.socket, host: str, serve: Serve, links_max: int
    ) -> None:
        self.address = f"{f'[{host}]' if ':' in host else host}:{endpoint.getsockname()[1]}"
        self._owner = owner
        self._socket = endpoint
        self._serve = serve
        self._links_max = links_max
        self._tasks: set[asyncio.Task[None]] = set()
        self._handshakes = 0
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        self._loop.add_reader(endpoint.fileno(), self._accept)

    async def close(self) -> None:
        """Stop accepting, end accepted links and wait for what serves them."""
        if self._pause is not None:
            self._pause.cancel()
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
            self._owner.forget(self)
        tasks = self._tasks - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _accept(self) -> None:
        for _ in range(ACCEPT_BURST):
            try:
                endpoint, place = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionError):
                return
            except OSError as error:
                log.warning("accepting waits", address=self.address, reason=error.strerror)
                self._loop.remove_reader(self._socket.fileno())
                self._pause = self._loop.call_later(ACCEPT_PAUSE_S, self._go_on)
                return
            if self._handshakes >= HANDSHAKES_MAX or len(self._tasks) >= self._links_max:
                endpoint.close()
                self._owner.count_accepted("too many")
                continue
            endpoint.setblocking(False)
            task = self._loop.create_task(self._run(endpoint, f"{place[0]}:{place[1]}"))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _go_on(self) -> None:
        self._pause = None
        self._loop.add_reader(self._socket.fileno(), self._accept)

    async def _run(self, endpoint: socket.socket, place: str) -> None:
        """Establish one link, serve it, close it."""
        self._handshakes += 1
        try:
            link = await self._owner.accepted(endpoint)
        except WarpError as error:
            self._owner.count_accepted("refused")
            log.warning("connection refused", address=self.address, source=place, reason=str(error))
            return
        finally:
            self._handshakes -= 1
        self._owner.count_accepted("opened")
        try:
            await self._serve(link)
        except WarpError as error:
            log.info("link ended", peer=link.peer, source=place, reason=str(error))
        except Exception as error:
            log.exception("serving a link failed", error, peer=link.peer, source=place)
        finally:
            link.end()


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of `HOST:PORT` or `[IPV6]:PORT`.

    Raises:
        InvalidArgument: It is written in another way.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65_535:
        raise InvalidArgument(f'address "{address}" is no "HOST:PORT" or "[IPV6]:PORT"')
    return host.removeprefix("[").removesuffix("]"), int(port)


async def _resolve(host: str, port: int, *, passive: bool) -> list[tuple[int, Place]]:
    flags = socket.AI_PASSIVE if passive else 0
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=flags
        )
    except OSError as error:
        raise Unavailable(f'no address is known for "{host}": {error.strerror}') from error
    return [(int(family), (str(place[0]), int(place[1]))) for family, _, _, _, place in found]


def _loopback(host: str) -> bool:
    return ipaddress.ip_address(host.partition("%")[0]).is_loopback


async def _handshake(endpoint: socket.socket, cipher: Cipher) -> None:
    loop = asyncio.get_running_loop()
    try:
        while not cipher.handshake():
            await loop.sock_sendall(endpoint, cipher.sealed())
            arrived = await loop.sock_recv(endpoint, 16 * 1024)
            if not arrived:
                raise ConnectionResetError("the other side hung up")
            cipher.feed(arrived)
    finally:
        with contextlib.suppress(OSError):  # the last flight, or the alert that says why not
            endpoint.send(cipher.sealed())
