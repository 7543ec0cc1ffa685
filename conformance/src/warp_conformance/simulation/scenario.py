"""Scenarios: which machines there are, what clients do, what goes wrong; a TOML file each."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec
from warp_core.errors import ConfigError, NotFound

_HERE = Path(__file__).resolve().parent
# Beside the package in a wheel, beside the sources in a checkout.
FOLDERS = (_HERE.parent / "scenarios", *(parent / "scenarios" for parent in _HERE.parents[2:4]))

Span = tuple[float, float]  # seconds, of which one number between is drawn


class Node(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[nodes.NAME]`: see `machine.Shape`."""

    disks: int = 1
    copies: int = 1
    uses: tuple[str, ...] = ()
    exports: tuple[str, ...] = ()
    serves: bool = True


class Workload(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[[workload]]`: clients of the volume `volume` on the node `node`.

    `slow_s`, times 0 to 3, is what a client of objects waits between two parts of a large body. In a cluster clients of objects
    and files that are `anywhere` ask any node, which forwards what has its home elsewhere; others ask the home itself.
    """

    kind: Literal["objects", "files", "disk"]
    node: str
    volume: str
    redundancy: str = "none"
    clients: int = 3
    keys: int = 3
    sizes: tuple[int, ...] = (10, 3000, 50_000)
    versioning: bool = False
    slow_s: float = 0.05
    anywhere: bool = False


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[[fault]]`: something that goes wrong again and again.

    Attributes:
        kind: `kill` (SIGKILL), `power` (process, page cache and unsynced writes), `pause` (SIGSTOP), `clock` (the wall clock
            jumps), `disk` (a disk answers some calls with errors), `stall` (a disk does not answer), `full` (somebody else fills a
            disk, all but `room` bytes), `cut` and `cut one way` (the
            network), `reset` (links end), `remove` (a node of a cluster is lost for good, and the others are told; once).
        node: Whose.
        other: For those of the network: between `node` and this; "quorum" is the consensus.
        every_s: Between the end of one and the next.
        for_s: How long it lasts.
        calls: Of `disk`: which ones fail.
        exported: Of `disk`, `stall` and `full`: the disk is one that the node exports.
        room: Of `full`: bytes that are left; what is reserved for what frees space is part of it.
    """

    kind: Literal[
        "kill",
        "power",
        "pause",
        "clock",
        "disk",
        "stall",
        "full",
        "cut",
        "cut one way",
        "reset",
        "remove",
    ]
    node: str
    other: str = ""
    every_s: Span = (1.0, 4.0)
    for_s: Span = (0.1, 1.0)
    calls: tuple[str, ...] = ("write", "sync")
    exported: bool = False
    room: int = 1_500_000


class Scenario(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file. `load_s` is how long clients work, in virtual seconds."""

    about: str
    load_s: float
    nodes: dict[str, Node]
    cluster: bool = False  # its nodes form one: each can be the home of every domain
    workload: tuple[Workload, ...] = ()
    fault: tuple[Fault, ...] = ()


def names() -> Iterator[str]:
    """Yield the scenarios that there are, sorted."""
    for folder in FOLDERS:
        if folder.is_dir():
            yield from sorted(path.stem for path in folder.glob("*.toml"))
            return


def load(name: str) -> Scenario:
    """Read a scenario by its name, or by the path of its file.

    Raises:
        NotFound: There is none.
        ConfigError: It cannot be read.
    """
    paths = [Path(name)] if name.endswith(".toml") else [each / f"{name}.toml" for each in FOLDERS]
    path = next((each for each in paths if each.is_file()), None)
    if path is None:
        raise NotFound(f'there is no scenario "{name}": there are {", ".join(names())}')
    try:
        scenario = msgspec.convert(tomllib.loads(path.read_text()), type=Scenario)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    known = {*scenario.nodes, "quorum", ""}
    used = [(f"workload {each.volume}", each.node) for each in scenario.workload]
    used += [
        (f"fault {each.kind}", name) for each in scenario.fault for name in (each.node, each.other)
    ]
    for place, node in used:
        if node not in known:
            raise ConfigError(f'{path}: {place} names the node "{node}", which is not in [nodes]')
    return scenario
