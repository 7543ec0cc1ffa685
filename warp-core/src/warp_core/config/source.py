"""Where settings come from: a file, the environment, the command line; and where each key stands."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli

from warp_core.config.positions import Path as Keys
from warp_core.config.positions import positions
from warp_core.errors import ConfigError

FILE_MAX = 1024 * 1024  # bytes; a configuration of a thousand stores takes 100 KiB

# What the environment may set, beside WARP_CONFIG (the file) and the root key.
ENVIRONMENT: Mapping[str, Keys] = {
    "WARP_DATA": ("node", "data"),
    "WARP_LOG_LEVEL": ("log", "level"),
    "WARP_LOG_FORMAT": ("log", "format"),
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a configuration."""

    where: str  # "warp.toml:12", "command line", "environment WARP_DATA"
    key: str
    message: str
    found: str = ""
    allowed: str = ""

    def __str__(self) -> str:
        text = (
            f"{self.where}: {self.key}: {self.message}"
            if self.key
            else f"{self.where}: {self.message}"
        )
        if self.found:
            text += f"; found {self.found}"
        if self.allowed:
            text += f"; allowed: {self.allowed}"
        return text


class Source:
    """A merged document that knows where each of its keys was said."""

    def __init__(self, document: dict[str, Any], origins: dict[Keys, str], label: str) -> None:
        self.document = document
        self.label = label
        self.problems: list[Problem] = []
        self._origins = origins

    def where(self, path: Keys) -> str:
        """Return the origin of a key, or of the nearest table that contains it."""
        while path:
            if path in self._origins:
                return self._origins[path]
            path = path[:-1]
        return self.label

    def said(self, path: Keys) -> str | None:
        """Return the origin of a key that was said, None for a default."""
        return self._origins.get(path)

    def problem(self, path: Keys, message: str, *, found: object = None, allowed: str = "") -> None:
        """Note what is wrong with a key."""
        shown = "" if found is None else toml(found)
        self.problems.append(Problem(self.where(path), dotted(path), message, shown, allowed))

    def override(self, path: Keys, value: object, origin: str) -> None:
        """Set a key over what was said before."""
        table: Any = self.document
        for depth, key in enumerate(path[:-1]):
            if isinstance(key, str) and isinstance(table, dict):
                table = table.setdefault(key, {})
            elif isinstance(key, int) and isinstance(table, list) and key < len(table):
                table = table[key]
            if not isinstance(table, dict | list):
                self.problem(path[: depth + 1], "is no table, so nothing in it can be set")
                return
        if not isinstance(table, dict):
            self.problem(path, f"cannot be set by the {origin}", allowed="a key of a table")
            return
        table[path[-1]] = value
        self._origins = {
            known: at for known, at in self._origins.items() if known[: len(path)] != path
        }
        self._origins[path] = origin


def read(
    file: Path | None,
    *,
    environ: Mapping[str, str],
    options: Sequence[tuple[str, str]] = (),
) -> Source:
    """Read the file (None: there is none) and lay environment and command line over it.

    Args:
        file: The TOML file.
        environ: The process environment.
        options: (key, value) as given on the command line; the value is TOML, or else taken as text.

    Raises:
        ConfigError: The file cannot be read, or is no TOML.
    """
    if file is None:
        source = Source({}, {}, "default")
    else:
        label = os.path.relpath(file) if file.is_relative_to(Path.cwd()) else str(file)
        text = _text(file, label)
        try:
            document = tomli.loads(text)
        except tomli.TOMLDecodeError as error:
            problem = Problem(
                f"{label}:{error.lineno}", "", f"no TOML: {error.msg} (column {error.colno})"
            )
            raise ConfigError(str(problem), problems=[problem]) from None
        lines = positions(text)
        source = Source(document, {path: f"{label}:{line}" for path, line in lines.items()}, label)
    for name, path in ENVIRONMENT.items():
        if environ.get(name):
            source.override(path, environ[name], f"environment {name}")
    for key, value in options:
        source.override(_path(key), _value(value), "command line")
    return source


def dotted(path: Keys) -> str:
    """Return a path as people write it: `store[0].path`."""
    text = ""
    for key in path:
        text += f"[{key}]" if isinstance(key, int) else f".{key}" if text else key
    return text


def toml(value: object) -> str:
    """Return a value as TOML shows it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'"{escaped}"'
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml(item) for item in value) + "]"
    if isinstance(value, dict):
        return "a table"
    return "automatic" if value is None else str(value)


def _text(file: Path, label: str) -> str:
    try:
        with file.open("rb") as stream:
            data = stream.read(FILE_MAX + 1)
        if len(data) > FILE_MAX:
            raise ConfigError(f"{label}: larger than {FILE_MAX} bytes: is it a configuration?")
        return data.decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(
            f"{label}: no such file: write one with `warp init`, or leave out --config"
        ) from None
    except OSError as error:
        raise ConfigError(
            f"{label}: cannot be read ({error.strerror}): check its permissions"
        ) from None
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{label}:{line}: not UTF-8: save the file in that encoding") from None


def _path(key: str) -> Keys:
    path: list[str | int] = []
    for part in key.split("."):
        name, _, index = part.partition("[")
        path.append(name)
        if index.endswith("]") and index[:-1].isdecimal():
            path.append(int(index[:-1]))
    return tuple(path)


def _value(text: str) -> object:
    try:
        return tomli.loads(f"value = {text}")["value"]
    except tomli.TOMLDecodeError:
        return text
