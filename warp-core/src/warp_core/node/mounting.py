"""Volumes for clients on other machines: an authority and a listener of their own, and one volume for each client.

Clients prove themselves by certificates of an authority that certifies nothing else, so whoever mounts a volume is no node to
anybody, and a node's certificate mounts nothing. A client gets its certificate for a token (`cluster.joining`), and may have what
`mounts.json` says of it until it is revoked. It answers for the users of its machine, as clients of NFS do.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import msgspec

from warp_core.certificates import Identity, issue, make_authority, sign
from warp_core.cluster import joining
from warp_core.cluster.joining import Admission, Talk, WantedMount
from warp_core.config import Settings
from warp_core.contexts import TransportContext
from warp_core.errors import (
    ConfigError,
    Corrupt,
    NotFound,
    PermissionDenied,
    PluginError,
    Unsupported,
)
from warp_core.forward import Forwarder, Views
from warp_core.forward.confined import confined
from warp_core.interfaces.transports import Transport
from warp_core.logs import get
from warp_core.metrics import Metrics
from warp_core.node.data_directory import replace_durably
from warp_core.views.files import Files

if TYPE_CHECKING:
    from warp_core.plugins import Plugins

FOLDER: Final = (
    "tls/mounts"  # in the data folder: the authority, and below it this node's certificate
)
CLIENTS: Final = "mounts.json"
CLIENT_PREFIX: Final = "mount-"
CLIENTS_MAX: Final = (
    10_000  # of one node: each is a line of CLIENTS, which is read and written whole
)
MOUNTS: Final = Talk("mount", WantedMount, "warpmount1.", "warp mount token")

log = get("warp_core.node")


class WelcomeMount(msgspec.Struct, array_like=True, frozen=True):
    """What a client gets that may mount a volume."""

    certificate: bytes  # PEM
    authority: bytes  # PEM
    client: str  # the name in the certificate
    node: str  # who proves to be at the address
    address: str
    transport: str
    volume: str
    read_only: bool


class Granted(msgspec.Struct, frozen=True):
    """What a client may have."""

    volume: str
    read_only: bool
    host: str  # what it called itself
    since: str  # ISO 8601


class Mounts:
    """Serves volumes to clients. Use it as a context manager."""

    def __init__(
        self, settings: Settings, plugins: Plugins, metrics: Metrics, files: Files
    ) -> None:
        """Take the view that clients get a part of."""
        self._settings = settings
        self._plugins = plugins
        self._metrics = metrics
        self._files = files
        self._clients: dict[str, Granted] = {}
        self._meant: dict[bytes, tuple[str, bool]] = {}  # hash of a token's secret → what it is for
        self._forwarder = Forwarder(self._admitted)
        self._exits = AsyncExitStack()
        self._admission: Admission
        self.address = ""

    async def __aenter__(self) -> Self:
        """Listen.

        Raises:
            ConfigError, AlreadyRunning, Corrupt
        """
        settings = self._settings
        self._clients = _read(settings.data / CLIENTS)
        identity = _identity(settings)
        async with AsyncExitStack() as exits:
            transport = await exits.enter_async_context(
                transport_as(
                    identity,
                    settings.mounts.transport,
                    self._plugins,
                    TransportContext(settings.name, settings.data, self._metrics),
                    settings,
                )
            )
            exits.push_async_callback(self._forwarder.end)
            listener = await transport.listen(settings.mounts.listen, self._forwarder.serve)
            exits.push_async_callback(listener.close)
            self.address = listener.address
            host = listener.address.rpartition(":")[0].strip("[]")
            admission = Admission(
                host, identity, self._welcome, monotonic=time.monotonic, talk=MOUNTS
            )
            self._admission = await exits.enter_async_context(admission)
            self._exits = exits.pop_all()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._exits.aclose()

    # What commands ask ----------------------------------------------------------------------------

    async def token(self, volume: str, *, read_only: bool, ttl_s: float) -> str:
        """Make a token that lets one client mount a volume.

        Raises:
            VolumeNotFound, Busy
        """
        await self._files.root(volume)
        text = await self._admission.token(ttl_s=ttl_s)
        self._meant[_digest(joining.read(text, MOUNTS).secret)] = (volume, read_only)
        if len(self._meant) > 4 * joining.TOKENS_MAX:  # those of tokens whose time was over
            del self._meant[next(iter(self._meant))]
        return text

    def clients(self) -> Sequence[tuple[str, Granted]]:
        """Return who may mount what."""
        return sorted(self._clients.items())

    async def revoke(self, client: str) -> None:
        """Let a client mount nothing any more; what it has open is closed on return.

        Raises:
            NotFound: There is no such client.
        """
        if client not in self._clients:
            raise NotFound(f"no client {client!r}: `warp mount clients` lists them")
        del self._clients[client]
        self._write()
        await self._forwarder.dismiss(client)

    # What clients ask -----------------------------------------------------------------------------

    async def _welcome(self, wanted: WantedMount) -> WelcomeMount:
        if wanted.version != joining.VERSION:
            raise Unsupported(f"version {wanted.version} of tokens, not {joining.VERSION}")
        meant = self._meant.get(_digest(wanted.secret))
        if meant is None or len(self._clients) >= CLIENTS_MAX:
            raise PermissionDenied(f"the token is for nothing any more, or {CLIENTS_MAX} clients")
        volume, read_only = meant
        client = CLIENT_PREFIX + secrets.token_hex(8)
        folder = self._settings.data / FOLDER
        certificate = sign(folder, client, wanted.request)
        since = datetime.now(UTC).isoformat(timespec="seconds")
        self._clients[client] = Granted(volume, read_only, wanted.name[:64], since)
        self._write()
        self._meant.pop(_digest(wanted.secret), None)
        return WelcomeMount(
            certificate,
            (folder / "ca.pem").read_bytes(),
            client,
            self._settings.name,
            self.address,
            self._settings.mounts.transport,
            volume,
            read_only,
        )

    async def _admitted(self, peer: str, target: str) -> Views:
        """Return what a client may use.

        Raises:
            PermissionDenied: It may not mount this volume, or nothing any more.
            VolumeNotFound: The volume is gone.
        """
        granted = self._clients.get(peer)
        if granted is None or granted.volume != target:
            raise PermissionDenied(f"{peer} may not mount volume {target!r}")
        await self._files.root(target)
        files = self._files.ordered if self._settings.mounts.names == "ordered" else self._files
        return confined(files, target, read_only=granted.read_only)

    def _write(self) -> None:
        packed = msgspec.json.format(msgspec.json.encode(self._clients))
        replace_durably(self._settings.data / CLIENTS, packed + b"\n", mode=0o600)


def transport_as(
    identity: Identity,
    name: str,
    plugins: Plugins,
    context: TransportContext,
    settings: Settings | None = None,
) -> Transport:
    """Return a transport, not entered, that proves an identity which is not the node's own.

    Raises:
        ConfigError: It is not installed, or proves nothing.
    """
    try:
        entry = plugins.registries["transports"].get(name)
    except (NotFound, PluginError) as error:
        raise ConfigError(f"mounts.transport: {error}") from error
    parts = settings.transports if settings is not None else ()
    config = next((each.config for each in parts if each.name == name), None) or entry.config()
    files = {
        "authority": str(identity.authority),
        "certificate": str(identity.certificate),
        "key": str(identity.key),
    }
    if not set(files) <= set(config.__struct_fields__):
        raise ConfigError(f'mounts.transport: "{name}" takes no certificates: choose another')
    plain = {"plaintext": False} if "plaintext" in config.__struct_fields__ else {}
    transport: Transport = entry.build(msgspec.structs.replace(config, **files, **plain), context)
    if not transport.capabilities.authenticated:
        raise ConfigError(f'mounts.transport: "{name}" does not prove who is there')
    return transport


def _identity(settings: Settings) -> Identity:
    """Return the node's identity towards clients, made at the first start."""
    authority = settings.data / FOLDER
    if not (authority / "ca.key").exists():
        make_authority(authority, cluster=f"{settings.name} mounts")
    own = authority / settings.name
    found = Identity(own / "ca.pem", own / "node.pem", own / "node.key")
    if all(path.exists() for path in (found.authority, found.certificate, found.key)):
        return found
    return issue(authority, settings.name, own)


def _read(path: Path) -> dict[str, Granted]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Granted])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Corrupt(
            f"{path} cannot be read ({error}): mend it, or remove it and all clients with it"
        ) from error


def _digest(secret: bytes) -> bytes:
    return hashlib.sha256(b"warp mount token" + secret).digest()
