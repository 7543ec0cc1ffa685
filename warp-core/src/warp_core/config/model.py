"""The settings of a node: the tables that core owns, and what plugins made of theirs."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from warp_core.config.types import Address, Between, Codec, Duration, Redundancy, Secret, Size
from warp_core.interfaces.accounts import Account, account
from warp_core.interfaces.quotas import Quota, check_quota

STORES_MAX = 4096
LABEL = r"^[A-Za-z0-9._-]{1,64}$"  # of a store
TARGETS_MAX = 100  # for events of one node; each keeps connections open
ACCOUNTS_MAX = 1000  # that a file describes; more belong into the metadata
ACCOUNT_KEYS_MAX = 16  # of one such account


class Node(msgspec.Struct, frozen=True):
    """`[node]`: who this is and where its data lies."""

    name: Annotated[str, Meta(max_length=64, pattern=r"^[A-Za-z0-9._-]*$")] = (
        ""  # default: host name
    )
    data: str = "warp-data"
    # How long SIGTERM waits for requests in flight.
    drain: Annotated[Duration, Between("0s", "1h")] = Duration(10)
    # Serving beyond loopback with a root secret that everybody knows.
    allow_weak_secret: bool = False


class Log(msgspec.Struct, frozen=True):
    """`[log]`: what is written to stderr."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"


class AuditLog(msgspec.Struct, frozen=True):
    """`[audit]`: the record of who changed what."""

    # Whether what cannot be put on record is refused.
    mode: Literal["required", "best effort"] = "required"
    # A file that has got so long is followed by another.
    file_size: Annotated[Size, Between("64KiB", "1GiB")] = Size(16 * 1024 * 1024)
    # The oldest beyond is removed; what was in it is not checked any more.
    files_max: Annotated[int, Meta(ge=2, le=100_000)] = 256


class Metadata(msgspec.Struct, frozen=True):
    """`[metadata]`: its other keys belong to the engine."""

    engine: str = "local"
    # Stores that keep a copy of the metadata; 0: one more than `policy.default` tolerates to lose.
    copies: Annotated[int, Meta(ge=0, le=8)] = 0


class Policy(msgspec.Struct, frozen=True):
    """`[policy.NAME]`: what volumes get unless they say otherwise."""

    redundancy: Redundancy = Redundancy("none")
    chunker: Codec = Codec("fixed:8MiB")
    filters: Annotated[tuple[Codec, ...], Meta(max_length=4)] = ()
    dedup: Literal["off", "volume", "oprf"] = "off"
    verify: Literal["always", "scrub"] = "always"


class StorageClass(msgspec.Struct, frozen=True):
    """`[storage_class.NAME]`: how the contents of a class are kept, whatever their volume says."""

    policy: str = ""  # one of the `[policy.NAME]`; empty: the volume's
    # Names of the [[store]]s that keep the contents of the class, and nothing else; empty: those of everything else.
    stores: Annotated[tuple[str, ...], Meta(max_length=64)] = ()
    # On how many of these stores each content lies.
    copies: Annotated[int, Meta(ge=1, le=8)] = 1
    # Contents are read only after they were restored (RestoreObject), for as long as that says.
    archive: bool = False


class Kms(msgspec.Struct, frozen=True):
    """`[kms]`: who wraps the keys of encrypted contents; its other keys belong to the key service."""

    kind: str = ""  # default: the one that is installed
    # A codec: "aes-gcm", or "chacha20-poly1305" for processors without AES instructions.
    cipher: Annotated[str, Meta(max_length=64, pattern=r"^[a-z0-9.-]+$")] = "aes-gcm"
    # How long a data key is used without asking the key service again: a key that is disabled there opens contents so long.
    remember: Annotated[Duration, Between("0s", "1h")] = Duration(300)


class Peers(msgspec.Struct, frozen=True):
    """`[peers]`: where other nodes reach the stores that `[[export]]` names."""

    listen: str = ""  # as the transport writes its addresses
    transport: str = "tcp"


class Mounts(msgspec.Struct, frozen=True):
    """`[mounts]`: where clients on other machines reach the volumes that they mount."""

    listen: str = ""  # as the transport writes its addresses; the one that clients are told
    transport: str = "tcp"
    # When names and attributes are durable: soon after the answer and in order, or when it is sent.
    names: Literal["ordered", "durable"] = "ordered"


class Cluster(msgspec.Struct, frozen=True):
    """`[cluster]`: this node is one of several that share a metadata engine."""

    # A home that was not heard of for so long is taken over from.
    lease: Annotated[Duration, Between("1s", "1min")] = Duration(4)
    # Whether this node asks for its own volumes as soon as it has everything again.
    failback: bool = False
    # How long a start waits for stores of other nodes before it goes on without them.
    wait: Annotated[Duration, Between("0s", "10min")] = Duration(10)
    # This node only counts for the majority: it keeps nothing and serves nothing.
    witness: bool = False


class Exported(msgspec.Struct, frozen=True):
    """`[[export]]`: its other keys are those of a `[[store]]`."""

    name: Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._-]+$")]
    # Nodes that may use it; "*" lets any that the transport lets in.
    to: Annotated[tuple[str, ...], Meta(min_length=1, max_length=64)]
    kind: str = "disk"


