"""Rules of a volume about which objects are copied to another site: data, and judgement without I/O.

A protocol writes them as the volume's document `DOCUMENT` and says PENDING of what it writes; a service sends it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

import msgspec

DOCUMENT: Final = "replication"
"""Name of the volume's document; its content is `pack`ed."""

FORMAT: Final = 1
CLOCKS_NS: Final = 60 * 10**9


class Rule(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What is copied where. Of rules that name the same destination the one of the highest priority counts."""

    id: str
    bucket: str  # the destination's
    enabled: bool = True
    priority: int = 0
    prefix: str = ""
    tags: dict[str, str] = {}
    markers: bool = False  # delete markers as well
    existing: bool = False  # also what was there before the rule
    sealed: bool = False  # also what is encrypted under keys of the key service
    storage_class: str = ""  # there; empty: as here


class Replication(msgspec.Struct, frozen=True, omit_defaults=True):
    """All rules of a volume; `written` is the protocol's own text of them."""

    rules: tuple[Rule, ...]
    written: str = ""
    since_ns: int = 0  # when they were said, by a clock that may be CLOCKS_NS off
    format: int = FORMAT

    def rules_of(self, key: bytes, tags: Mapping[str, str]) -> list[Rule]:
        """Return the rules by which an object is copied: one for each destination."""
        text = key.decode("utf-8", "replace")
        found: dict[str, Rule] = {}
        for rule in self.rules:
            if not rule.enabled or not text.startswith(rule.prefix):
                continue
            if any(tags.get(name) != value for name, value in rule.tags.items()):
                continue
            other = found.get(rule.bucket)
            if other is None or rule.priority > other.priority:
                found[rule.bucket] = rule
        return list(found.values())


def pack(replication: Replication) -> bytes:
    """Write the document."""
    return msgspec.json.encode(replication)


@lru_cache(maxsize=256)
def unpack(document: bytes) -> Replication:
    """Read the document.

    Raises:
        msgspec.DecodeError: It is damaged.
    """
    return msgspec.json.decode(document, type=Replication)


def pending(document: bytes | None, key: bytes, tags: Mapping[str, str]) -> bool:
    """Say whether what is written now is to be copied."""
    return document is not None and bool(unpack(document).rules_of(key, tags))
