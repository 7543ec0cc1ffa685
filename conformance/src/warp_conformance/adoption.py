"""Adoption of installed plugins: which kits fit what a plugin offers, with the configuration that the plugin names as a sample."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pluggy
import pytest
from warp_core import hooks
from warp_core.registry import KINDS, Entry, Registry

from warp_conformance.kit import Kit

GROUP = "warp.plugins"


@dataclass(frozen=True, slots=True)
class Offer:
    """One entry of an installed plugin."""

    kind: str
    entry: Entry[Any]
    owner: str  # distribution


def offers(name: str) -> list[Offer]:
    """Return what the installed plugin `name` offers; `codecs/zstd` and `codecs.zstd` say the kind as well.

    Raises:
        UsageError: No such plugin is installed; the message lists those that are.
    """
    wanted = name.replace("/", ".")
    found = [offer for point in _points(wanted) for offer in _offered_by(point)]
    named = [
        offer for offer in found if wanted in (offer.entry.name, f"{offer.kind}.{offer.entry.name}")
    ]
    if not found:
        installed = ", ".join(sorted(point.name for point in entry_points(group=GROUP)))
        raise pytest.UsageError(
            f'no installed WARP plugin is called "{name}" (installed: {installed})'
        )
    return named or found


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


def _points(wanted: str) -> Iterator[EntryPoint]:
    for point in entry_points(group=GROUP):
        distribution = point.dist.name if point.dist else ""
        if wanted in (point.name, point.name.partition(".")[2], distribution):
            yield point


def _offered_by(point: EntryPoint) -> Iterator[Offer]:
    manager = pluggy.PluginManager("warp")
    manager.add_hookspecs(hooks)
    manager.register(point.load())
    owner = point.dist.name if point.dist else point.value
    for kind in KINDS:
        registry: Registry[Any] = Registry(kind)
        registry.offering_as(owner)
        getattr(manager.hook, f"warp_register_{kind}")(registry=registry)
        yield from (Offer(kind, entry, owner) for entry in registry)
