"""As whom to ask: keys from the environment, or from a file that only its owner may read."""

from __future__ import annotations

import configparser
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from warp_core.errors import ConfigError

from warp_store_s3.config import Config


class Credentials(NamedTuple):
    """A key pair, with the token of a session if there is one."""

    access_key: str
    secret_key: str
    token: str = ""

    def __repr__(self) -> str:
        return f"Credentials({self.access_key!r})"


def find_credentials(config: Config, data: Path, environ: Mapping[str, str]) -> Credentials:
    """Read the keys from where a configuration says that they are.

    Raises:
        ConfigError: They are not there, or others may read them.
    """
    if config.credentials:
        return _from_file(Path(data, Path(config.credentials).expanduser()), config.profile)
    names = (config.access_key_variable, config.secret_key_variable)
    missing = [name for name in names if not environ.get(name)]
    if missing:
        raise ConfigError(
            f"store {config.place}: {' and '.join(missing)} not set in the environment; set it, or name a"
            " file with `credentials`"
        )
    access_key, secret_key = (environ[name] for name in names)
    return Credentials(access_key, secret_key, environ.get(config.token_variable, ""))


def _from_file(path: Path, profile: str) -> Credentials:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = os.strerror(error.errno or 0) if isinstance(error, OSError) else "is no text"
        raise ConfigError(f"credentials {path} cannot be read ({reason})") from None
    if mode & 0o077:
        raise ConfigError(f"others may read {path} (mode {mode:03o}): chmod 600 it")
    parser = configparser.ConfigParser(interpolation=None, default_section="\0")
    try:
        parser.read_string(text)
        section = parser[profile]
        return Credentials(
            section["aws_access_key_id"],
            section["aws_secret_access_key"],
            section.get("aws_session_token", ""),
        )
    except configparser.Error:
        raise ConfigError(f"credentials {path}: not of the form [PROFILE], NAME = VALUE") from None
    except KeyError as error:
        raise ConfigError(f"credentials {path}: {error} is missing in [{profile}]") from None
