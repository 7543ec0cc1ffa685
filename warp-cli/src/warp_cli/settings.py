"""From the command line's common options to settings."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from warp_core.config import Node, Settings
from warp_core.config.load import load
from warp_core.config.source import read
from warp_core.errors import ConfigError
from warp_core.plugins import Plugins

DEFAULT_FILE = "warp.toml"


def settings_of(
    config: Path | None,
    data: Path | None,
    sets: Sequence[str] = (),
    *,
    plugins: Plugins | None = None,
) -> Settings:
    """Return the settings that these options mean.

    Without `--config`, a `warp.toml` where the command runs is used; without one, the defaults.

    Raises:
        ConfigError: Something is wrong with them.
    """
    environ = dict(os.environ)
    options = [_pair(text) for text in sets]
    if data is not None:
        environ.pop("WARP_DATA", None)
        options.append(("node.data", _toml_text(data)))
    if config is None and Path(DEFAULT_FILE).is_file():
        config = Path(DEFAULT_FILE)
    return load(
        config.absolute() if config else None,
        catalog=plugins or Plugins(),
        environ=environ,
        options=options,
    )


def data_of(config: Path | None, data: Path | None) -> Path:
    """Return the data directory that these options mean, without looking at the other settings."""
    if data is not None:
        return data.expanduser().absolute()
    if config is None and Path(DEFAULT_FILE).is_file():
        config = Path(DEFAULT_FILE)
    source = read(config.absolute() if config else None, environ=os.environ)
    table = source.document.get("node", {})
    written = table.get("data") if isinstance(table, dict) else None
    folder = Path(written if isinstance(written, str) else Node().data).expanduser()
    from_file = config is not None and "WARP_DATA" not in source.where(("node", "data"))
    return Path(config.absolute().parent if config and from_file else Path.cwd(), folder)


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(
            f'command line: --set {text}: allowed: KEY=VALUE, as in protocols.s3.listen="..."'
        )
    return key.strip(), value.strip()


def _toml_text(path: Path) -> str:
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
