"""Where protocols listen: sockets by their address, TLS by its files, and errors that say what to do.

Unix sockets lie in the node's data and are their owner's alone (mode 0600): who may use them needs no password.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from warp_core.config.types import Address
from warp_core.errors import AlreadyRunning, ConfigError

_SUN_PATH = (
    100  # bytes of a socket address that a path may take, with room for the folder's descriptor
)

_ABSENT = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})


class Listening:
    """An address that is being listened on.

    Attributes:
        path: The Unix socket, None for TCP.
        place: "HOST:PORT" with the port that was bound, "" for a Unix socket.
    """

    def __init__(self, servers: Sequence[asyncio.Server], path: Path | None, place: str) -> None:
        self.path = path
        self.place = place
        self._servers = servers

    def stop(self) -> None:
        """Accept no more; connections that are open stay."""
        for server in self._servers:
            server.close()

    async def closed(self) -> None:
        """Wait until the sockets are closed; a Unix socket's file is removed."""
        for server in self._servers:
            await server.wait_closed()
        if self.path is not None:
            self.path.unlink(missing_ok=True)


async def listen(
    address: Address,
    accept: Callable[[], asyncio.BaseProtocol],
    *,
    key: str,
    data: Path,
    backlog: int,
    tls: ssl.SSLContext | None = None,
    handshake_s: float | None = None,
    goodbye_s: float | None = None,
) -> Listening:
    """Listen on an address.

    Args:
        address: Of TCP, on every address that its host has here, or of a Unix socket, whose path starts at `data`.
        accept: Makes the protocol object of each connection.
        key: Where the address stands in the configuration, for messages.
        data: The node's data folder.
        backlog: Connections that may wait to be accepted.
        tls: TLS from the first byte on; never over a Unix socket.
        handshake_s: How long its handshake may take.
        goodbye_s: How long a closing connection waits for the client to agree.

    Raises:
        AlreadyRunning: The address is taken.
        ConfigError: It is not to be had.
    """
    loop = asyncio.get_running_loop()
    try:
        path = data / address.path if address.path else None
        plugs = [_unix(path)] if path else _tcp(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise AlreadyRunning(
                f"{key}: {address} is taken by another program: stop it, or "
                f"choose another port with --set {key}={address.rpartition(':')[0]}:PORT"
            ) from error
        reason = error.strerror or str(error)
        raise ConfigError(f"{key}: cannot listen on {address}: {reason}") from error
    secured = tls if path is None else None
    servers = [
        await loop.create_server(
            accept,
            sock=plug,
            backlog=backlog,
            ssl=secured,
            ssl_handshake_timeout=handshake_s if secured else None,
            ssl_shutdown_timeout=goodbye_s if secured else None,
        )
        for plug in plugs
    ]
    if path:
        return Listening(servers, path, "")
    host = f"[{address.host}]" if ":" in address.host else address.host
    return Listening(servers, None, f"{host}:{plugs[0].getsockname()[1]}")


def _unix(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)  # of a run that was killed: the data has one node at a time
    plug = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        os.fchmod(plug.fileno(), 0o600)  # before it is bound: Linux makes the file like that
        with reachable(path) as reached:
            plug.bind(reached)
        path.chmod(0o600)
    except BaseException:
        plug.close()
        raise
    return plug


def _tcp(address: Address) -> list[socket.socket]:
    """Return a bound socket for each address of the host; all have the port that the first one got."""
    port = address.port
    plugs: list[socket.socket] = []
    absent: OSError | None = None
    found = socket.getaddrinfo(address.host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    try:
        for family, kind, protocol, _, place in dict.fromkeys(found):
            try:
                plug = socket.socket(family, kind | socket.SOCK_CLOEXEC, protocol)
                plugs.append(plug)
                plug.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    plug.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                plug.bind((place[0], port, *place[2:]))
                port = port or plug.getsockname()[1]
            except OSError as error:
                if error.errno not in _ABSENT:
                    raise
                absent = error  # such as ::1 of localhost, where the system has no IPv6
                if plugs and not _bound(plugs[-1]):
                    plugs.pop().close()
        if not plugs and absent is not None:
            raise absent
    except BaseException:
        for plug in plugs:
            plug.close()
        raise
    return plugs


def _bound(plug: socket.socket) -> bool:
    return bool(plug.getsockname()[1])


@contextlib.contextmanager
def reachable(path: Path) -> Iterator[str]:
    """Give an address for a Unix socket, whatever the length of its path.

    A socket address holds 107 bytes, so a deep path is reached through its folder's descriptor.
    """
    if len(os.fsencode(path)) < _SUN_PATH:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def server_tls(
    certificate: str,
    private_key: str = "",
    *,
    key: str,
    data: Path,
    client_authorities: str = "",
    alpn: Sequence[str] = (),
) -> ssl.SSLContext | None:
    """Return what secures a server's connections, TLS 1.2 at least; None without a certificate.

    Args:
        certificate: A PEM file with the chain; paths start at `data`.
        private_key: A PEM file, if the key is not in the first one.
        key: The table of the configuration that names them, "protocols.s3", for messages.
        data: The node's data folder.
        client_authorities: A PEM file; with it clients have to show a certificate that these signed.
        alpn: Application protocols to offer (RFC 7301).

    Raises:
        ConfigError: A file cannot be used.
    """
    if not certificate and not private_key:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if alpn:
        context.set_alpn_protocols(list(alpn))
    chain = data / certificate
    secret = data / private_key if private_key else None
    try:
        context.load_cert_chain(chain, secret)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"{key}.tls_certificate: cannot use {chain}"
            f"{f' with key {secret}' if secret else ''}: {error}"
        ) from error
    if client_authorities:
        authorities = data / client_authorities
        try:
            context.load_verify_locations(authorities)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"{key}.tls_client_ca: cannot use {authorities}: {error}") from error
        context.verify_mode = ssl.CERT_REQUIRED
    return context
