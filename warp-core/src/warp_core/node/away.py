"""A volume of a node elsewhere as a directory of this machine: who it is known as there, and the process that serves the mount.

The process is a protocol (FUSE) over the forwarded views of one volume, without a node around it. What a client needs to
prove itself lies in a folder for each volume, written when a token was used.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import quote, unquote, urlsplit

import msgspec

from warp_core.certificates import Identity, place, request
from warp_core.cluster import joining
from warp_core.config.types import convert
from warp_core.contexts import ProtocolContext, TransportContext
from warp_core.errors import ConfigError, InvalidArgument, NotFound, PluginError, Unavailable
from warp_core.forward import Line, RemoteBlocks, RemoteFiles, RemoteObjects
from warp_core.interfaces.auth import Authenticator
from warp_core.interfaces.protocols import Mounter
from warp_core.interfaces.transports import Link
from warp_core.logs import get
from warp_core.metrics import Metrics
from warp_core.node.data_directory import replace_durably
from warp_core.node.mounting import MOUNTS, WelcomeMount, transport_as
from warp_core.plugins import Plugins

SCHEME: Final = "warp"
PLACE: Final = "place.json"
MOUNTER: Final = "fuse"  # the protocol that makes directories of volumes
DIAL_S: Final = 5.0
DEADLINE_S: Final = 60.0  # of a call; a dead link is noticed within seconds
FIRST_S: Final = 20.0  # how long the node may take to answer for the first time

log = get("warp_core.node")


class Place(msgspec.Struct, frozen=True):
    """Where a volume is, and who we are there."""

    address: str
    node: str
    client: str
    volume: str
    read_only: bool
    transport: str

    @property
    def url(self) -> str:
        """As `warp mount` takes it."""
        return f"{SCHEME}://{self.address}/{quote(self.volume)}"


def is_token(text: str) -> bool:
    """Say whether somebody gave a token."""
    return text.startswith(MOUNTS.prefix)


def is_url(text: str) -> bool:
    """Say whether somebody gave a place."""
    return text.startswith(f"{SCHEME}://")


def home() -> Path:
    """Return the folder that has a folder for each volume that this user may mount: WARP_MOUNTS, or what is usual."""
    said = os.environ.get("WARP_MOUNTS")
    if said:
        return Path(said).absolute()
    if os.geteuid() == 0:
        return Path("/var/lib/warp/mounts")
    state = os.environ.get("XDG_STATE_HOME")
    return Path(state) / "warp/mounts" if state else Path.home() / ".local/state/warp/mounts"


def folder_of(address: str, volume: str) -> Path:
    """Return where the identity lies that mounts a volume of a node."""
    return home() / f"{re.sub('[^A-Za-z0-9.-]', '_', address)}_{quote(volume, safe='')}"


async def enroll(text: str) -> Path:
    """Use a token, and return the folder with what it brought.

    Raises:
        InvalidArgument: It is none.
        Unavailable, Unauthenticated: As `joining.asked`.
    """
    token = joining.read(text, MOUNTS)
    name = socket.gethostname()[:64]
    key, asked = request("mount")
    wanted = joining.WantedMount(joining.VERSION, token.secret, name, asked)
    welcome = await joining.asked(token, MOUNTS, wanted, WelcomeMount)
    folder = folder_of(welcome.address, welcome.volume)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    place(folder, certificate=welcome.certificate, authority=welcome.authority, key=key)
    where = Place(
        welcome.address,
        welcome.node,
        welcome.client,
        welcome.volume,
        welcome.read_only,
        welcome.transport,
    )
    packed = msgspec.json.format(msgspec.json.encode(where))
    replace_durably(folder / PLACE, packed + b"\n", mode=0o600)
    return folder


def known(url: str) -> Path:
    """Return the folder of a place that a token was used for before.

    Raises:
        InvalidArgument: It is no place.
        NotFound: No token was.
    """
    parts = urlsplit(url)
    volume = unquote(parts.path.strip("/"))
    if parts.scheme != SCHEME or not parts.netloc or not volume or "/" in volume:
        raise InvalidArgument(f"{url!r} is not {SCHEME}://HOST:PORT/VOLUME")
    folder = folder_of(parts.netloc, volume)
    if not (folder / PLACE).exists():
        raise NotFound(
            f"this user has no certificate for {url} (looked in {folder}): "
            f"`warp mount token {volume}` there makes a token, `warp mount TOKEN DIR` here uses it"
        )
    return folder


def read(folder: Path) -> Place:
    """Return what a folder is for.

    Raises:
        ConfigError: It cannot be read.
    """
    try:
        return msgspec.json.decode((folder / PLACE).read_bytes(), type=Place)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{folder / PLACE} cannot be read: {error}") from error


class _Nobody(Authenticator):
    """A client knows no accounts."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None


