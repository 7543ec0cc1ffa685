"""What people get wrong: each is told in a sentence that says where it is and what to do."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from unittest import mock

import pytest
from warp_cli.main import main

WARP = [sys.executable, "-c", "from warp_cli.main import run; run()"]
S3 = "[protocols.s3]\nlisten = '127.0.0.1:0'\n"


def clean(extra: Mapping[str, str]) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("WARP_")}
    return {**kept, "COLUMNS": "100", **extra}


def warp(folder: Path, *arguments: str, **environ: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.dict(os.environ, clean(environ), clear=True),
        contextlib.chdir(folder),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        code = main(arguments)
    return code, out.getvalue(), err.getvalue()


def serve(
    folder: Path, *arguments: str, extra: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    command = [*WARP, "serve", *arguments]
    return subprocess.run(
        command, cwd=folder, env=clean(extra or {}), capture_output=True, text=True, timeout=60
    )


WRONG = [  # the text, the line, the key, what is allowed or to do
    ("[node]\nname = 5\n" + S3, 2, "node.name", "allowed: text"),
    ("[node]\nnmae = 'a'\n" + S3, 2, "node.nmae", 'did you mean "name"?'),
    ("[node]\ndrain = 'soon'\n" + S3, 2, "node.drain", '"250ms", "10s"'),
    ("[nod]\nname = 'a'\n" + S3, 1, "nod", 'did you mean "node"?'),
    ("[log]\nlevel = 'loud'\n" + S3, 2, "log.level", '"debug", "info", "warning", "error"'),
    ("[log]\nformat = 'xml'\n" + S3, 2, "log.format", '"auto"'),
    ("[metadata]\nengine = 'locla'\n" + S3, 2, "metadata.engine", "allowed: etcd, local, memory"),
    ("[metadata]\ncopies = -1\n" + S3, 2, "metadata.copies", "allowed:"),
    ("[metadata]\ncopies = 3\n" + S3, 2, "metadata.copies", "store"),
    ("[[store]]\nkind = 'dsik'\n" + S3, 2, "store[0].kind", 'did you mean "disk"?'),
    ("[[store]]\nkind = 'disk'\npath = 3\n" + S3, 3, "store[0].path", "allowed: text"),
    ("[[store]]\npath = 'a'\nreserve = 'much'\n" + S3, 3, "store[0].reserve", 'such as "64KiB"'),
    ("[[store]]\npath = 'a'\n[[store]]\npath = 'a'\n" + S3, 4, "store[1].path", "warp.toml:2"),
    ("[store]\npath = 'a'\n" + S3, 1, "store", "[[store]]"),
    (S3 + "[policy.default]\nredundancy = 'raid5'\n", 4, "policy.default.redundancy", "replica:N"),
    (S3 + "[policy.default]\nredundancy = 'replica:2'\n", 4, "policy.default.redundancy", "store"),
    (S3 + "[policy.default]\nchunker = 'zstd'\n", 4, "policy.default.chunker", "chunker"),
    (S3 + "[policy.default]\nchunker = 'fixed:1'\n", 4, "policy.default.chunker", "KiB"),
    (S3 + "[policy.default]\nfilters = ['zsdt']\n", 4, "policy.default.filters", "zstd"),
    (S3 + "[policy.default]\nfilters = ['zstd:99']\n", 4, "policy.default.filters", "19"),
    (S3 + "[policy.default]\nverify = 'never'\n", 4, "policy.default.verify", '"always", "scrub"'),
    (S3 + "[policy.default]\ndedup = 'on'\n", 4, "policy.default.dedup", '"off"'),
    ("[protocols.s3]\nlisten = 9000\n", 2, "protocols.s3.listen", 'allowed: "HOST:PORT"'),
    ("[protocols.s3]\nlisten = '127.0.0.1'\n", 2, "protocols.s3.listen", 'allowed: "HOST:PORT"'),
    ("[protocols.s3]\nlisten = '0.0.0.0:9000'\n", 2, "protocols.s3", "tls_certificate"),
    ("[protocols.s3]\nconnections_max = 0\n", 2, "protocols.s3.connections_max", "allowed:"),
    ("[protocols.s33]\nlisten = 'x:1'\n", 1, "protocols.s33", 'did you mean "s3"?'),
    ("[protocols.ftp]\n", 1, "protocols.ftp", "s3"),
    (S3 + "[services.cg]\n", 3, "services.cg", 'did you mean "gc"?'),
    (S3 + "[services.gc]\nenabled = 'yes'\n", 4, "services.gc.enabled", "true or false"),
    (S3 + "[auth]\nkind = 'kyes'\n", 4, "auth.kind", 'did you mean "keys"?'),
    ("[protocols.s3\nlisten = 'x:1'\n", 1, "", "TOML"),
    ("[protocols.s3]\nlisten = 'a:1'\nlisten = 'b:1'\n", 3, "", "TOML"),
]


@pytest.mark.workspace
@pytest.mark.parametrize(
    ("text", "line", "key", "said"), WRONG, ids=[f"{w[2]}-{n}" for n, w in enumerate(WRONG)]
)
def test_a_wrong_configuration_gets_file_line_key_and_what_is_allowed(
    tmp_path: Path, text: str, line: int, key: str, said: str
) -> None:
    (tmp_path / "warp.toml").write_text(text)
    code, out, err = warp(tmp_path, "config", "check")

    assert code == 1
    assert out == ""
    (told,) = err.splitlines()
    assert re.match(rf"warp: warp\.toml:{line}: {re.escape(key)}", told), told
    assert said in told


def plugin(site: Path, distribution: str, entry: str, module: str, code: str = "") -> None:
    """Install a distribution that offers one entry."""
    info = site / f"{distribution.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {distribution}\nVersion: 1.0\n\n")
    (info / "entry_points.txt").write_text(f"[warp.plugins]\n{entry} = {module}\n")
    (site / f"{module}.py").write_text(code)


@pytest.mark.workspace
def test_two_owners_of_a_name_are_both_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    plugin(tmp_path / "site", "warp-other", "codecs.zstd", "warp_other")
    extra = {"PYTHONPATH": str(tmp_path / "site"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    listed = subprocess.run(
        [*WARP, "plugin", "list", "--json"],
        cwd=tmp_path,
        env=clean(extra),
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert listed.returncode == 1
    failed = [each for each in json.loads(listed.stdout) if each["state"] == "failed"]
    assert failed
    for each in failed:
        assert "warp-other" in each["reason"]
        assert "warp-zstd" in each["reason"]
    (tmp_path / "warp.toml").write_text(S3 + "[policy.default]\nfilters = ['zstd']\n")
    told = serve(tmp_path, extra=extra)
    assert told.returncode == 1
    (line,) = told.stderr.splitlines()
    assert "warp.toml:4: policy.default.filters" in line
    assert "warp-other" in line
    assert "warp-zstd" in line


@pytest.mark.workspace
def test_serve_tells_a_wrong_configuration_as_check_does(tmp_path: Path) -> None:
    (tmp_path / "warp.toml").write_text("[node]\nnmae = 'a'\n" + S3)
    told = serve(tmp_path)

    assert told.returncode == 1
    assert told.stdout == ""
    assert told.stderr == warp(tmp_path, "config", "check")[2]
    problem = json.loads(serve(tmp_path, "--json").stdout)["error"]["problems"][0]
    assert (problem["where"], problem["key"]) == ("warp.toml:2", "node.nmae")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["serve", "--config", "none.toml"], "no such file: write one with `warp init`"),
        (["serve", "--set", "listen"], "KEY=VALUE"),
        (["volume", "list", "--data", "nowhere"], "begin with `warp serve`"),
        (["status", "--data", "nowhere"], "start it with `warp serve`"),
        (["bench"], "start it with `warp serve`"),
        (["fsck"], "--data"),
        (["volume", "create", "x", "versioning"], "KEY=VALUE"),
        (["volume", "prune", "x"], "--older-than AGE, --keep NUMBER"),
        (["volume", "rollback", "x"], "NAME@SNAP"),
        (["disk", "create", "x"], "VOLUME/PATH"),
        (["scrub", "--rate", "fast"], '"64KiB"'),
        (["key", "create", "ada", "--secret-env", "NOTHING"], "NOTHING is not set"),
        (["bench", "--size", "big"], "is no size"),
        (["bench", "--operations", "put,post"], "allowed: put, get"),
        (["plugin", "info", "zsdt"], "zsdt"),
        (["plugin", "new", "codec/x"], "codecs"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    tmp_path: Path, arguments: list[str], said: str
) -> None:
    code, out, err = warp(tmp_path, *arguments)

    assert code == 1, out + err
    (line,) = err.splitlines()
    assert line.startswith("warp: ")
    assert said in line
    code, out, _ = warp(tmp_path, *arguments, "--json")
    assert code == 1
    assert json.loads(out)["error"]["message"] in line


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_data_of_another_user_is_one_sentence(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "node.json").write_text("{}")
    data.chmod(0)
    try:
        for arguments in (["status"], ["volume", "list"], ["serve"], ["fsck"], ["bench"]):
            code, _, err = warp(tmp_path, *arguments, "--data", "data")
            assert code == 1
            (line,) = err.splitlines()
            assert "ermission denied" in line
        assert warp(tmp_path, "doctor", "--data", "data")[0] == 1
    finally:
        data.chmod(0o700)


def test_an_unwritable_place_for_a_configuration_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, _, err = warp(tmp_path, "init", "--config", "file/warp.toml", "--data", "data")

    assert code == 1
    assert len(err.splitlines()) == 1
    assert "file/warp.toml" in err
