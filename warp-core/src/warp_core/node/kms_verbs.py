"""What the control socket does with the keys that encrypted contents are kept under."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from warp_core.errors import Unsupported
from warp_core.interfaces.keys import KeyInfo, KeyService
from warp_core.node.assembly import Node
from warp_core.node.control import Progress, Verb


class NoArguments(msgspec.Struct, frozen=True):
    """No arguments."""


class OneKey(msgspec.Struct, frozen=True):
    """A key, by its id; empty for the default one, or (to be made) for one with an id of its own."""

    key: str = ""


async def kms_list(node: Node, arguments: NoArguments, progress: Progress) -> object:
    """Tell every key."""
    return [_told(each) for each in await _service(node).keys()]


async def kms_create(node: Node, arguments: OneKey, progress: Progress) -> object:
    """Make a key."""
    return _told(await _service(node).create_key(arguments.key))


async def kms_rotate(node: Node, arguments: OneKey, progress: Progress) -> object:
    """Wrap with new key material from now on."""
    return _told(await _service(node).rotate_key(arguments.key))


async def kms_disable(node: Node, arguments: OneKey, progress: Progress) -> object:
    """Let nobody use a key; what this node remembers of it is forgotten at once."""
    told = _told(await _service(node).enable_key(arguments.key, enabled=False))
    stack = node.own_now()
    if stack is not None:
        stack.namespace.sealer.forget()
    return told


async def kms_enable(node: Node, arguments: OneKey, progress: Progress) -> object:
    """Let a key be used again."""
    return _told(await _service(node).enable_key(arguments.key, enabled=True))


def _service(node: Node) -> KeyService:
    if node.keys is None:
        raise Unsupported("no key service is installed: warp-kms is one")
    return node.keys


def _told(key: KeyInfo) -> dict[str, object]:
    created = datetime.fromtimestamp(key.created_ns / 1e9, UTC).isoformat(timespec="seconds")
    return {
        "key": key.id,
        "created": created,
        "enabled": key.enabled,
        "versions": key.versions,
    }


KMS_TABLE: tuple[tuple[str, Verb[Node]], ...] = (
    ("kms.list", Verb(NoArguments, kms_list)),
    ("kms.create", Verb(OneKey, kms_create)),
    ("kms.rotate", Verb(OneKey, kms_rotate)),
    ("kms.disable", Verb(OneKey, kms_disable)),
    ("kms.enable", Verb(OneKey, kms_enable)),
)
