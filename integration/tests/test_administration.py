"""Administration of a real node over HTTP with real clients; and its audit log, through kills, full disks and tampering."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from botocore.exceptions import ClientError
from warp_core.node.client import Control
from warp_integration.clients import s3_client
from warp_integration.namespace import MountNamespace
from warp_integration.requirements import require, require_root
from warp_integration.server import WarpServer, config_text

pytestmark = [pytest.mark.workspace, pytest.mark.usefixtures("warp_serve")]

ADMIN = '[protocols.admin]\nlisten = "127.0.0.1:0"\nfailures_max = 10000\n'
SCHEMATHESIS = """
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "401", "403", "404", "409", "422"]
"""
"""What fits the schema may be refused all the same, as 422 says: not every string is the name of a volume."""


def data_of(server: WarpServer) -> Path:
    return Path(server._command[server._command.index("--data") + 1])


def asked(server: WarpServer, verb: str, **arguments: object) -> Any:
    with Control(data_of(server) / "control.sock") as control:
        return control.call(verb, **arguments)


def administrator(server: WarpServer, role: str = "admin") -> httpx.Client:
    token = asked(server, "admin.token.create", name="tests", role=role)["token"]
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.Client(base_url=server.endpoints["admin"], headers=headers, timeout=60)


def warp(server: WarpServer, *words: str) -> tuple[int, str]:
    program = str(Path(sys.executable).with_name("warp"))
    done = subprocess.run(
        [program, *words, "--data", str(data_of(server))],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "WARP_CONFIG": str(data_of(server).parent / "warp.toml")},
    )
    return done.returncode, done.stdout + done.stderr


def new_server(folder: Path, extra: str = "", **options: Any) -> WarpServer:
    config = folder / "warp.toml"
    config.write_text(config_text(extra=ADMIN + extra))
    return WarpServer(folder / "data", config=config, logs=folder / "logs", **options)


@pytest.fixture(scope="module")
def server(warp_serve: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarpServer]:
    with new_server(tmp_path_factory.mktemp("administration")) as running:
        yield running
        assert running.running, running.log_tail()


@pytest.fixture(scope="module")
def http(server: WarpServer) -> Iterator[httpx.Client]:
    with administrator(server) as client:
        yield client


def on_record(http: httpx.Client, what: str) -> list[dict[str, Any]]:
    answer = http.get("/v1/audit/entries", params={"what": what, "limit": 10_000})
    assert answer.status_code == 200
    return list(answer.json())


def test_a_volume_lives_and_dies_over_http(server: WarpServer, http: httpx.Client) -> None:
    made = http.post("/v1/volumes", json={"name": "lab", "settings": {"versioning": "on"}})
    kept = http.post("/v1/volumes/lab/snapshot", json={"snapshot": "monday"})
    shown = http.get("/v1/volumes/lab").json()
    disk = http.post("/v1/disks", json={"volume": "lab", "path": "vms/one", "size": 1 << 20})
    larger = http.post("/v1/disks/lab/vms%2Fone/resize", json={"size": 1 << 21})
    full = http.delete("/v1/volumes/lab")
    gone = [
        http.delete(path).status_code
        for path in ("/v1/disks/lab/vms%2Fone", "/v1/snapshots/lab/monday")
    ]
    ready, status = http.get("/readyz"), http.get("/v1/status").json()

    assert (made.status_code, made.json()["versioning"]) == (201, "on")
    assert kept.json()["snapshot"] == "monday"
    assert [each["name"] for each in shown["snapshots"]] == ["monday"]
    assert disk.status_code == 201
    assert larger.json()["size"] == 1 << 21
    assert (full.status_code, full.json()["kind"]) == (409, "NotEmpty")
    assert gone == [200, 200]
    assert (ready.status_code, status["endpoints"]["admin"]) == (200, server.endpoints["admin"])
    assert "warp_admin_requests_total" in http.get("/metrics").text


def test_curl_works_with_what_the_docs_page_shows(server: WarpServer, tmp_path: Path) -> None:
    require("curl")
    token = asked(server, "admin.token.create", role="operator")["token"]
    shown = httpx.get(server.endpoints["admin"] + "/docs").text
    assert (
        f"curl -H &#x27;Authorization: Bearer TOKEN&#x27; {server.endpoints['admin']}/v1/status"
        in shown
    )

    def curl(*words: str) -> tuple[int, str]:
        done = subprocess.run(
            ["curl", "-sS", "-w", "%{http_code}", "-H", f"Authorization: Bearer {token}", *words],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return int(done.stdout[-3:]), done.stdout[:-3]

    url = server.endpoints["admin"]
    json_body = ("-H", "Content-Type: application/json", "-d", '{"name": "curled"}')
    assert curl("-X", "POST", *json_body, f"{url}/v1/volumes")[0] == 201
    status, lines = curl("-N", "-X", "POST", "-H", "Accept: application/jsonl", f"{url}/v1/scrub")
    assert status == 200
    assert json.loads(lines.splitlines()[-1])["result"]["lost"] == []
    assert curl("-X", "DELETE", f"{url}/v1/volumes/curled")[0] == 200
    assert curl(f"{url}/v1/audit/entries")[0] == 403


def test_who_changed_what_over_every_way_is_on_record(
    server: WarpServer, http: httpx.Client
) -> None:
    s3 = s3_client(server.s3, signature_version="s3v4", s3={"addressing_style": "path"})
    s3.create_bucket(Bucket="recorded", ObjectLockEnabledForBucket=True)
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": "*",
                "Action": "s3:GetObject",
                "Resource": "arn:aws:s3:::recorded/*",
            }
        ],
    }
    with pytest.raises(ClientError):  # public policies are blocked until somebody says otherwise
        s3.put_bucket_policy(Bucket="recorded", Policy=json.dumps(policy))
    version = s3.put_object(Bucket="recorded", Key="k", Body=b"x")["VersionId"]
    held = {"Mode": "GOVERNANCE", "RetainUntilDate": "2099-01-01T00:00:00Z"}
    s3.put_object_retention(Bucket="recorded", Key="k", Retention=held)
    s3.delete_object(Bucket="recorded", Key="k", VersionId=version, BypassGovernanceRetention=True)
    asked(server, "account.create", account="grace", display="Grace")
    made = asked(server, "key.create", account="grace", secret="hidden-secret-of-grace-0123456789")
    asked(server, "key.revoke", access_key=made["access_key"])
    status, _ = warp(server, "volume", "create", "by-command")
    with administrator(server, "viewer") as viewer:
        refused = viewer.delete("/v1/volumes/by-command").status_code

    found = on_record(http, "")
    told = [
        (each["by"].partition(":")[0], each["via"], each["what"], each["result"], each["error"])
        for each in found
        if {"recorded", "grace", "by-command"} & set(map(str, each["of"].values()))
        or each["what"] == "key.revoke"
    ]
    assert status == 0
    assert refused == 403
    assert told == [
        ("account", "s3", "s3:CreateBucket", "ok", ""),
        ("account", "s3", "s3:PutBucketPolicy", "refused", "S3Error"),
        ("account", "s3", "s3:PutObjectRetention", "ok", ""),
        ("account", "s3", "s3:DeleteObject", "ok", ""),
        ("unix", "control", "account.create", "ok", ""),
        ("unix", "control", "key.create", "ok", ""),
        ("unix", "control", "key.revoke", "ok", ""),
        ("unix", "control", "volume.create", "ok", ""),
        ("token", "admin", "volume.delete", "refused", "PermissionDenied"),
    ]
    files = b"".join(path.read_bytes() for path in (data_of(server) / "audit").iterdir())
    assert b"hidden-secret-of-grace" not in files
    assert b"Statement" not in files


def test_identities_over_s3_are_on_record(server: WarpServer, http: httpx.Client) -> None:
    import boto3
    from warp_integration.server import ACCESS_KEY, SECRET_KEY

    iam = boto3.client(
        "iam",
        endpoint_url=server.s3,
        region_name="us-east-1",
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
    )
    iam.create_user(UserName="ada")
    key = iam.create_access_key(UserName="ada")["AccessKey"]
    iam.list_users()
    with pytest.raises(ClientError):
        iam.delete_user(UserName="nobody")

    found = on_record(http, "iam:")
    assert [(each["what"], each["of"].get("UserName"), each["result"]) for each in found] == [
        ("iam:CreateUser", "ada", "ok"),
        ("iam:CreateAccessKey", "ada", "ok"),
        ("iam:DeleteUser", "nobody", "refused"),
    ]
    files = b"".join(path.read_bytes() for path in (data_of(server) / "audit").iterdir())
    assert key["SecretAccessKey"].encode() not in files


def test_what_was_answered_is_on_record_whenever_the_server_is_killed(tmp_path: Path) -> None:
    answered: list[str] = []
    names = (f"v{number}" for number in itertools.count())
    with new_server(tmp_path) as server:
        for _ in range(2):
            clients = [administrator(server) for _ in range(4)]
            before = len(answered)

            def work(client: httpx.Client) -> None:
                with client:
                    while True:
                        name = next(names)
                        try:
                            if client.post("/v1/volumes", json={"name": name}).status_code == 201:
                                answered.append(name)
                        except httpx.TransportError:
                            return

            threads = [threading.Thread(target=work, args=(client,)) for client in clients]
            for thread in threads:
                thread.start()
            while len(answered) < before + 15:
                assert server.running, server.log_tail()
                threads[0].join(0.005)
            server.kill()
            for thread in threads:
                thread.join()
            server.start()
        with administrator(server) as http:
            verified = http.get("/v1/audit/entries/verify").json()
            volumes = {each["name"] for each in http.get("/v1/volumes").json()}
            found = {
                each["of"]["name"]: each["result"] for each in on_record(http, "volume.create")
            }

    assert verified["whole"], verified
    assert {found.get(name) for name in answered} == {"ok"}
    assert {name for name, result in found.items() if result == "ok"} <= volumes
    assert volumes <= set(found), "a change that is nowhere on record"
    assert sum(result == "unfinished" for result in found.values()) <= 8


def test_a_command_finds_what_was_done_to_the_record(tmp_path: Path) -> None:
    with new_server(tmp_path) as server:
        for name in ("one", "two", "three"):
            asked(server, "volume.create", name=name)
        head = asked(server, "audit.entry.verify")["head"]
        [file] = (tmp_path / "data" / "audit").iterdir()
        written = file.read_bytes()

        file.write_bytes(written.replace(b'"two"', b'"tow"', 1))
        changed = warp(server, "audit", "verify")
        file.write_bytes(b"".join(written.splitlines(keepends=True)[:-1]))
        shortened = asked(server, "audit.entry.verify")
        file.write_bytes(written)
        listed = warp(server, "audit", "list", "--what", "volume.create")
        again = asked(server, "audit.entry.verify", head=head)

    assert changed[0] == 1
    assert "broken at entry 3" in changed[1]
    assert "line 3" in changed[1]
    assert (shortened["whole"], shortened["broken"]["seq"]) == (False, 6)
    assert [line.split()[7] for line in listed[1].splitlines()[1:]] == ["one", "two", "three"]
    assert (again["whole"], again["head"]) == (True, head)


def test_nothing_is_changed_once_the_record_is_full(tmp_path: Path) -> None:
    require_root()
    require("unshare", "nsenter", "mount")
    folder = tmp_path / "data" / "audit"
    with MountNamespace() as namespace, new_server(tmp_path, prefix=namespace.prefix) as server:
        folder.mkdir(mode=0o700)
        namespace.run("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder)
        with administrator(server) as http:
            for number in range(1000):
                answer = http.post("/v1/volumes", json={"name": f"v{number}"})
                if answer.status_code != 201:
                    break
            listed = [each["name"] for each in http.get("/v1/volumes").json()]
            refused = (answer.status_code, answer.json()["kind"])
            namespace.run("mount", "-o", "remount,size=1m", folder)
            again = http.post("/v1/volumes", json={"name": "room"}).status_code
            verified = http.get("/v1/audit/entries/verify").json()
        assert server.running, server.log_tail()

    assert refused == (507, "NoSpace")
    assert f"v{number}" not in listed
    assert len(listed) == number > 20
    assert again == 201
    assert verified["whole"], verified


@pytest.mark.slow
def test_schemathesis_finds_nothing(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("schemathesis")
    assert program.exists() or shutil.which("schemathesis"), "uv sync --group dev"
    (tmp_path / "schemathesis.toml").write_text(SCHEMATHESIS)
    with new_server(tmp_path) as server:
        token = asked(server, "admin.token.create", role="admin")["token"]
        done = subprocess.run(
            [
                str(program),
                *("run", f"{server.endpoints['admin']}/openapi.json"),
                *("--header", f"Authorization: Bearer {token}"),
                *("--phases", "examples,coverage,fuzzing"),
                *("--max-examples", os.environ.get("WARP_TEST_EXAMPLES", "30")),
                "--no-color",
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=1500,
        )
        assert server.running, server.log_tail()
        verified = asked(server, "audit.entry.verify")

    assert done.returncode == 0, done.stdout[-6000:]
    assert verified["whole"]
