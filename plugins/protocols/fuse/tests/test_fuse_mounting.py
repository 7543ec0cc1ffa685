"""Where mounts may be made, and what is said where they may not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from warp_core.errors import ConfigError
from warp_core.views.files import Ref
from warp_fuse import mounting, wire
from warp_fuse.nodes import SNAPSHOTS_FROM, Nodes


def mount(directory: Path) -> int:
    return mounting.mount("v", directory, allow_other=False, read_only=False)


def test_what_is_in_the_way_is_named_and_kept(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    with pytest.raises(ConfigError, match="not empty"):
        mount(tmp_path)
    with pytest.raises(ConfigError, match="it is no directory"):
        mount(tmp_path / "precious")
    assert (tmp_path / "precious").exists()


def test_a_kernel_without_fuse_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(mounting, "DEVICE", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="this kernel has no FUSE"):
        mount(tmp_path / "at")


def test_without_root_the_package_of_the_helper_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match="apt install fuse3"):
        mount(tmp_path / "at")


def test_nodes_live_as_long_as_the_kernel_knows_them() -> None:
    nodes = Nodes(Ref("v", wire.ROOT))
    file = Ref("v", 70, wire.ROOT, b"a")
    node = nodes.told(file, "file")
    assert nodes.told(file._replace(name=b"b"), "file") is node
    assert nodes.forgotten(70, 1) is None
    assert nodes.find(70) is node
    assert nodes.forgotten(70, 1) is node
    assert nodes.find(70) is None
    assert nodes.forgotten(70, 1) is None
    assert nodes.forgotten(wire.ROOT, 9) is None


def test_a_file_of_a_snapshot_is_another_node() -> None:
    nodes = Nodes(Ref("v", wire.ROOT))
    live = nodes.told(Ref("v", 70), "file")
    past = [nodes.told(Ref("v", 70, snapshot=name), "file") for name in ("s1", "s2", "s1")]

    assert past[0] is past[2]
    assert len({live.number, past[0].number, past[1].number}) == 3
    assert past[0].number >= SNAPSHOTS_FROM


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("fusermount3: failed to open /dev/fuse: Permission denied", "chmod 666 /dev/fuse"),
        ("fusermount3: option allow_other only allowed if 'user_allow_other' is set", "--private"),
    ],
)
def test_what_the_helper_refuses_comes_with_advice(
    said: str, advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper = tmp_path / "fusermount3"
    helper.write_text(f'#!/bin/sh\necho "{said}" >&2\nexit 1\n')
    helper.chmod(0o755)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr(shutil, "which", lambda name: str(helper))

    with pytest.raises(ConfigError, match=advice):
        mount(tmp_path / "at")