class AccountKey(msgspec.Struct, frozen=True):
    """A key of an `[[account]]`."""

    access_key: Annotated[str, Meta(min_length=3, max_length=128, pattern=r"^[A-Za-z0-9]+$")]
    secret: Secret


class AccountQuota(msgspec.Struct, frozen=True):
    """`quota` of an `[[account]]`: what all its volumes together may hold."""

    bytes: Size | None = None
    objects: Annotated[int, Meta(ge=0)] | None = None
    soft_bytes: Size | None = None
    soft_objects: Annotated[int, Meta(ge=0)] | None = None
    grace: Annotated[Duration, Between("0s", "3650d")] | None = None

    def __post_init__(self) -> None:
        self.limits()

    def limits(self) -> Quota:
        """Return it as the namespace knows it.

        Raises:
            InvalidArgument
        """
        quota = Quota(
            None if self.bytes is None else int(self.bytes),
            self.objects,
            None if self.soft_bytes is None else int(self.soft_bytes),
            self.soft_objects,
            None if self.grace is None else float(self.grace),
        )
        check_quota(quota)
        return quota


class DescribedAccount(msgspec.Struct, frozen=True):
    """`[[account]]`: an account with its keys, described by the file instead of rows of the metadata."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,62}$")]
    canonical_id: str = ""  # default: made of the name
    number: str = ""  # 12 digits, the account of an ARN; default: made of the name
    display: str = ""  # default: the name
    email: str = ""
    admin: bool = False
    keys: Annotated[tuple[AccountKey, ...], Meta(max_length=ACCOUNT_KEYS_MAX)] = ()
    quota: AccountQuota | None = None

    def __post_init__(self) -> None:
        self.account()

    def account(self) -> Account:
        """Return what others see of it.

        Raises:
            InvalidArgument
        """
        return account(
            f"account:{self.name}",
            canonical_id=self.canonical_id,
            number=self.number,
            display=self.display,
            email=self.email,
            admin=self.admin,
            declared=True,
        )


class Named(msgspec.Struct, frozen=True):
    """`[[event_target]]`: where events of volumes may go; its other keys belong to its kind."""

    # Rules name it as the last part of an ARN: arn:aws:sqs:REGION:ACCOUNT:NAME.
    name: Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_-]+$")]
    kind: str = "webhook"


class Listening(msgspec.Struct, frozen=True, kw_only=True):
    """Options of every protocol that listens; a protocol's own `Config` extends it.

    Core refuses an address beyond loopback without a certificate, unless `allow_plaintext` says
    that this is meant. Paths are relative to `node.data`.
    """

    listen: Address
    tls_certificate: str = ""  # PEM file with the chain
    tls_key: str = ""  # PEM file with the private key
    allow_plaintext: bool = False


@dataclass(frozen=True, slots=True)
class Part:
    """A plugin that the settings name, and its decoded table."""

    kind: str
    name: str
    config: msgspec.Struct
    key: str  # where its table stands: "protocols.s3", "store[0]"
    label: str = ""  # of a store: what storage classes call it


@dataclass(frozen=True, slots=True)
class Sealed:
    """How contents are sealed that are to be."""

    part: Part | None = None  # the key service; None: none is installed
    cipher: str = "aes-gcm"
    remember: Duration = field(default_factory=lambda: Duration(300))


@dataclass(frozen=True, slots=True)
class Export:
    """A store that is other nodes' to use."""

    name: str
    to: tuple[str, ...]
    part: Part


@dataclass(frozen=True, slots=True)
class NamedTarget:
    """Where events may go."""

    name: str
    part: Part


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that a node is built from. Paths are absolute."""

    file: Path | None
    data: Path
    node: Node
    log: Log
    metadata: Metadata
    engine: Part
    stores: tuple[Part, ...]
    policies: Mapping[str, Policy]
    protocols: tuple[Part, ...]
    services: tuple[Part, ...]
    codecs: Mapping[str, msgspec.Struct]  # options of those that have a table
    auth: Part
    root: tuple[str, Secret] | None  # from the environment
    transports: tuple[Part, ...] = ()
    peers: Peers = field(default_factory=Peers)
    mounts: Mounts = field(default_factory=Mounts)
    exports: tuple[Export, ...] = ()
    cluster: Cluster | None = None  # without it, a node alone
    accounts: tuple[DescribedAccount, ...] = ()
    storage_classes: Mapping[str, StorageClass] = field(default_factory=dict)
    kms: Sealed = field(default_factory=Sealed)
    targets: tuple[NamedTarget, ...] = ()
    audit: AuditLog = field(default_factory=AuditLog)
    origins: Mapping[str, str] = field(default_factory=dict)  # key → where its value comes from

    @property
    def name(self) -> str:
        """The node's name."""
        return self.node.name or socket.gethostname().partition(".")[0] or "node"

    @property
    def common_stores(self) -> tuple[Part, ...]:
        """The stores that no storage class has for itself: of everything else, metadata included."""
        apart = {label for each in self.storage_classes.values() for label in each.stores}
        return tuple(part for part in self.stores if not part.label or part.label not in apart)

    @property
    def metadata_copies(self) -> int:
        """How many stores keep the metadata."""
        wanted = self.metadata.copies or 1 + self.policies["default"].redundancy.tolerates
        return min(wanted, len(self.common_stores))
