"""The guides' commands and programs do what the guides say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

GUIDES = Path(__file__).parent / "guides"
FILE = re.compile(r"```python file=(\S+)\n(.*?)```", re.S)
SETTINGS = re.compile(r"```toml file=(\S+)\n(.*?)```", re.S)


def test_the_first_plugin_is_green_after_its_methods_are_filled(tmp_path: Path) -> None:
    warp = [sys.executable, "-m", "warp_cli"]
    subprocess.run([*warp, "plugin", "new", "codecs/deflate"], cwd=tmp_path, check=True)
    kit = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "warp-deflate"]
    paths = {**os.environ, "PYTHONPATH": str(tmp_path / "warp-deflate" / "src")}
    before = subprocess.run(kit, cwd=tmp_path, env=paths, capture_output=True, text=True)
    programs = FILE.findall((GUIDES / "first-plugin.md").read_text())
    for name, text in programs:
        (tmp_path / name).write_text(text)

    after = subprocess.run(kit, cwd=tmp_path, env=paths, capture_output=True, text=True)

    assert programs
    assert before.returncode == 1, "an empty skeleton keeps no promise"
    assert after.returncode == 0, after.stdout


@pytest.mark.parametrize("guide", ["s3-suites", "events", "tiers", "administration"])
def test_the_settings_of_a_guide_are_fine(guide: str, tmp_path: Path) -> None:
    [(name, text)] = SETTINGS.findall((GUIDES / f"{guide}.md").read_text())
    (tmp_path / name).write_text(text)
    check = [sys.executable, "-m", "warp_cli", "config", "check", "--config", name]

    checked = subprocess.run(check, cwd=tmp_path, capture_output=True, text=True)

    assert checked.returncode == 0, checked.stderr
    assert "s3" in checked.stdout