def config_of(plugins: Plugins, options: Mapping[str, object]) -> msgspec.Struct:
    """Return the options of the protocol that mounts.

    Raises:
        ConfigError: There is none, or it does not take these.
    """
    try:
        entry = plugins.registries["protocols"].get(MOUNTER)
        made: msgspec.Struct = msgspec.convert(dict(options), entry.config, dec_hook=convert)
    except (NotFound, PluginError) as error:
        raise ConfigError(f"mounting needs the plugin warp-{MOUNTER}: {error}") from error
    except (msgspec.ValidationError, ValueError) as error:
        raise ConfigError(f"mount: {error}") from error
    return made


async def serve(
    folder: Path,
    directory: Path,
    config: msgspec.Struct,
    plugins: Plugins,
    *,
    read_only: bool,
    ready: Callable[[Place], None],
) -> str:
    """Mount, and serve the mount until a signal, until somebody unmounts, or until the node is away for too long; return why it ended.

    Args:
        folder: Of `enroll` or `known`.
        directory: Where.
        config: Of the protocol that mounts.
        plugins: Where it and the transport come from.
        ready: Called when the directory is the volume.

    Raises:
        ConfigError: It cannot be mounted there.
        Unavailable: The node does not answer.
        PermissionDenied: It refuses this client.
    """
    where = read(folder)
    metrics = Metrics()
    identity = Identity(folder / "ca.pem", folder / "node.pem", folder / "node.key")
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as exits:
        context = TransportContext(where.client, folder, metrics)
        transport = await exits.enter_async_context(
            transport_as(identity, where.transport, plugins, context)
        )

        async def dial() -> Link:
            return await transport.dial(where.address, peer=where.node, timeout_s=DIAL_S)

        line = Line(dial, peer=where.node, target=where.volume, deadline_s=DEADLINE_S)
        exits.push_async_callback(line.close)
        try:
            async with asyncio.timeout(FIRST_S):
                await line.session()
        except TimeoutError:
            raise Unavailable(f"{where.address} did not answer within {FIRST_S:g} s") from None
        mounter = _mounter(plugins, config, folder, line, metrics)
        await exits.enter_async_context(mounter)
        await mounter.mount(
            where.volume,
            directory,
            read_only=where.read_only or read_only,
        )
        ready(where)
        return await _until(stop, mounter)


async def _until(stop: asyncio.Event, mounter: Mounter) -> str:
    stopped = asyncio.ensure_future(stop.wait())
    emptied = asyncio.ensure_future(mounter.emptied())
    await asyncio.wait((stopped, emptied), return_when=asyncio.FIRST_COMPLETED)
    try:
        return "" if stopped.done() else emptied.result()
    finally:
        stopped.cancel()
        emptied.cancel()


def _mounter(
    plugins: Plugins, config: msgspec.Struct, folder: Path, line: Line, metrics: Metrics
) -> Mounter:
    entry = plugins.registries["protocols"].get(MOUNTER)
    context = ProtocolContext(
        node=socket.gethostname(),
        data=folder,
        objects=RemoteObjects(line),
        files=RemoteFiles(line),
        blocks=RemoteBlocks(line),
        authenticator=_Nobody(),
        metrics=metrics,
    )
    mounter = entry.build(config, context)
    if not isinstance(mounter, Mounter):
        raise ConfigError(f'the plugin "{MOUNTER}" that is installed mounts nothing')
    return mounter
