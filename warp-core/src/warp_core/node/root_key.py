"""The root access key: from the environment, or generated once and kept in the data directory."""

from __future__ import annotations

import base64
import os
import re
import secrets
from pathlib import Path

from warp_core.errors import Corrupt, StoreFailed
from warp_core.node.data_directory import replace_durably

FILE = "root.key"

# Shell syntax, so that `set -a; . warp-data/root.key` gives a client its credentials.
_LINE = re.compile(r"WARP_(ACCESS|SECRET)_KEY=([!-~]+)")


def root_key(data: Path, given: tuple[str, str] | None) -> tuple[str, str]:
    """Return the root's access key and secret: `given`, else those in `data`, made at their first use.

    Raises:
        Corrupt: The file does not read as a key.
        StoreFailed: It cannot be read or written.
    """
    if given is not None:
        return given[0], str(given[1])
    path = data / FILE
    try:
        text = path.read_text(encoding="ascii")
    except FileNotFoundError:
        return _make(path)
    except UnicodeDecodeError:
        text = ""
    except OSError as error:
        raise StoreFailed(
            f"the root key {path} cannot be read ({os.strerror(error.errno or 0)}): run warp as its owner"
        ) from None
    lines = map(_LINE.fullmatch, text.splitlines())
    found = {str(match[1]): str(match[2]) for match in lines if match is not None}
    if found.keys() != {"ACCESS", "SECRET"}:
        raise Corrupt(
            f"{path} does not hold WARP_ACCESS_KEY= and WARP_SECRET_KEY= lines: delete it to get a new"
            " key, or set both in the environment"
        )
    return found["ACCESS"], found["SECRET"]


def _make(path: Path) -> tuple[str, str]:
    access = "WARP" + base64.b32encode(secrets.token_bytes(10)).decode()
    secret = secrets.token_urlsafe(30)
    text = f"WARP_ACCESS_KEY={access}\nWARP_SECRET_KEY={secret}\n"
    try:
        replace_durably(path, text.encode(), mode=0o600)
    except OSError as error:
        raise StoreFailed(
            f"the root key {path} cannot be written ({os.strerror(error.errno or 0)}): make the data"
            " directory writable, or set WARP_ACCESS_KEY and WARP_SECRET_KEY"
        ) from None
    return access, secret
