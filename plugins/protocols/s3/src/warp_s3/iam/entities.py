"""What an account has: users, groups, roles, managed policies, providers of identities, and what is said of itself.

Each is one record. Its key is the account's name, a letter for the kind, and the name in lower case: names differ by more than case.
Format version 1; fields are only ever appended (`docs/formats/iam.md`).
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, TypeAlias

import msgspec
from warp_core.errors import NewerFormat

FORMAT: Final = 1


class Key(msgspec.Struct, frozen=True, array_like=True):
    """An access key of a user."""

    id: str
    sealed: bytes  # the secret, sealed under the key's id
    active: bool
    created_s: int


class User(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """A user of an account."""

    format: int = FORMAT
    account: str  # principal's name, "account:ada"
    name: str
    path: str
    id: str  # never used again
    created_s: int
    policies: dict[str, str] = {}
    attached: tuple[str, ...] = ()  # ARNs of managed policies
    groups: tuple[str, ...] = ()  # ids
    tags: dict[str, str] = {}
    boundary: str = ""  # ARN of a managed policy
    keys: tuple[Key, ...] = ()


class Group(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """A group of users."""

    format: int = FORMAT
    account: str
    name: str
    path: str
    id: str
    created_s: int
    policies: dict[str, str] = {}
    attached: tuple[str, ...] = ()


class Role(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """A role: what others become for a while."""

    format: int = FORMAT
    account: str
    name: str
    path: str
    id: str
    created_s: int
    trust: str  # document: who may become it
    description: str = ""
    duration_max_s: int = 3600
    policies: dict[str, str] = {}
    attached: tuple[str, ...] = ()
    tags: dict[str, str] = {}
    boundary: str = ""


class Version(msgspec.Struct, frozen=True, array_like=True):
    """A version of a managed policy."""

    number: int
    document: str
    created_s: int


class Managed(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """A policy that is attached to users, groups and roles."""

    format: int = FORMAT
    account: str
    name: str
    path: str
    id: str
    created_s: int
    updated_s: int
    description: str = ""
    versions: tuple[Version, ...] = ()  # oldest first
    default: int = 1  # number of the one that holds
    tags: dict[str, str] = {}
    last: int = 1  # number that was given last: none is given again

    def document(self) -> str:
        """Return the version that holds."""
        return next(each.document for each in self.versions if each.number == self.default)


class Provider(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """A provider of identities (OpenID Connect); its name is its address without "https://"."""

    format: int = FORMAT
    account: str
    name: str
    url: str
    created_s: int
    clients: tuple[str, ...] = ()
    thumbprints: tuple[str, ...] = ()
    tags: dict[str, str] = {}


class Own(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """What is said of an account itself; its name is empty."""

    format: int = FORMAT
    account: str
    name: str = ""
    policies: dict[str, str] = {}
    attached: tuple[str, ...] = ()
    keys: tuple[Key, ...] = ()  # made here; inactive ones are no keys of the authenticator
    alias: str = ""


Entity: TypeAlias = User | Group | Role | Managed | Provider | Own
Tagged: TypeAlias = User | Role | Managed | Provider
Holder: TypeAlias = User | Group | Role | Own
"""What has policies."""
Ref: TypeAlias = tuple[str, type[Entity], str]
"""Account, kind, name in lower case."""

LETTERS: Final[Mapping[type[Entity], str]] = MappingProxyType(
    {User: "u", Group: "g", Role: "r", Managed: "p", Provider: "o", Own: "s"}
)
_KINDS: Final = {letter: kind for kind, letter in LETTERS.items()}
_DECODERS: Final = {letter: msgspec.msgpack.Decoder(kind) for kind, letter in LETTERS.items()}


def ref_of(entity: Entity) -> Ref:
    """Return what an entity is found by."""
    return entity.account, type(entity), entity.name.lower()


def record_name(ref: Ref) -> str:
    """Return the name of an entity's record."""
    account, kind, name = ref
    return f"{account}/{LETTERS[kind]}{name}"


def pack(entity: Entity) -> bytes:
    """Return an entity's record."""
    return msgspec.msgpack.encode(entity)


def unpack(record: str, value: bytes) -> Entity:
    """Read a record.

    Raises:
        NewerFormat: A later release wrote it.
    """
    letter = record.partition("/")[2][:1]
    found: Entity = _DECODERS[letter].decode(value)
    if found.format > FORMAT:
        raise NewerFormat(
            f"record {record} is of format {found.format}, this release reads up to {FORMAT}"
        )
    return found
