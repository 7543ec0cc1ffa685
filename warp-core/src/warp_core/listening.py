"""Where protocols listen: sockets by their address, TLS by its files, and errors that say what to do.

Unix sockets lie in the node's data and are their owner's alone (mode 0600): who may use them needs no password. Files of TLS are
looked at again and again, so that a renewed certificate needs no restart.
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

from warp_core import logs
from warp_core.config.types import Address
from warp_core.errors import AlreadyRunning, ConfigError

_SUN_PATH = (
    100  # bytes of a socket address that a path may take, with room for the folder's descriptor
)

RENEW_S = 5.0  # how often the files of TLS are looked at: two `stat` each time
_log = logs.get("warp_core.listening")
_ABSENT = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})


class Listening:
    """An address that is being listened on.

    Attributes:
        path: The Unix socket, None for TCP.
        place: "HOST:PORT" with the port that was bound, "" for a Unix socket.
    """

    def __init__(
        self,
        servers: Sequence[asyncio.Server],
        path: Path | None,
        place: str,
        tls: ServerTls | None = None,
    ) -> None:
        self.path = path
        self.place = place
        self._servers = servers
        self._tls = tls
        self._renewing: asyncio.TimerHandle | None = None
        if tls is not None:
            self._renew_later()

    def _renew_later(self) -> None:
        self._renewing = asyncio.get_running_loop().call_later(RENEW_S, self._renew)

    def _renew(self) -> None:
        assert self._tls is not None
        self._tls.renew()
        self._renew_later()

    def stop(self) -> None:
        """Accept no more; connections that are open stay."""
        if self._renewing is not None:
            self._renewing.cancel()
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
    tls: ServerTls | None = None,
    renewed: ServerTls | None = None,
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
        tls: TLS from the first byte on; never over a Unix socket. Its files are looked at again while there is listening.
        renewed: TLS that the protocol begins by itself, to look at as well.
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
        return Listening(servers, path, "", renewed)
    host = f"[{address.host}]" if ":" in address.host else address.host
    return Listening(servers, None, f"{host}:{plugs[0].getsockname()[1]}", secured or renewed)


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


class ServerTls(ssl.SSLContext):
    """What secures a server's connections; it takes its files again when they change, for connections from then on."""

    chain: Path
    secret: Path | None
    _seen: tuple[object, ...]

    def take(self, chain: Path, secret: Path | None) -> None:
        """Use a chain and its key.

        Raises:
            OSError, ssl.SSLError: They cannot be used; what was used before still is.
        """
        seen = _stamps(chain, secret)
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(chain, secret)  # or half of it
        self.load_cert_chain(chain, secret)
        self.chain, self.secret, self._seen = chain, secret, seen

    def renew(self) -> bool:
        """Take the files again if they changed, and say whether that was so. Those that cannot be used are logged and tried again."""
        try:
            if _stamps(self.chain, self.secret) == self._seen:
                return False
            self.take(self.chain, self.secret)
        except (OSError, ssl.SSLError) as error:
            # A key that fits comes a moment after its certificate, so this may be nothing.
            _log.warning(
                "changed files of TLS are not used", file=str(self.chain), error=str(error)
            )
            return False
        _log.info("a new certificate is used", file=str(self.chain))
        return True


def _stamps(*paths: Path | None) -> tuple[object, ...]:
    found = [path.stat() for path in paths if path is not None]
    return tuple((each.st_ino, each.st_size, each.st_mtime_ns) for each in found)


def server_tls(
    certificate: str,
    private_key: str = "",
    *,
    key: str,
    data: Path,
    client_authorities: str = "",
    alpn: Sequence[str] = (),
) -> ServerTls | None:
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
    context = ServerTls(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if alpn:
        context.set_alpn_protocols(list(alpn))
    chain = data / certificate
    secret = data / private_key if private_key else None
    try:
        context.take(chain, secret)
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
