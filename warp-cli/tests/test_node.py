"""A node and the commands that talk to it, as a person runs them."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from warp_cli.main import main
from warp_core.s3.signing import Endpoint, Signer

WARP = [sys.executable, "-c", "from warp_cli.main import run; run()"]
KEYS = {"WARP_ACCESS_KEY": "ROOTKEY", "WARP_SECRET_KEY": "root-secret-of-tests"}
ANY_PORT = [
    "--set",
    "protocols.s3.listen=127.0.0.1:0",
    "--set",
    "protocols.sftp.listen=127.0.0.1:0",
]


def environ(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("WARP_")}
    return {**clean, "COLUMNS": "120", **KEYS, **(extra or {})}


def warp(
    *arguments: str, cwd: Path, extra: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command in this process, which is ten times cheaper than starting one."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.dict(os.environ, environ(extra), clear=True),
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        code = main(arguments)
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def started(
    *arguments: str, cwd: Path, extra: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*WARP, *arguments], cwd=cwd, env=environ(extra), capture_output=True, text=True, timeout=60
    )


def answer(*arguments: str, cwd: Path) -> Any:
    told = warp(*arguments, "--json", cwd=cwd)
    assert told.returncode == 0, told.stdout + told.stderr
    return json.loads(told.stdout)


@contextmanager
def serving(cwd: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [*WARP, "serve", *ANY_PORT, *arguments],
        cwd=cwd,
        env=environ(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            stream.close()


def ready(process: subprocess.Popen[str]) -> dict[str, str]:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.communicate()[1]
    event = json.loads(line)
    assert event.keys() == {"event", "endpoints"}
    assert event["event"] == "ready"
    assert all(event["endpoints"].values())
    return dict(event["endpoints"])


def stopped(process: subprocess.Popen[str]) -> tuple[int, str]:
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=30)
    return process.returncode, told


def test_the_default_server_is_ready_answers_and_ends_with_0(tmp_path: Path) -> None:
    with serving(tmp_path) as process:
        endpoints = ready(process)
        host, _, port = endpoints["s3"].removeprefix("http://").partition(":")
        socket.create_connection((host, int(port)), timeout=5).close()
        status = json.loads(warp("status", "--json", cwd=tmp_path).stdout)
        code, told = stopped(process)

    assert code == 0, told
    assert "Traceback" not in told
    assert status["endpoints"] == endpoints
    assert status["pid"] == process.pid
    assert (tmp_path / "warp-data" / "node.json").is_file()
    assert not (tmp_path / "warp-data" / "control.sock").exists()


def test_without_keys_in_the_environment_a_root_key_is_made(tmp_path: Path) -> None:
    told = subprocess.Popen(
        [*WARP, "serve", *ANY_PORT],
        cwd=tmp_path,
        env=environ({"WARP_ACCESS_KEY": "", "WARP_SECRET_KEY": ""}),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        ready(told)
    finally:
        told.kill()
        told.wait()
        assert told.stdout is not None
        told.stdout.close()

    key = tmp_path / "warp-data" / "root.key"
    assert key.stat().st_mode & 0o777 == 0o600
    assert "WARP_SECRET_KEY=" in key.read_text()


def test_volumes_and_keys_are_the_same_with_and_without_a_running_node(tmp_path: Path) -> None:
    with serving(tmp_path) as process:
        ready(process)
        made = answer("volume", "create", "photos", "versioning=on", "--owner", "ada", cwd=tmp_path)
        key = answer("key", "create", "ada", cwd=tmp_path)
        assert answer("volume", "list", cwd=tmp_path) == [made]
        again = warp("volume", "create", "photos", cwd=tmp_path)
        assert again.returncode == 1
        assert "photos" in again.stderr
        assert stopped(process)[0] == 0

    assert answer("volume", "list", cwd=tmp_path) == [made]
    answer("volume", "set", "photos", "verify=scrub", cwd=tmp_path)
    shown = answer("volume", "show", "photos", cwd=tmp_path)
    assert shown["policy"]["verify"] == {"value": "scrub", "origin": "volume"}
    assert shown["policy"]["redundancy"] == {"value": "none", "origin": "policy.default"}
    listed = {each["access_key"]: each for each in answer("key", "list", cwd=tmp_path)}
    assert listed[key["access_key"]]["account"] == "account:ada"
    assert listed["ROOTKEY"]["root"]
    assert key["secret_key"] not in json.dumps(listed)
    answer("key", "revoke", key["access_key"], cwd=tmp_path)
    answer("volume", "delete", "photos", cwd=tmp_path)
    with serving(tmp_path) as process:
        ready(process)
        assert answer("volume", "list", cwd=tmp_path) == []
        assert len(answer("key", "list", cwd=tmp_path)) == 1


def test_accounts_are_made_with_keys_changed_and_removed(tmp_path: Path) -> None:
    with serving(tmp_path) as process:
        ready(process)
        made = answer("account", "create", "ada", "--email", "ada@x.org", cwd=tmp_path)
        key = answer("key", "create", "--account", "ada", cwd=tmp_path)
        changed = answer("account", "set", "ada", "--display", "Ada L.", cwd=tmp_path)
        assert stopped(process)[0] == 0

    assert changed == {**made, "display": "Ada L."}
    assert len(made["canonical_id"]) == 64
    shown = answer("account", "show", "ada", cwd=tmp_path)
    assert shown == {**changed, "keys": [key["access_key"]]}
    assert warp("account", "delete", "ada", cwd=tmp_path).returncode == 1
    answer("key", "revoke", key["access_key"], cwd=tmp_path)
    assert answer("account", "delete", "ada", cwd=tmp_path) == {"deleted": "account:ada"}
    listed = [each["account"] for each in answer("account", "list", cwd=tmp_path)]
    assert listed == ["account:root"]
    assert warp("key", "create", cwd=tmp_path).returncode == 1


def test_after_a_kill_the_commands_and_the_next_server_go_on(tmp_path: Path) -> None:
    with serving(tmp_path) as process:
        ready(process)
        answer("volume", "create", "photos", cwd=tmp_path)
        process.kill()
    assert (tmp_path / "warp-data" / "control.sock").exists()

    assert [each["name"] for each in answer("volume", "list", cwd=tmp_path)] == ["photos"]
    with serving(tmp_path) as process:
        ready(process)
        assert [each["name"] for each in answer("volume", "list", cwd=tmp_path)] == ["photos"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["redundancy=replica:3"], "takes 3 stores"),
        (["redundancy=raid5"], '"replica:N"'),
        (["filters=zsdt"], 'did you mean "zstd"?'),
        (["filters=fixed:8MiB"], "is a chunker"),
        (["colour=red"], 'no setting "colour": allowed: policy, versioning, redundancy'),
        (["verify"], "KEY=VALUE"),
        (["policy=gold"], "allowed: default, as configured"),
    ],
)
def test_settings_that_cannot_be_are_refused_with_what_is_allowed(
    tmp_path: Path, settings: list[str], said: str
) -> None:
    warp("init", cwd=tmp_path)
    told = warp("volume", "create", "photos", *settings, cwd=tmp_path)

    assert told.returncode == 1
    assert said in told.stderr
    assert "Traceback" not in told.stderr
    assert answer("volume", "list", cwd=tmp_path) == []


def test_a_second_server_is_refused_with_one_sentence(tmp_path: Path) -> None:
    with serving(tmp_path) as process:
        ready(process)
        second = started("serve", *ANY_PORT, cwd=tmp_path)

    assert second.returncode == 1
    assert second.stdout == ""
    (line,) = second.stderr.splitlines()
    assert f"in use by process {process.pid}: stop that server, or choose another" in line


def test_a_busy_port_is_refused_with_one_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        told = started("serve", "--set", f"protocols.s3.listen=127.0.0.1:{port}", cwd=tmp_path)

    assert told.returncode == 1
    (line,) = told.stderr.splitlines()
    assert f"127.0.0.1:{port} is taken by another program" in line


def test_unwritable_data_and_newer_data_are_refused_with_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    told = started("serve", "--data", "file", cwd=tmp_path)
    assert told.returncode == 1
    assert len(told.stderr.splitlines()) == 1
    assert "choose another with --data" in told.stderr

    told = warp("volume", "list", "--data", "/proc/1/nowhere", cwd=tmp_path)
    assert told.returncode == 1
    (tmp_path / "warp.toml").write_text("[protocols.s3]\n[[store]]\npath = '/proc/nowhere/x'\n")
    told = started("serve", cwd=tmp_path)
    assert told.returncode == 1
    assert len(told.stderr.splitlines()) == 1, told.stderr
    assert "store[0]" in told.stderr
    (tmp_path / "warp.toml").unlink()

    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "node.json").write_text('{"format": 99, "release": "2031.1"}')
    told = started("serve", "--data", "new", cwd=tmp_path)
    assert told.returncode == 1
    assert len(told.stderr.splitlines()) == 1
    assert "upgrade warp" in told.stderr


def test_a_broken_plugin_is_reported_and_the_server_serves(tmp_path: Path) -> None:
    broken = tmp_path / "site" / "warp_broken-1.0.dist-info"
    broken.mkdir(parents=True)
    (broken / "METADATA").write_text("Metadata-Version: 2.4\nName: warp-broken\nVersion: 1.0\n\n")
    (broken / "entry_points.txt").write_text("[warp.plugins]\nprotocols.broken = warp_broken\n")
    (tmp_path / "site" / "warp_broken.py").write_text("import nothing_like_this\n")
    extra = {"PYTHONPATH": str(tmp_path / "site"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    process = subprocess.Popen(
        [*WARP, "serve", *ANY_PORT],
        cwd=tmp_path,
        env=environ(extra),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert "s3" in ready(process)
        listed = started("plugin", "list", cwd=tmp_path, extra=extra)
    finally:
        process.terminate()
        told = process.communicate(timeout=30)[1]

    assert process.returncode == 0
    assert "warp-broken 1.0 needs the module nothing_like_this" in told
    assert listed.returncode == 1
    assert "warp-broken 1.0 needs the module nothing_like_this" in listed.stdout


def test_no_node_is_said_plainly(tmp_path: Path) -> None:
    told = warp("status", cwd=tmp_path)

    assert told.returncode == 1
    assert "start it with `warp serve`" in told.stderr
    assert "there is no data in" in warp("volume", "list", cwd=tmp_path).stderr


def test_doctor_and_scrub_and_heal_and_top(tmp_path: Path) -> None:
    warp("init", cwd=tmp_path)
    checks = {
        each["check"]: each for each in json.loads(warp("doctor", "--json", cwd=tmp_path).stdout)
    }
    assert checks["configuration"]["verdict"] == "fine"
    assert checks["node"]["found"] == "not running"
    assert answer("scrub", "--deep", cwd=tmp_path)["lost_count"] == 0
    assert answer("heal", cwd=tmp_path)["waiting"] == 0
    answer("volume", "create", "photos", cwd=tmp_path)
    assert answer("fsck", "--deep", cwd=tmp_path)["volumes"] == 1
    with serving(tmp_path) as process:
        ready(process)
        rates = answer("top", "-n", "1", "--interval", "0.2", cwd=tmp_path)
        assert rates.keys() >= {"protocols", "stores", "connections"}
    (tmp_path / "warp.toml").write_text("[node]\nnmae = 'x'\n")
    told = warp("doctor", cwd=tmp_path)
    assert told.returncode == 1
    assert "warp.toml:2: node.nmae" in told.stdout


def test_bench_measures_the_running_node(tmp_path: Path) -> None:
    with serving(tmp_path) as process:
        ready(process)
        results = answer("bench", "--seconds", "0.3", "--connections", "2", cwd=tmp_path)
        assert answer("volume", "list", cwd=tmp_path) == []

    assert [each["operation"] for each in results] == ["put", "get", "head", "list", "delete"]
    assert all(each["requests"] and not each["errors"] for each in results)
    assert results[0]["requests"] >= results[-1]["requests"]


def test_a_second_signal_ends_the_drain(tmp_path: Path) -> None:
    with serving(tmp_path, "--set", "node.drain=1h") as process:
        access, secret = KEYS.values()
        endpoint = Endpoint.parse(ready(process)["s3"], access, secret)
        answer("volume", "create", "photos", cwd=tmp_path)
        head = Signer(endpoint).head("PUT", "/photos/x", payload="0" * 64, length=1 << 20)
        with socket.create_connection((endpoint.host, endpoint.port), timeout=5) as client:
            client.sendall(head + bytes(100_000))  # an upload that is under way
            time.sleep(0.5)
            process.send_signal(signal.SIGTERM)
            time.sleep(1)
            assert process.poll() is None
            process.send_signal(signal.SIGTERM)
            _, told = process.communicate(timeout=15)

    assert process.returncode == 1
    assert "stopped without draining" in told


def test_the_same_signal_twice_at_once_is_one(tmp_path: Path) -> None:
    with serving(tmp_path) as process:
        ready(process)
        process.send_signal(signal.SIGTERM)
        code, told = stopped(process)

    assert code == 0
    assert "stopped without draining" not in told


def test_snapshots_and_clones_of_volumes(tmp_path: Path) -> None:
    warp("init", cwd=tmp_path)
    answer("volume", "create", "photos", cwd=tmp_path)
    answer("volume", "snapshot", "photos", "monday", cwd=tmp_path)
    answer("volume", "clone", "photos@monday", "copy", cwd=tmp_path)

    (snapshot,) = answer("volume", "show", "photos", cwd=tmp_path)["snapshots"]
    assert snapshot["name"] == "monday"
    assert snapshot["clones"] == 1
    assert "monday" in warp("volume", "show", "photos", cwd=tmp_path).stdout
    held = warp("volume", "delete", "photos@monday", cwd=tmp_path)
    assert held.returncode == 1
    assert "clones" in held.stderr
    answer("volume", "snapshot", "photos", "tuesday", cwd=tmp_path)
    answer("volume", "delete", "photos@tuesday", cwd=tmp_path)
    assert len(answer("volume", "show", "photos", cwd=tmp_path)["snapshots"]) == 1


def test_disks(tmp_path: Path) -> None:
    warp("init", cwd=tmp_path)
    answer("volume", "create", "vms", cwd=tmp_path)
    made = answer("disk", "create", "vms/images/one", "--size", "10G", cwd=tmp_path)
    assert made["size"] == 10 << 30
    assert answer("disk", "resize", "vms/images/one", "--size", "12GiB", cwd=tmp_path)["size"] == (
        12 << 30
    )
    answer("disk", "snapshot", "vms/images/one", "fresh", cwd=tmp_path)
    answer("disk", "clone", "vms/images/one@fresh", "vms/images/two", cwd=tmp_path)

    assert [each["disk"] for each in answer("disk", "list", cwd=tmp_path)] == [
        "vms/images/one",
        "vms/images/two",
    ]
    assert answer("disk", "show", "vms/images/one", cwd=tmp_path)["snapshots"] == ["fresh"]
    assert "fresh" in warp("disk", "show", "vms/images/one", cwd=tmp_path).stdout
    answer("disk", "delete", "vms/images/one@fresh", cwd=tmp_path)
    answer("disk", "delete", "vms/images/one", cwd=tmp_path)
    assert len(answer("disk", "list", "vms", cwd=tmp_path)) == 1
    for wrong, said in (
        (["create", "vms"], "VOLUME/PATH"),
        (["create", "vms/x", "--size", "10X"], '"10G"'),
        (["create", "vms/x"], "no file vms/x: give a size to make a new disk"),
        (["create", "vms/images/two", "--size", "1G"], "vms/images/two exists"),
        (["create", "no/x", "--size", "1G"], "no volume 'no'"),
        (["show", "vms/none"], "no disk vms/none: `warp disk list vms`"),
        (["delete", "vms/none"], "no disk vms/none"),
        (["clone", "vms/images/two", "vms/images/two"], "vms/images/two exists"),
        (["clone", "vms/images/two", "other/x"], "allowed: vms/PATH"),
    ):
        told = warp("disk", *wrong, cwd=tmp_path)
        assert told.returncode == 1
        (line,) = told.stderr.splitlines()
        assert said in line


def test_a_volume_takes_a_named_policy(tmp_path: Path) -> None:
    warp("init", cwd=tmp_path)
    file = tmp_path / "warp.toml"
    file.write_text(
        file.read_text() + '\n[policy.small]\nfilters = ["zstd:19"]\nverify = "scrub"\n'
    )
    answer("volume", "create", "logs", "policy=small", cwd=tmp_path)

    policy = answer("volume", "show", "logs", cwd=tmp_path)["policy"]
    assert policy["filters"] == {"value": "zstd:19", "origin": "volume"}
    assert policy["verify"]["value"] == "scrub"


def test_fsck_rebuilds_an_index_that_is_gone(tmp_path: Path) -> None:
    with serving(tmp_path) as process:  # and ends killed
        ready(process)
        answer("volume", "create", "kept", cwd=tmp_path)
        refused = warp("fsck", "--rebuild", cwd=tmp_path)
    healthy = answer("fsck", cwd=tmp_path)
    before = answer("volume", "list", cwd=tmp_path)
    index = tmp_path / "warp-data" / "store" / "meta" / "data.mdb"
    index.write_bytes(b"junk" * 4096)

    unsound = warp("fsck", cwd=tmp_path)
    rebuilt = warp("fsck", "--rebuild", cwd=tmp_path)

    assert refused.returncode == 1
    assert "is in use by process" in refused.stderr
    assert healthy["index"] == []
    assert unsound.returncode == 1
    assert "warp fsck --rebuild" in unsound.stdout + unsound.stderr
    assert rebuilt.returncode == 0, rebuilt.stdout + rebuilt.stderr
    assert "made anew" in rebuilt.stdout
    assert (tmp_path / "warp-data" / "store" / "meta.old-1" / "data.mdb").exists()
    assert answer("volume", "list", cwd=tmp_path) == before


def test_ctrl_c_ends_top_well_and_other_commands_by_the_signal(tmp_path: Path) -> None:
    with serving(tmp_path) as node:
        ready(node)
        for arguments, status in (
            (["top", "--interval", "0.1", "--json"], 0),
            (["bench", "--seconds", "60", "--connections", "1"], -signal.SIGINT),
        ):
            process = subprocess.Popen(
                [*WARP, *arguments],
                cwd=tmp_path,
                env=environ(),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            assert process.stdout is not None
            if arguments[0] == "top":
                process.stdout.readline()
            else:
                while not warp("volume", "list", cwd=tmp_path).stdout.count("warp-bench"):
                    time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=30)
            assert process.returncode == status, told
            assert "Traceback" not in told
        assert answer("volume", "list", cwd=tmp_path) == []
