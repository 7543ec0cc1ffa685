"""Notifications of a volume: which events go where, and how far they have gone. Data, and judgement without I/O.

A protocol writes the rules as the volume's document `DOCUMENT`, a service follows the change feed and delivers what they name. How far
it has come with one target is a row of the volume, `Progress`.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

DOCUMENT: Final = "notifications"
"""Name of the volume's document; its content is `pack`ed."""

FORMAT: Final = 1

Shape = Literal["queue", "topic", "function"]


class Rule(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Events of some kinds, of the keys that a filter lets pass, go to one target.

    `since_ns` is when the target was first named without a break: what happened before is not told to it.
    """

    id: str
    arn: str  # as it was written
    target: str  # the name that it means
    shape: Shape
    events: tuple[str, ...]  # "s3:ObjectCreated:Put", or all of a kind: "s3:ObjectCreated:*"
    prefix: str = ""
    suffix: str = ""
    filters: tuple[str, ...] = ()  # names of filters as they were written: "Prefix", "suffix"
    since_ns: int = 0

    def fits(self, event: str, key: str) -> bool:
        """Say whether an event ("ObjectCreated:Put") of a key is one of those that it names."""
        if not (key.startswith(self.prefix) and key.endswith(self.suffix)):
            return False
        return any(covers(pattern, event) for pattern in self.events)


class Notifications(msgspec.Struct, frozen=True, omit_defaults=True):
    """All rules of a volume, and when they were written; `volume` is its name, which it loses when it is deleted."""

    rules: tuple[Rule, ...]
    written_ns: int = 0
    volume: str = ""
    format: int = FORMAT

    def targets(self) -> dict[str, tuple[Rule, ...]]:
        """Return the rules by the name of their target."""
        found: dict[str, tuple[Rule, ...]] = {}
        for rule in self.rules:
            found[rule.target] = (*found.get(rule.target, ()), rule)
        return found


class Progress(msgspec.Struct, frozen=True, array_like=True):
    """How far a volume's events have gone to a target: everything up to `cursor` has.

    It is of the rules that name the target since `since_ns`; where they say otherwise, it is an older one's.
    """

    since_ns: int
    cursor: bytes  # of the change feed


_decoder = msgspec.json.Decoder(Notifications)
decode_progress = msgspec.msgpack.Decoder(Progress).decode
encode_progress = msgspec.msgpack.Encoder().encode


def covers(pattern: str, event: str) -> bool:
    """Say whether a rule's event ("s3:ObjectCreated:*") is this one ("ObjectCreated:Put")."""
    named = pattern.removeprefix("s3:")
    return named == event or (named.endswith(":*") and event.startswith(named[:-1]))


def pack(notifications: Notifications) -> bytes:
    """Write rules as a document."""
    return msgspec.json.encode(notifications)


def unpack(document: bytes) -> Notifications:
    """Read what `pack` wrote.

    Raises:
        msgspec.DecodeError: It is damaged, or of a later format.
    """
    found = _decoder.decode(document)
    if found.format != FORMAT:
        raise msgspec.DecodeError(f"format {found.format}, this release knows {FORMAT}")
    return found


def progress_name(target: str) -> str:
    """Return the name of the row that keeps `Progress` (`keys.progress_key`)."""
    return f"events/{target}"
