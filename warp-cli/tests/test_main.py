"""The command line: what it prints, what it refuses, and how little it costs to start."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from warp_cli.output import table
from warp_cli.serving import Options, options_of
from warp_cli.table import COMMANDS

ROOT = {"WARP_ACCESS_KEY": "", "WARP_SECRET_KEY": "", "WARP_CONFIG": "", "WARP_DATA": ""}


def warp(
    *arguments: str, cwd: Path, environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from warp_cli.main import run; run()", *arguments],
        cwd=cwd,
        env={**os.environ, **ROOT, "COLUMNS": "100", **(environ or {})},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_help_lists_every_command_and_every_command_has_help(tmp_path: Path) -> None:
    told = warp("--help", cwd=tmp_path)

    assert told.returncode == 0
    for name in COMMANDS:
        assert f"  {name} " in told.stdout
        help = warp(name, "--help", cwd=tmp_path)
        assert help.returncode == 0, help.stderr
        assert f"warp {name}" in help.stdout


def test_help_imports_neither_typer_nor_rich_nor_core(tmp_path: Path) -> None:
    code = "import sys; from warp_cli.main import main; main(['--help']); print(*sys.modules)"
    modules = subprocess.check_output([sys.executable, "-c", code], text=True).split()

    assert not {"typer", "rich", "msgspec", "asyncio", "warp_core.plugins"} & set(modules)


def test_without_a_command_the_help_is_shown_and_nothing_succeeds(tmp_path: Path) -> None:
    told = warp(cwd=tmp_path)

    assert told.returncode == 2
    assert "Usage: warp" in told.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sreve"], 'did you mean "warp serve"?'),
        (["serve", "--dta", "x"], "--dta"),
        (["serve", "--set"], "--set"),
        (["config"], "Usage: warp config"),
        (["config", "chekc"], "chekc"),
        (["plugin", "info"], "Missing argument"),
    ],
)
def test_wrong_usage_is_said_without_a_traceback(
    tmp_path: Path, arguments: list[str], said: str
) -> None:
    told = warp(*arguments, cwd=tmp_path)

    assert told.returncode == 2
    assert said in told.stderr + told.stdout
    assert "Traceback" not in told.stderr


def test_config_check_points_at_the_mistake(tmp_path: Path) -> None:
    (tmp_path / "warp.toml").write_text("[protocols.s3]\nlisten = 5\n[node]\nnmae = 'a'\n")
    told = warp("config", "check", cwd=tmp_path)

    assert told.returncode == 1
    assert told.stderr.startswith("warp: warp.toml:2: protocols.s3.listen:")
    assert 'warp: warp.toml:4: node.nmae: unknown key, did you mean "name"?' in told.stderr
    (first, second) = json.loads(warp("config", "check", "--json", cwd=tmp_path).stdout)["error"][
        "problems"
    ]
    assert first["where"] == "warp.toml:2"
    assert second["key"] == "node.nmae"


def test_init_writes_a_configuration_that_is_fine_and_a_key(tmp_path: Path) -> None:
    told = warp("init", "--data", "d", "--json", cwd=tmp_path)
    said = json.loads(told.stdout)

    assert told.returncode == 0
    assert said["access_key"] in (tmp_path / "d" / "root.key").read_text()
    checked = warp("config", "check", "--json", cwd=tmp_path)
    assert json.loads(checked.stdout)["data"] == str(tmp_path / "d"), checked.stdout
    again = warp("init", "--data", "d", cwd=tmp_path)
    assert again.returncode == 1
    assert "overwrite it with --force" in again.stderr


def test_config_show_tells_origins(tmp_path: Path) -> None:
    warp("init", cwd=tmp_path)
    shown = {
        each["key"]: each
        for each in json.loads(
            warp(
                "config",
                "show",
                "--json",
                "--data",
                "other",
                "--set",
                "log.level=debug",
                cwd=tmp_path,
                environ={"WARP_ACCESS_KEY": "root", "WARP_SECRET_KEY": "hunter2hunter2"},
            ).stdout
        )
    }

    assert shown["node.data"]["origin"] == "command line"
    assert shown["log.level"]["value"] == '"debug"'
    assert shown["metadata.engine"]["origin"].startswith("warp.toml:")
    assert shown["node.drain"]["origin"] == "default"
    assert "hunter2" not in json.dumps(shown)
    table = warp("config", "show", cwd=tmp_path).stdout
    assert "protocols.s3.listen" in table
    assert "warp.toml:" in table


def test_plugin_list_and_info_tell_what_is_installed(tmp_path: Path) -> None:
    listed = {
        (each["kind"], each["name"]): each
        for each in json.loads(warp("plugin", "list", "--json", cwd=tmp_path).stdout)
    }
    told = warp("plugin", "info", "zstd", cwd=tmp_path)

    assert listed["codecs", "zstd"]["state"] == "loaded"
    assert told.returncode == 0
    assert "warp-zstd" in told.stdout
    assert "from 1 to 19" in told.stdout
    unknown = warp("plugin", "info", "zsdt", cwd=tmp_path)
    assert unknown.returncode == 1
    assert 'did you mean "zstd"?' in unknown.stderr
    assert (
        "say stores/memory or" not in warp("plugin", "info", "stores/memory", cwd=tmp_path).stderr
    )


def test_serve_reads_its_options_like_typer_would() -> None:
    assert options_of(["--config", "a", "--data=b", "--set", "x=1", "--replace-stores"]) == Options(
        Path("a"), Path("b"), ("x=1",), True
    )
    assert options_of([]) == Options(
        Path(os.environ["WARP_CONFIG"]) if os.environ.get("WARP_CONFIG") else None
    )
    for wrong in (["--help"], ["--data"], ["extra"], ["--replace-stores=1"], ["--conf", "x"]):
        assert options_of(wrong) is None


def test_a_table_without_rows_is_its_head(capsys: pytest.CaptureFixture[str]) -> None:
    table(("key", "created"), [])

    assert capsys.readouterr().out == "key  created\n"
