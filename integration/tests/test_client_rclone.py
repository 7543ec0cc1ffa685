"""rclone keeps two folders the same: changes, deletions, moves within the server, ranges, what may not change."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from warp_integration.clients import REGION, files_of, mixed_files
from warp_integration.requirements import locate, require
from warp_integration.server import ACCESS_KEY, SECRET_KEY, WarpServer

pytestmark = [pytest.mark.workspace, pytest.mark.usefixtures("warp_serve"), pytest.mark.slow]


def test_rclone_keeps_a_folder_and_its_copies_the_same(server: WarpServer, tmp_path: Path) -> None:
    require("rclone")
    options = {
        "RCLONE_CONFIG_WARP_TYPE": "s3",
        "RCLONE_CONFIG_WARP_PROVIDER": "Other",
        "RCLONE_CONFIG_WARP_ENDPOINT": server.s3,
        "RCLONE_CONFIG_WARP_REGION": REGION,
        "RCLONE_CONFIG_WARP_ACCESS_KEY_ID": ACCESS_KEY,
        "RCLONE_CONFIG_WARP_SECRET_ACCESS_KEY": SECRET_KEY,
        "RCLONE_CONFIG": "/dev/null",
        "RCLONE_LOW_LEVEL_RETRIES": "1",
        "RCLONE_RETRIES": "1",
    }

    def rclone(*words: str | Path, fails: bool = False) -> bytes:
        done = subprocess.run(
            [str(locate("rclone")), *words],
            env=os.environ | options,
            capture_output=True,
            timeout=200,
        )
        assert bool(done.returncode) == fails, done.stderr[-3000:]
        return done.stdout

    source = tmp_path / "source"
    source.mkdir()
    mixed_files(source, count=30, large=12 << 20, seed=3)
    rclone("mkdir", "warp:rclone-kept")
    rclone("sync", source, "warp:rclone-kept/tree")
    gone, changed = [path for path in sorted(source.rglob("*")) if path.is_file()][:2]
    gone.unlink()
    changed.write_bytes(b"changed")
    (source / "new").write_bytes(b"new")

    rclone("sync", source, "warp:rclone-kept/tree")
    rclone("check", "--download", source, "warp:rclone-kept/tree")
    rclone("copy", "warp:rclone-kept/tree", "warp:rclone-kept/copy")  # copies within the server
    rclone("moveto", "warp:rclone-kept/copy/large", "warp:rclone-kept/copy/moved")
    rclone("moveto", "warp:rclone-kept/copy/moved", "warp:rclone-kept/copy/large")
    rclone("sync", "warp:rclone-kept/copy", tmp_path / "back")
    assert files_of(tmp_path / "back") == files_of(source)
    part = rclone("cat", "--offset", "7000000", "--count", "1000", "warp:rclone-kept/tree/large")
    assert part == (source / "large").read_bytes()[7_000_000:7_001_000]
    (source / "new").write_bytes(b"newer")
    rclone("copy", "--immutable", source, "warp:rclone-kept/tree", fails=True)
    assert rclone("cat", "warp:rclone-kept/tree/new") == b"new"
    rclone("purge", "warp:rclone-kept")
    assert b"rclone-kept" not in rclone("lsd", "warp:")
