"""What all nodes of a cluster need the same, and a node that joins is handed: keys in files, and the authority that certifies nodes.

Only files in the data folder are handed over. One that an operator keeps elsewhere is kept apart from the data on purpose: it is
named, and carried by hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from warp_core.cluster.joining import Handed
from warp_core.config import Settings
from warp_core.errors import InvalidArgument
from warp_core.key_files import make_key_file, read_key_file
from warp_core.node.data_directory import replace_durably
from warp_core.registry import Entry, Registry

if TYPE_CHECKING:
    from warp_core.plugins import Plugins

AUTHORITY = (
    "tls/authority"  # in the data folder: `ca.pem` and `ca.key`, of nodes that may let others in
)
FILES_MAX = 32
FILE_MAX = 16 * 1024  # bytes: a certificate with its chain; keys are 32


def hand_over(settings: Settings, plugins: Plugins) -> Handed:
    """Return what a node needs that joins and keeps volumes. A key that was not needed yet is made, so that there is one.

    Raises:
        StoreFailed, ConfigError, Corrupt: A key cannot be read or made.
    """
    data = settings.data
    files = {
        f"{AUTHORITY}/{name}": (data / AUTHORITY / name).read_bytes()
        for name in ("ca.pem", "ca.key")
    }
    tables: dict[str, dict[str, str]] = {}
    elsewhere: list[str] = []
    for table, entry, config in _parts(settings, plugins.registries):
        if entry.key_files is None:
            continue
        default = entry.key_files(entry.config(), data)
        for option, path in entry.key_files(config, data).items():
            if not path.resolve().is_relative_to(data.resolve()):
                elsewhere.append(str(path))
                continue
            name = path.resolve().relative_to(data.resolve()).as_posix()
            files[name] = read_key_file(path) or make_key_file(path)
            if default.get(option) != path:
                tables.setdefault(table, {})[option] = name
    return Handed(files, tables, tuple(elsewhere))


def _parts(
    settings: Settings, registries: Mapping[str, Registry[Any]]
) -> Iterator[tuple[str, Entry[Any], Any]]:
    parts = [settings.auth, *([settings.kms.part] if settings.kms.part else [])]
    for part in parts:
        yield part.key, registries[part.kind].get(part.name), part.config
    for name, config in settings.codecs.items():
        yield f"codecs.{name}", registries["codecs"].get(name), config


def take(data: Path, handed: Handed) -> None:
    """Write what a node was given into its data folder, mode 0600.

    Raises:
        InvalidArgument: It is more than that, or would lie elsewhere.
        StoreFailed: It cannot be written.
    """
    if len(handed.files) > FILES_MAX:
        raise InvalidArgument(f"{len(handed.files)} files > FILES_MAX {FILES_MAX}")
    for name, content in handed.files.items():
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name:
            raise InvalidArgument(f"a file {name!r} is outside of the data folder")
        if len(content) > FILE_MAX:
            raise InvalidArgument(f"file {name!r} of {len(content)} bytes > FILE_MAX {FILE_MAX}")
    for name, content in handed.files.items():
        (data / name).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        replace_durably(data / name, content, mode=0o600)
