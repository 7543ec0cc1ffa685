"""Contexts: what a part gets when it is built, by kind. A part keeps what it needs and looks up nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from warp_core.errors import Unsupported
from warp_core.interfaces.audit import NO_AUDIT, Audit
from warp_core.interfaces.stores import BlobStore

if TYPE_CHECKING:
    from warp_core.containers.journal import Journal
    from warp_core.interfaces.accounts import DeclaredAccount
    from warp_core.interfaces.auth import Authenticator
    from warp_core.interfaces.consistency import MetaStore
    from warp_core.interfaces.queries import Queries
    from warp_core.interfaces.targets import Target
    from warp_core.interfaces.transports import Transport
    from warp_core.metrics import Metrics
    from warp_core.node.administration import Administration
    from warp_core.views import Blocks, Files, Objects


@dataclass(frozen=True, slots=True)
class CodecContext:
    """Codecs are pure: they get nothing but their arguments, written after the name as in `zstd:3`."""

    arguments: str = ""


async def no_transport(name: str) -> Transport:
    """Stand in where no node is: there are no transports.

    Raises:
        Unsupported: Always.
    """
    raise Unsupported(f'no node is here that could open the transport "{name}"')


@dataclass(frozen=True, slots=True)
class StoreContext:
    """For stores: relative paths of their configuration start at `data`; `transport` opens a way to other nodes by its name."""

    data: Path
    metrics: Metrics
    transport: Callable[[str], Awaitable[Transport]] = no_transport


@dataclass(frozen=True, slots=True)
class MetaContext:
    """For metadata engines: `stores` are those that keep the metadata's copies; `journal` is open when the engine is entered."""

    node: str
    data: Path
    stores: Sequence[BlobStore]
    journal: Journal | None
    metrics: Metrics
    monotonic: Callable[[], float]


@dataclass(frozen=True, slots=True)
class TransportContext:
    """For transports."""

    node: str
    data: Path
    metrics: Metrics


@dataclass(frozen=True, slots=True)
class AuthContext:
    """For authenticators and key services; relative paths of a configuration start at `data`, rows of key services with `w`.

    `root` is the (access key, secret) that the environment or the node's key file names, `accounts` are those of the configuration.
    """

    data: Path
    metastore: MetaStore
    root: tuple[str, str]
    accounts: Sequence[DeclaredAccount] = ()


@dataclass(frozen=True, slots=True)
class ProtocolContext:
    """For protocols: the three views, who is who, where to count, how long leaving may take, and whom to ask about content."""

    node: str
    data: Path
    objects: Objects
    files: Files
    blocks: Blocks
    authenticator: Authenticator
    metrics: Metrics
    drain_s: float = 10.0  # requests in flight get this long to finish
    queries: Queries | None = None  # who answers questions about content; None: nobody is installed
    targets: Mapping[str, Target] = field(default_factory=dict)  # where events may go
    audit: Audit = NO_AUDIT  # where changes of rules, keys and identities are put on record
    administration: Administration[Any] | None = None  # what else a node can be asked
