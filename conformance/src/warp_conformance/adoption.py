"""Adoption of installed plugins: which kits fit what a plugin offers, with the configuration that the plugin names as a sample."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from warp_core.errors import WarpError
from warp_core.plugins import Plugins
from warp_core.registry import Entry

from warp_conformance.kit import Kit


@dataclass(frozen=True, slots=True)
class Offer:
    """One entry of an installed plugin."""

    kind: str
    entry: Entry[Any]
    owner: str  # distribution


def offers(name: str) -> list[Offer]:
    """Return what the installed plugin `name` offers: `zstd`, `codecs/zstd`, `codecs.zstd`, or the distribution `warp-zstd`.

    Raises:
        UsageError: No such plugin is installed, or it cannot be loaded; the message says what to do.
    """
    plugins = Plugins()
    wanted = name.replace("/", ".")
    found = [
        status.found
        for status in plugins.status()
        if wanted in (status.found.name, status.found.entry, status.found.distribution.name)
    ]
    if not found:
        installed = ", ".join(sorted({status.found.entry for status in plugins.status()})) or "none"
        raise pytest.UsageError(
            f'no installed WARP plugin is called "{name}" (installed: {installed})'
        )
    try:
        return [
            Offer(each.kind, plugins.registries[each.kind].get(each.name), str(each.distribution))
            for each in found
        ]
    except WarpError as error:
        raise pytest.UsageError(str(error)) from error


def adoptions(names: Iterable[str]) -> dict[str, type]:
    """Return test classes for every kit that fits an entry of the named plugins, by class name."""
    classes: dict[str, type] = {}
    for name in names:
        for offer in offers(name):
            for adopted in adopt(offer.kind, offer.entry):
                classes[adopted.__name__] = adopted
    return classes


def adopt(kind: str, entry: Entry[Any]) -> Iterator[type[Kit]]:
    """Yield a test class for each kit of `warp_conformance.kits.<kind>` that fits an entry."""
    module = importlib.import_module(f"warp_conformance.kits.{kind}")
    for kit, members in module.adopt(entry):
        words = entry.name.replace("-", " ").replace(".", " ").title().replace(" ", "")
        yield type(f"Test{words}{kit.__name__.removesuffix('Kit')}", (kit,), members)
