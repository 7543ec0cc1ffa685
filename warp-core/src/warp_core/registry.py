"""Typed registries: what plugins offer, by kind and name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from warp_core.errors import NotFound, PluginError

P = TypeVar("P")

KINDS = ("protocols", "codecs", "transports", "consistency", "stores", "auth", "services")


class NoConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table of a plugin without options."""


@dataclass(frozen=True, slots=True)
class Entry(Generic[P]):
    """One thing that a plugin offers.

    `build(config, context)` makes the part without side effects; resources open when it is entered. `context` is what its kind gets
    (see `warp_core.contexts`). `sample(folder)` returns a configuration that kits and skeletons may try, using only `folder`;
    without one they try all defaults. `by_default` says of a protocol or service that a node runs it without being told: it needs
    no privilege, and its configuration's defaults stay on loopback. `answers_queries` says of a service that it is one for requests
    (`interfaces.queries`): it is built without a context, once for each node that serves. `takes_events` says that it is no service at
    all but what an `[[event_target]]` may be of (`interfaces.targets`): it is built once for each of these, with a `TargetContext`.
    `whole_only` says of a store that it keeps whole blobs only, so that it is of use to storage classes alone.
    `key_files(config, data)` tells which files of 32 random bytes (mode 0600) all nodes of a cluster need the same, by the option that
    names each, "" where none does.
    """

    name: str
    build: Callable[[Any, Any], P]
    config: type[msgspec.Struct] = NoConfig
    summary: str = ""
    sample: Callable[[Path], msgspec.Struct] | None = None
    by_default: bool = True
    answers_queries: bool = False
    takes_events: bool = False
    whole_only: bool = False
    key_files: Callable[[Any, Path], Mapping[str, Path]] | None = None

    def sampled(self, folder: Path) -> msgspec.Struct:
        """Return a configuration to try; without a sample of its own, all defaults."""
        return self.sample(folder) if self.sample is not None else self.config()


class Registry(Generic[P]):
    """Entries of one kind. A name has one owner."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, tuple[Entry[P], str]] = {}
        self._owner = ""

    def offering_as(self, owner: str) -> None:
        """Name the distribution that the following `add` calls come from."""
        self._owner = owner

    def add(self, entry: Entry[P]) -> None:
        """Offer an entry.

        Raises:
            PluginError: The name is taken; the message names both owners.
        """
        if entry.name in self._entries:
            other = self._entries[entry.name][1]
            raise PluginError(
                f'{self.kind} "{entry.name}" is offered by both {other} and {self._owner}: uninstall one of them'
            )
        self._entries[entry.name] = (entry, self._owner)

    def get(self, name: str) -> Entry[P]:
        """Return the entry of a name.

        Raises:
            NotFound: Nobody offers it; the message lists what is offered.
        """
        try:
            return self._entries[name][0]
        except KeyError:
            offered = ", ".join(sorted(self._entries)) or "none"
            raise NotFound(
                f'no {self.kind} plugin "{name}" is installed (installed: {offered})'
            ) from None

    def withdraw(self, owner: str) -> None:
        """Forget what a distribution offered, because it failed half-way."""
        self._entries = {name: kept for name, kept in self._entries.items() if kept[1] != owner}

    def owner(self, name: str) -> str:
        """Return the distribution that offers a name."""
        return self._entries[name][1]

    def __iter__(self) -> Iterator[Entry[P]]:
        return (entry for entry, _ in self._entries.values())

    def __contains__(self, name: object) -> bool:
        return name in self._entries


Registries = Mapping[str, Registry[Any]]
