"""As whom a command asks an S3 endpoint of ours."""

from __future__ import annotations

import os
from pathlib import Path

from warp_core.errors import Unauthenticated
from warp_core.node.root_key import FILE, root_key

from warp_cli.settings import data_of


def credentials(config: Path | None, data: Path | None) -> tuple[str, str]:
    """Return access key and secret: of the environment, else the root key of the data directory.

    Raises:
        Unauthenticated: There are none.
    """
    access, secret = os.environ.get("WARP_ACCESS_KEY"), os.environ.get("WARP_SECRET_KEY")
    if access and secret:
        return access, secret
    folder = data_of(config, data)
    if not (folder / FILE).exists():
        raise Unauthenticated(
            f"no credentials: set WARP_ACCESS_KEY and WARP_SECRET_KEY, or name the data directory ({folder}"
            f" has no {FILE})"
        )
    return root_key(folder, None)
