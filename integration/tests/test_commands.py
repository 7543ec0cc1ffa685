"""Every command against a running node, with boto3 reading back what it did."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from botocore.exceptions import ClientError
from warp_cli.main import main
from warp_cli.table import EXAMPLES
from warp_core.metadata import Transaction, transact
from warp_core.namespace import keys
from warp_core.node.assembly import Node, open_node
from warp_core.plugins import Plugins
from warp_integration.clients import s3_client
from warp_integration.server import ACCESS_KEY, SECRET_KEY, WarpServer, config_text

pytestmark = [pytest.mark.workspace, pytest.mark.usefixtures("warp_serve")]

ROOT = Path(__file__).resolve().parents[2]
PUBLIC_KEY = (
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBqvuC6w33+zBrJg4a0TYSatprFciUF0vJ5zPPU2wYUE ada@laptop\n"
)
MIB = 1 << 20


def warp(folder: Path, *arguments: str) -> tuple[int, str, str]:
    """Run a command where `warp.toml` and the data lie; returns status, output, errors."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("WARP_")}
    keys_of = {"WARP_ACCESS_KEY": ACCESS_KEY, "WARP_SECRET_KEY": SECRET_KEY}
    keys_of["ADAS_PASSWORD"] = "a password of ada's"
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.dict(os.environ, {**clean, **keys_of, "COLUMNS": "80"}, clear=True),
        contextlib.chdir(folder),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        code = main(arguments)
    return code, out.getvalue(), err.getvalue()


def answer(folder: Path, *arguments: str, status: int = 0) -> Any:
    code, out, err = warp(folder, *arguments, "--json")
    assert code == status, out + err
    return json.loads(out)


def node_in(folder: Path, **settings: Any) -> WarpServer:
    config = folder / "warp.toml"
    config.write_text(f'[node]\ndata = "data"\n{config_text(**settings)}')
    return WarpServer(folder / "data", config=config, logs=folder / "logs")


