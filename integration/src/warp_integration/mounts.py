"""Volumes mounted by `warp serve` over FUSE."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from warp_integration.namespace import MountNamespace
from warp_integration.requirements import require, require_root
from warp_integration.server import ACCESS_KEY, SECRET_KEY, WarpServer, config_text


class Mounted:
    """A server with a volume `data` mounted twice, in a mount namespace that nothing outlives."""

    def __init__(self, folder: Path, namespace: MountNamespace, extra: str = "") -> None:
        self._namespace = namespace
        self._places = places = [folder / "one", folder / "two"]
        lines = [f'{json.dumps(str(place))} = "data"' for place in places]
        config = folder / "warp.toml"
        config.write_text(
            config_text(
                extra="\n".join(("[protocols.fuse]", extra, "[protocols.fuse.mounts]", *lines))
            )
        )
        self.server = WarpServer(
            folder / "data", config=config, logs=folder, prefix=namespace.prefix
        )
        self.one, self.two = (namespace.path(place) for place in places)

    def s3(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.server.s3,
            region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
        )

    def run(self, *words: str) -> str:
        """Run a program where the mounts are; `{one}` and `{two}` name them."""
        one, two = (str(place) for place in self._places)
        return self._namespace.run(
            *({"{one}": one, "{two}": two}.get(word, word) for word in words)
        )

    def mount_image(self, image: Path, at: Path) -> Path:
        """Mount a disk image where the mounts are, and return where that is reached."""
        self._namespace.mount_image(image, at)
        return self._namespace.path(at)

    def mounts(self) -> int:
        table = self._namespace.run("cat", "/proc/self/mountinfo").splitlines()
        return sum(line.split()[4] in map(str, self._places) for line in table)


@contextlib.contextmanager
def mounted(folder: Path, extra: str = "") -> Iterator[Mounted]:
    require_root()
    require("unshare", "nsenter", "setpriv")
    if not Path("/dev/fuse").exists():
        pytest.skip("missing: /dev/fuse (kernel module fuse)")
    with MountNamespace() as namespace:
        volume = Mounted(folder, namespace, extra)
        with volume.server:
            yield volume
