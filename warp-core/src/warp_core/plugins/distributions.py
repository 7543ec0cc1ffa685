"""Which distribution an entry point belongs to, and which warp-core it asks for.

`importlib.metadata` parses metadata with the e-mail package, which costs more than everything else
here; the few header lines that matter are read directly.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from warp_core import __version__


@dataclass(frozen=True, slots=True)
class Distribution:
    """An installed distribution; `core` is its version requirement on warp-core, "" without one."""

    name: str
    version: str
    core: str = ""

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


def owners(group: str) -> dict[tuple[str, str], list[Distribution]]:
    """Return who declares each (entry name, value) of a group, in the folders of `sys.path`."""
    found: dict[tuple[str, str], list[Distribution]] = {}
    seen: set[str] = set()
    for info in _infos(sys.path):
        entries = list(_entries(info / "entry_points.txt", group))
        if not entries:
            continue
        owner = _distribution(info)
        if owner.name in seen:  # shadowed by an earlier folder of the path, as for imports
            continue
        seen.add(owner.name)
        for entry in entries:
            found.setdefault(entry, []).append(owner)
    return found


def refusal(owner: Distribution) -> str:
    """Say why a distribution does not fit the installed warp-core, or "" if it does."""
    wanted = owner.core
    if not wanted or wanted == f"=={__version__}":
        return ""
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        fits = SpecifierSet(wanted).contains(__version__, prereleases=True)
    except InvalidSpecifier:
        return f"{owner} has an unreadable requirement on warp-core: {wanted}"
    if fits:
        return ""
    return (
        f"{owner} needs warp-core{wanted}, installed is {__version__}:"
        f" install a release of {owner.name} that fits, or upgrade warp-core"
    )


def _infos(search: Sequence[str]) -> Iterator[Path]:
    for folder in dict.fromkeys(search):
        try:
            names = sorted(os.listdir(folder or "."))
        except OSError:
            continue
        yield from (
            Path(folder, name) for name in names if name.endswith((".dist-info", ".egg-info"))
        )


def _entries(path: Path, group: str) -> Iterator[tuple[str, str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return
    inside = False
    for line in map(str.strip, text.splitlines()):
        if line.startswith("["):
            inside = line == f"[{group}]"
        elif inside and "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            yield name.strip(), value.strip()


def _distribution(info: Path) -> Distribution:
    name, version, core = info.name.partition("-")[0], "?", ""
    for file in ("METADATA", "PKG-INFO"):
        try:
            text = (info / file).read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        for line in text.partition("\n\n")[0].splitlines():
            key, _, value = line.partition(": ")
            if key == "Name":
                name = value.strip()
            elif key == "Version":
                version = value.strip()
            elif key == "Requires-Dist" and "extra ==" not in value:
                requirement = value.partition(";")[0].replace("(", "").replace(")", "")
                head = requirement.replace("_", "-").strip()
                if head.startswith("warp-core"):
                    core = head[len("warp-core") :].replace(" ", "")
        break
    return Distribution(name, version, core if core[:1] in "<>=!~" else "")