@pytest.fixture(scope="module")
def here(warp_serve: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the `warp.toml` of the module's node lies."""
    return tmp_path_factory.mktemp("node")


@pytest.fixture(scope="module")
def node(here: Path) -> Iterator[WarpServer]:
    with node_in(here) as server:
        yield server


@pytest.fixture
def s3(node: WarpServer) -> Any:
    return s3_client(node.s3)


def contents(s3: Any, bucket: str) -> dict[str, bytes]:
    listed = s3.list_objects_v2(Bucket=bucket).get("Contents", [])
    return {
        each["Key"]: s3.get_object(Bucket=bucket, Key=each["Key"])["Body"].read() for each in listed
    }


def refused(call: Any, **arguments: Any) -> str:
    with pytest.raises(ClientError) as raised:
        call(**arguments)
    return str(raised.value.response["Error"]["Code"])


def test_the_examples_work(tmp_path: Path) -> None:
    special = {  # these take a place, a time or a name that a test has to choose
        "warp serve": None,  # what `node_in` runs
        "warp serve --data /srv/warp --set protocols.s3.listen=127.0.0.1:9001": None,
        "warp init --data /srv/warp": "init --data other --config other.toml",
        "warp config check --config /etc/warp.toml": "config check --config warp.toml",
        "warp status --data /srv/warp --json": "status --data data --json",
        "warp top": "top -n 1 --interval 0.1",
        "warp top -n 3 --json": "top -n 3 --json --interval 0.1",
        "warp bench": "bench --seconds 0.2 --connections 2",
        "warp bench --size 4KiB --size 8MiB --seconds 10 --operations put,get": (
            "bench --size 4KiB --size 8MiB --seconds 0.2 --operations put,get --connections 2"
        ),
        "warp account password ada": None,  # asks
        "warp account ssh-key add ada ~/.ssh/id_ed25519.pub": "account ssh-key add ada ada.pub",
        "warp kms master /etc/warp/master.key": "kms master other/master.key",
        "warp kms rotate": "kms rotate payroll",  # no default key before the first use
        "warp conformance zstd": "conformance zstd -k test_a_fr",
        "warp conformance stores/memory --junit kits.xml": (
            "conformance stores/memory --junit kits.xml -k test_a_blob"
        ),
    }
    # Those of a cluster need nodes that find each other: `test_cluster_join.py` runs the guide that has them.
    special |= {
        example: None
        for words, examples in EXAMPLES.items()
        for example in examples
        # `import` needs another server (`test_import.py`), mounts need root and FUSE (`test_mounts.py`).
        if words.startswith(("node ", "mount ")) or words in ("import", "unmount")
    }
    (tmp_path / "ada.pub").write_text(PUBLIC_KEY)
    with node_in(tmp_path) as server:
        for example in (example for examples in EXAMPLES.values() for example in examples):
            line = special.get(example, example.removeprefix("warp "))
            if line is None:
                continue
            if line.startswith("key revoke"):
                made = answer(tmp_path, "key", "create", "eve")["access_key"]
                line = f"key revoke {made}"
            if line.startswith("admin token revoke"):
                line = f"admin token revoke {answer(tmp_path, 'admin', 'token', 'create')['id']}"
            code, out, err = warp(tmp_path, *shlex.split(line))
            assert code == 0, f"{example}\n{out}{err}"
            assert out.strip(), example
        assert server.terminate() == 0
    assert (tmp_path / "kits.xml").exists()


# JSON ---------------------------------------------------------------------------------------------


def documented() -> dict[str, set[str]]:
    """Return the words of commands → keys, as the guide's table has them."""
    page = (ROOT / "docs" / "guides" / "commands.md").read_text()
    rows = re.findall(r"^\| (`[a-z].*?) \| (.*) \|$", page.partition("## JSON")[2], re.M)
    found: dict[str, set[str]] = {}
    for names, text in rows:
        outer = re.sub(r"\([^()]*\)", "", text.partition(". Where")[0])
        told = set(re.findall(r"`(\w+)`", outer))
        for base in re.findall(r"as (?:in )?`([\w -]+)`", outer):
            told |= found[base]
        for name in re.findall(r"`([\w -]+)`", re.sub(r"\([^()]*\)", "", names)):
            found[name] = told
    return found


def test_json_has_the_keys_that_the_guide_names(tmp_path: Path) -> None:
    told = documented()
    seen: dict[str, set[str]] = {}

    def look(line: str) -> None:
        if line == "admin token revoke ID":
            line = f"admin token revoke {answer(tmp_path, 'admin', 'token', 'list')[0]['id']}"
        found = answer(tmp_path, *line.split())
        first = found[0] if isinstance(found, list) else found
        words = line.split()
        of_two = ("config", "plugin", "volume", "disk", "account", "key", "kms", "events", "quota")
        of_two = (*of_two, "snapshot", "audit")
        of_three = (["snapshot", "policy"], ["account", "ssh-key"], ["admin", "token"])
        count = 3 if words[:2] in of_three else 2 if words[0] in of_two else 1
        name = " ".join(words[:count])
        seen[name] = set(first)

    target = '[[event_target]]\nname = "hook"\nurl = "http://127.0.0.1:9/"'
    (tmp_path / "ada.pub").write_text(PUBLIC_KEY)
    with node_in(tmp_path, extra=target):
        for line in (
            "init --data other --config other.toml",
            "config check",
            "config show",
            "plugin list",
            "plugin info zstd",
            "plugin new codecs/mine",
            "volume create a",
            "volume list",
            "volume show a",
            "volume set a versioning=on",
            "volume snapshot a s",
            "snapshot list a",
            "volume snapshot a t",
            "disk create a/diff --size 1M",
            "snapshot diff a t",
            "snapshot hold a@s",
            "snapshot release a@s",
            "snapshot policy set a --hourly 2",
            "snapshot policy show a",
            "snapshot policy show",
            "snapshot policy remove a",
            "volume rollback a@s",
            "volume clone a@s b",
            "volume prune a --keep 5",
            "volume delete b",
            "quota set a --bytes 10GiB --soft-bytes 8GiB --grace 7d",
            "quota set a --user 1000 --bytes 1GiB",
            "quota show a",
            "quota show",
            "quota clear a",
            "disk create a/d --size 1G",
            "disk list",
            "disk show a/d",
            "disk resize a/d --size 2G",
            "disk snapshot a/d s",
            "disk clone a/d@s a/e",
            "disk delete a/e",
            "account create ada",
            "account list",
            "account show ada",
            "account set ada --email ada@example.org",
            "account password ada --password-env ADAS_PASSWORD",
            "account ssh-key add ada ada.pub",
            "account ssh-key list ada",
            "account ssh-key remove ada ada@laptop",
            "account delete ada",
            "key create ada --access-key ADAKEYADAKEY",
            "key list",
            "key revoke ADAKEYADAKEY",
            "admin token create tests",
            "admin token list",
            "admin token revoke ID",
            "audit list",
            "audit verify",
            "kms master other/master.key",
            "kms create payroll",
            "kms list",
            "kms rotate payroll",
            "kms disable payroll",
            "kms enable payroll",
            "events status",
            "status",
            "top -n 1 --interval 0.1",
            "doctor",
            "scrub",
            "heal",
            "fsck",
            "bench --seconds 0.1 --operations put",
            "conformance zstd -k test_a_fr",
            "simulate one-node --seed 1",
        ):
            look(line)

    of_clusters = {name for name in told if name.startswith("node ")}
    assert of_clusters == {name for name in EXAMPLES if name.startswith("node ")}
    for name in of_clusters:  # whose answers `test_cluster_join.py` reads
        told.pop(name)
    of_mounts = {name for name in told if name.startswith("mount ") or name == "unmount"}
    for name in of_mounts:  # whose answers `test_mounts.py` reads
        told.pop(name)
    told.pop("import")  # `test_import.py` reads its answers
    told.pop("serve")  # its line is the contract, and every test that starts a server reads it
    told.pop("disk diff")  # nobody writes to a disk here: `test_changed_ranges.py` does
    told["snapshot diff"] -= {"added", "removed", "renamed", "changed"}
    told["status"] -= {"cluster", "nodes", "domains"}
    told["simulate"] -= {"about"}  # with --list
    told["plugin info"] -= {"option", "default", "allowed"}
    elsewhere = {"serve", "import", "disk diff", *of_clusters, *of_mounts}
    assert seen.keys() == told.keys() == EXAMPLES.keys() - elsewhere
    for name, keys_ in seen.items():
        assert told[name] - keys_ == set(), f"{name} lacks what the guide names"


def test_a_refusal_in_json_names_its_class(node: WarpServer, here: Path) -> None:
    error = answer(here, "volume", "show", "nothing-like-this", status=1)["error"]

    assert error["kind"] == "VolumeNotFound"
    assert "nothing-like-this" in error["message"]


# Snapshots, rollback, clones, as S3 shows them ----------------------------------------------------


def test_a_rollback_brings_back_what_the_snapshot_has(here: Path, s3: Any) -> None:
    s3.create_bucket(Bucket="roll")
    large = os.urandom(9 * MIB)
    before = {"a/kept": b"one", "a/gone": b"two", "large": large, "tiny": b""}
    for key, body in before.items():
        s3.put_object(Bucket="roll", Key=key, Body=body)
    answer(here, "volume", "snapshot", "roll", "monday")
    s3.put_object(Bucket="roll", Key="a/kept", Body=b"changed")
    s3.delete_object(Bucket="roll", Key="a/gone")
    s3.put_object(Bucket="roll", Key="new", Body=b"later")
    s3.put_object(Bucket="roll", Key="large", Body=b"small now")

    assert contents(s3, "roll.snap-monday") == before
    answer(here, "volume", "snapshot", "roll", "tuesday")
    done = answer(here, "volume", "rollback", "roll@monday")

    assert done["rows_changed"] > 0
    assert contents(s3, "roll") == before
    assert contents(s3, "roll.snap-tuesday")["new"] == b"later"
    s3.put_object(Bucket="roll", Key="new", Body=b"again")
    assert contents(s3, "roll.snap-monday") == before
    answer(here, "volume", "rollback", "roll@tuesday")
    assert contents(s3, "roll")["a/kept"] == b"changed"
    assert answer(here, "fsck", "--deep")["problems"] == []


def test_a_rollback_survives_a_kill(tmp_path: Path) -> None:
    with node_in(tmp_path) as server:
        s3 = s3_client(server.s3)
        s3.create_bucket(Bucket="roll")
        s3.put_object(Bucket="roll", Key="k", Body=b"before")
        answer(tmp_path, "volume", "snapshot", "roll", "s")
        s3.put_object(Bucket="roll", Key="k", Body=b"after")
        answer(tmp_path, "volume", "rollback", "roll@s")
        server.kill()
        server.start()

        assert contents(s3_client(server.s3), "roll") == {"k": b"before"}


def test_a_rollback_to_nothing_is_refused(here: Path, s3: Any) -> None:
    s3.create_bucket(Bucket="nosnap")
    for source, said in (("nosnap", "NAME@SNAP"), ("nosnap@", "NAME@SNAP"), ("nosnap@x", '"x"')):
        code, _, err = warp(here, "volume", "rollback", source)
        assert code == 1
        assert said.strip('"') in err
        assert len(err.splitlines()) == 1


def test_a_snapshot_over_s3_is_read_only(here: Path, s3: Any) -> None:
    s3.create_bucket(Bucket="frozen")
    s3.put_object(Bucket="frozen", Key="k", Body=b"x")
    answer(here, "volume", "snapshot", "frozen", "s")

    assert refused(s3.put_object, Bucket="frozen.snap-s", Key="k", Body=b"y") in (
        "AccessDenied",
        "MethodNotAllowed",
    )
    assert contents(s3, "frozen.snap-s") == {"k": b"x"}
    code, _, err = warp(here, "volume", "delete", "frozen")
    assert code == 1
    assert "has snapshots: remove them first" in err


def test_a_clone_begins_as_its_source_and_goes_its_own_way(here: Path, s3: Any) -> None:
    s3.create_bucket(Bucket="source")
    s3.put_object(Bucket="source", Key="k", Body=b"first")
    answer(here, "volume", "snapshot", "source", "s")
    s3.put_object(Bucket="source", Key="k", Body=b"second")

    answer(here, "volume", "clone", "source@s", "of-snapshot")
    answer(here, "volume", "clone", "source", "of-now")

    assert contents(s3, "of-snapshot") == {"k": b"first"}
    assert contents(s3, "of-now") == {"k": b"second"}
    s3.put_object(Bucket="of-now", Key="mine", Body=b"m")
    s3.delete_object(Bucket="of-now", Key="k")
    assert contents(s3, "of-now") == {"mine": b"m"}
    assert contents(s3, "source") == {"k": b"second"}
    code, _, err = warp(here, "volume", "delete", "source@s")
    assert code == 1
    assert "the clones of-snapshot read through it; remove them first" in err
    assert len(err.splitlines()) == 1


def test_pruning_removes_what_has_had_its_time(here: Path, s3: Any) -> None:
    s3.create_bucket(Bucket="daily")
    for day in range(5):
        s3.put_object(Bucket="daily", Key="k", Body=b"%d" % day)
        answer(here, "volume", "snapshot", "daily", f"daily-{day}")
    answer(here, "volume", "snapshot", "daily", "release")
    answer(here, "volume", "clone", "daily@daily-1", "held")
    prune = ("volume", "prune", "daily", "--keep", "2", "--matching", "daily-*")

    assert "would remove daily@daily-0" in warp(here, *prune, "--dry-run")[1]
    assert contents(s3, "daily.snap-daily-0") == {"k": b"0"}
    assert answer(here, "volume", "prune", "daily", "--older-than", "1d")["deleted"] == []
    done = answer(here, *prune)

    assert done == {"volume": "daily", "deleted": ["daily-0", "daily-2"], "dry_run": False}
    left = [each["name"] for each in answer(here, "volume", "show", "daily")["snapshots"]]
    assert left == ["daily-1", "daily-3", "daily-4", "release"]
    assert refused(s3.list_objects_v2, Bucket="daily.snap-daily-0") == "NoSuchBucket"
    assert contents(s3, "daily.snap-daily-3") == {"k": b"3"}
    assert contents(s3, "held") == {"k": b"1"}
    for wrong in ([], ["--older-than", "soon"], ["--keep", "-1"]):
        code, _, err = warp(here, "volume", "prune", "daily", *wrong)
        assert code in (1, 2)
        assert "Traceback" not in err


# Health -------------------------------------------------------------------------------------------


def test_scrub_finds_a_lost_copy_and_heal_writes_it_anew(tmp_path: Path) -> None:
    stores = [tmp_path / "one", tmp_path / "two"]
    server = node_in(tmp_path, stores=stores, copies=2, redundancy="replica:2")
    body = os.urandom(70 * MIB)  # more than a container, so that one is complete
    with server:
        s3 = s3_client(server.s3)
        s3.create_bucket(Bucket="box")
        s3.upload_fileobj(io.BytesIO(body), "box", "k")
        assert server.terminate() == 0
    holding(tmp_path / "two", body[:64]).unlink()

    with server:
        found = answer(tmp_path, "scrub", "--deep", status=1)
        assert found["missing_copies"] >= 1
        assert found["lost_count"] == 0
        assert "`warp heal` writes them anew" in warp(tmp_path, "scrub")[1]
        assert answer(tmp_path, "fsck", "--deep", status=1)["problems"] == []
        healed = answer(tmp_path, "heal")
        assert healed["written_copies"] >= 1
        assert healed["waiting"] == 0
        again = answer(tmp_path, "scrub", "--deep")
        assert again["missing_copies"] == again["damaged_copies"] == 0
        assert again["bytes"] >= len(body)
        assert s3_client(server.s3).get_object(Bucket="box", Key="k")["Body"].read() == body


def test_scrub_without_a_complete_container_says_so(node: WarpServer, here: Path) -> None:
    code, out, _ = warp(here, "scrub")
    assert code == 0
    if answer(here, "scrub")["containers"] == 0:
        assert "warp fsck --deep" in out


def holding(folder: Path, mark: bytes) -> Path:
    """Return the file of a store that holds these bytes."""
    (found,) = (path for path in folder.rglob("*") if path.is_file() and mark in path.read_bytes())
    return found


def in_data(folder: Path, act: Any) -> Any:
    """Do something to the data of a node that does not run, as only a fault or a bug would."""
    from warp_core.config.load import load

    async def run() -> Any:
        plugins = Plugins()
        settings = load(folder / "warp.toml", catalog=plugins, environ={}, options=[])
        async with open_node(settings, plugins, serve=False) as node:
            return await act(node)

    return asyncio.run(run())


def test_fsck_finds_rot_that_only_reading_shows(tmp_path: Path) -> None:
    with node_in(tmp_path) as server:
        s3 = s3_client(server.s3)
        s3.create_bucket(Bucket="box")
        body = os.urandom(20 * MIB)
        s3.put_object(Bucket="box", Key="dir/öde/k", Body=body)
        assert server.terminate() == 0
    mark = body[10 * MIB : 10 * MIB + 64]
    container = holding(tmp_path / "data" / "store", mark)
    container.chmod(0o600)  # who is not root may not write to a whole blob
    with container.open("r+b") as file:
        file.seek(container.read_bytes().index(mark))
        file.write(bytes(64))

    assert answer(tmp_path, "fsck")["problems"] == []
    found = answer(tmp_path, "fsck", "--deep", status=1)
    assert found["problem_count"] == 1
    assert "box: dir/öde/k: content of" in found["problems"][0]
    code, out, _ = warp(tmp_path, "fsck", "--deep")
    assert code == 1
    assert "namespace" in out
    with node_in(tmp_path) as server, pytest.raises(Exception, match=r".*"):
        s3_client(server.s3, retries={"max_attempts": 1}).get_object(Bucket="box", Key="dir/öde/k")[
            "Body"
        ].read()


def test_fsck_repairs_counters(tmp_path: Path) -> None:
    with node_in(tmp_path) as server:
        s3 = s3_client(server.s3)
        s3.create_bucket(Bucket="box")
        s3.put_object(Bucket="box", Key="k", Body=b"12345")
        assert server.terminate() == 0

    async def spoil(node: Node) -> None:
        volume = await node.namespace.volumes.get("box")

        async def change(tx: Transaction) -> None:
            tx.merge(volume.prefix + keys.usage_key(volume.row.epoch), add=(7, 700, 0, 0, 0, 0))

        await transact(node.namespace.store, change)

    in_data(tmp_path, spoil)

    assert answer(tmp_path, "volume", "show", "box")["objects"] == 8
    found = answer(tmp_path, "fsck", status=1)
    assert found["problem_count"] == 1
    mended = answer(tmp_path, "fsck", "--repair")
    assert mended["counters_corrected"] == 1
    shown = answer(tmp_path, "volume", "show", "box")
    assert (shown["objects"], shown["bytes"]) == (1, 5)
    assert answer(tmp_path, "fsck", "--repair")["counters_corrected"] == 0


def test_fsck_names_content_whose_rows_are_lost(tmp_path: Path) -> None:
    bodies = {f"k{n}": os.urandom(3000 + n) for n in range(5)} | {"large": os.urandom(9 * MIB)}
    with node_in(tmp_path) as server:
        s3 = s3_client(server.s3)
        s3.create_bucket(Bucket="box")
        for key, body in bodies.items():
            s3.put_object(Bucket="box", Key=key, Body=body)
        assert server.terminate() == 0

    async def lose(node: Node) -> int:
        volume = await node.namespace.volumes.get("box")
        view = node.namespace.store.view()
        rows = [
            row
            for family in (b"D", b"R")
            for row in await view.scan(
                volume.prefix + family, volume.prefix + bytes([family[0] + 1])
            )
        ]
        view.close()

        async def change(tx: Transaction) -> None:
            for row in rows:
                tx.delete(row.key)

        await transact(node.namespace.store, change)
        return len(rows)

    assert in_data(tmp_path, lose) >= 2 * len(bodies)
    found = answer(tmp_path, "fsck", "--salvage", "--repair")

    assert found["salvaged"] == len(bodies)
    assert found["salvaged_bytes"] == sum(map(len, bodies.values()))
    with node_in(tmp_path) as server:
        back = contents(s3_client(server.s3), "box")
    assert all(key.startswith("lost+found/") for key in back)
    assert sorted(back.values()) == sorted(bodies.values())


def test_status_and_doctor_tell_a_lost_copy(tmp_path: Path) -> None:
    stores = [tmp_path / "one", tmp_path / "two"]
    with node_in(tmp_path, stores=stores, copies=2) as server:
        assert answer(tmp_path, "status")["healthy"]
        assert answer(tmp_path, "doctor")
        assert server.terminate() == 0
    shutil.rmtree(tmp_path / "two")
    server = node_in(tmp_path, stores=stores, copies=2)
    with contextlib.closing(server):
        server.launch()
        with pytest.raises(Exception, match=r"two"):
            server.wait_ready()
        assert "--replace-stores" in server.log()
        server.start("--replace-stores")
        assert answer(tmp_path, "status")["metadata"] == {
            "engine": "local",
            "copies": 2,
            "alive": 2,
        }


def test_top_counts_requests(here: Path, s3: Any) -> None:
    import threading

    s3.create_bucket(Bucket="busy")
    done = threading.Event()

    def load() -> None:
        while not done.is_set():
            s3.head_bucket(Bucket="busy")

    thread = threading.Thread(target=load)
    thread.start()
    try:
        looks = warp(here, "top", "-n", "2", "--interval", "0.5", "--json")[1].splitlines()
        shown = warp(here, "top", "-n", "1", "--interval", "0.5")[1]
    finally:
        done.set()
        thread.join()

    assert len(looks) == 2
    for look in map(json.loads, looks):
        assert look["protocols"]["s3"]["HEAD"] >= 1
        assert look["connections"] >= 1
    assert "HEAD" in shown


def test_conformance_reports_a_plugin(tmp_path: Path) -> None:
    report = answer(tmp_path, "conformance", "codecs/fixed")

    assert report["passed"]
    assert report["counts"]["passed"] >= 5
    code, out, _ = warp(tmp_path, "conformance", "codecs/fixed", "-k", "test_a")
    assert code == 0
    assert "fixed: conforms" in out
    unknown = answer(tmp_path, "conformance", "fxied", status=1)
    assert unknown["error"]
