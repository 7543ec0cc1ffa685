"""The README's tour is run as it stands, against the server that its first command starts."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BLOCKS = re.compile(r"^```\n(.*?)^```$", re.M | re.S)


def test_the_tour_works(tmp_path: Path) -> None:
    if shutil.which("aws") is None:
        pytest.skip("missing: aws (package awscli)")
    install, *tour = BLOCKS.findall((ROOT / "README.md").read_text())
    assert "uv run warp serve" in install
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    (bin_ / "uv").write_text(f'#!/bin/sh\nshift 2\nexec "{sys.executable}" -m warp_cli "$@"\n')
    (bin_ / "uv").chmod(0o755)
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("WARP_", "AWS_"))}
    env = {**clean, "HOME": str(tmp_path), "PATH": f"{bin_}:{os.environ['PATH']}"}
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "warp_cli", "serve"),
            *("--set", "protocols.s3.listen=127.0.0.1:0"),
            *("--set", "protocols.sftp.listen=127.0.0.1:0"),
        ],
        cwd=tmp_path,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert server.stdout is not None
        endpoint = json.loads(server.stdout.readline())["endpoints"]["s3"]
        script = "\n".join(tour).replace("http://127.0.0.1:9000", endpoint)
        script = script.replace("warp bench", "warp bench --seconds 0.2")
        if shutil.which("qemu-img") is None:
            script = re.sub(r"^qemu-img .*$", "", script, flags=re.M)
        done = subprocess.run(
            [
                "bash",
                "-e",
                "-c",
                f"shopt -s expand_aliases\n{script}\ns3 ls s3://docs/today/guides/",
            ],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            timeout=120,
        )
    finally:
        server.kill()
        server.wait()
        if server.stdout is not None:
            server.stdout.close()

    told = done.stdout + done.stderr
    assert done.returncode == 0, told
    assert told.count("configuration.md") >= 3, "stored, shown in the snapshot, and back again"
    assert "is healthy" in told
