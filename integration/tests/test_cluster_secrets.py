"""Two storing nodes and a witness: what a node knows of people, keys and rules, the other goes on with when it dies."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from warp_integration.clients import s3_client
from warp_integration.server import WarpServer
from warp_integration.trio import STORING, Trio

pytestmark = [
    pytest.mark.workspace,
    pytest.mark.slow,
    pytest.mark.usefixtures("warp_serve"),
]

MORE = """
[[account]]
name = "lab"
number = "123456789012"
keys = [{ access_key = "LABKEY", secret = "lab-secret" }]

[services.lifecycle]
interval = "1s"
day = "2s"
"""
LAB = {"aws_access_key_id": "LABKEY", "aws_secret_access_key": "lab-secret"}
SECRET = {
    "SSECustomerAlgorithm": "AES256",
    "SSECustomerKey": "c" * 32,
}
SEALED: dict[str, dict[str, str]] = {
    "sse-s3": {"ServerSideEncryption": "AES256"},
    "sse-kms": {"ServerSideEncryption": "aws:kms"},
    "sse-c": SECRET,
}
LARGE = 3 << 20
BACK_S = 45.0


@pytest.fixture
def trio(tmp_path: Path, warp_serve: None) -> Iterator[Trio]:
    with Trio(tmp_path, lease_s=4.0, more=MORE) as trio:
        trio.form()
        yield trio


def client(server: WarpServer, service: str, key: dict[str, str]) -> Any:
    return boto3.client(service, endpoint_url=server.s3, region_name="us-east-1", **key)


def policy(**more: Any) -> str:
    statement = {"Effect": "Allow", **more}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def content(name: str) -> bytes:
    return name.encode() * (LARGE // len(name)) if name.endswith("large") else name.encode()


def write(s3: Any, bucket: str, stage: str) -> set[tuple[str, str]]:
    """Store sealed objects of each kind; return their names with their kinds."""
    made = set()
    for kind, how in SEALED.items():
        for size in ("small", "large"):
            name = f"{stage}-{kind}-{size}"
            s3.put_object(Bucket=bucket, Key=name, Body=content(name), **how)
            made.add((name, kind))
    return made


def check(s3: Any, bucket: str, made: set[tuple[str, str]]) -> None:
    """Read sealed objects back, and see that they are refused to who does not know how."""
    for name, kind in made:
        how = SECRET if kind == "sse-c" else {}
        found = s3.get_object(Bucket=bucket, Key=name, **how)
        assert found["Body"].read() == content(name), name
        if kind == "sse-c":
            with pytest.raises(ClientError):
                s3.get_object(Bucket=bucket, Key=name)
        else:
            assert found["ServerSideEncryption"] == SEALED[kind]["ServerSideEncryption"]


def test_people_and_sealed_objects_outlive_either_node(trio: Trio) -> None:
    iam = client(trio.nodes["a"], "iam", LAB)
    user_arn = iam.create_user(UserName="ada")["User"]["Arn"]
    keys = []
    for _ in range(2):
        key = iam.create_access_key(UserName="ada")["AccessKey"]
        keys.append(
            {
                "aws_access_key_id": key["AccessKeyId"],
                "aws_secret_access_key": key["SecretAccessKey"],
            }
        )
    ada, second = keys
    iam.put_user_policy(
        UserName="ada",
        PolicyName="p",
        PolicyDocument=policy(Action="*", Resource=["arn:aws:s3:::ada*", "*"]),
    )
    role = iam.create_role(
        RoleName="reader",
        AssumeRolePolicyDocument=policy(Principal={"AWS": user_arn}, Action="sts:AssumeRole"),
    )["Role"]["Arn"]
    iam.attach_role_policy(
        RoleName="reader", PolicyArn="arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"
    )
    made: dict[str, set[tuple[str, str]]] = {}
    for name in STORING:
        s3 = client(trio.nodes[name], "s3", ada)
        s3.create_bucket(Bucket=f"ada-{name}")
        made[f"ada-{name}"] = write(s3, f"ada-{name}", "before")
    answer = client(trio.nodes["b"], "sts", ada).assume_role(RoleArn=role, RoleSessionName="one")
    session = {
        "aws_access_key_id": answer["Credentials"]["AccessKeyId"],
        "aws_secret_access_key": answer["Credentials"]["SecretAccessKey"],
        "aws_session_token": answer["Credentials"]["SessionToken"],
    }

    for dead, alive in (("a", "b"), ("b", "a")):
        trio.nodes[dead].kill()
        survivor = trio.nodes[alive]
        probes = [f"probe-{dead}-{name}" for name in STORING]
        for bucket in probes:  # made by the survivor, in its own domain
            client(survivor, "s3", LAB).create_bucket(Bucket=bucket)
        until_readable(survivor, ada, made)
        for bucket, names in made.items():
            check(client(survivor, "s3", ada), bucket, names)
            check(client(survivor, "s3", session), bucket, names)
            with pytest.raises(ClientError, match="AccessDenied"):
                client(survivor, "s3", session).put_object(Bucket=bucket, Key="k", Body=b"")
            names |= write(client(survivor, "s3", ada), bucket, f"without-{dead}")
        if dead == "a":  # what is taken away while a node is dead stays away when it is back
            client(survivor, "iam", LAB).delete_access_key(
                UserName="ada", AccessKeyId=second["aws_access_key_id"]
            )
        trio.nodes[dead].start()
        trio.until_healthy(120)
        for name in STORING:
            for bucket, names in made.items():
                check(client(trio.nodes[name], "s3", ada), bucket, names)
    for name in STORING:
        with pytest.raises(ClientError, match="InvalidAccessKeyId"):
            client(trio.nodes[name], "s3", second).list_objects_v2(Bucket="ada-a")


def until_readable(
    server: WarpServer, key: dict[str, str], made: dict[str, set[tuple[str, str]]]
) -> None:
    """Wait until all buckets have a home."""
    deadline = time.monotonic() + BACK_S
    for bucket in made:
        while True:
            try:
                client(server, "s3", key).list_objects_v2(Bucket=bucket)
                break
            except ClientError:
                assert time.monotonic() < deadline, server.log_tail()
                time.sleep(0.2)


def test_a_sweep_of_lifecycle_rules_is_finished_by_who_takes_over(trio: Trio) -> None:
    s3 = s3_client(trio.nodes["a"].s3)
    s3.create_bucket(Bucket="swept")
    names = [f"{prefix}/{number:04}" for prefix in ("gone", "kept") for number in range(1500)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: s3.put_object(Bucket="swept", Key=name, Body=b"x"), names))
    rule = {
        "ID": "r",
        "Status": "Enabled",
        "Filter": {"Prefix": "gone/"},
        "Expiration": {"Days": 1},
    }
    s3.put_bucket_lifecycle_configuration(Bucket="swept", LifecycleConfiguration={"Rules": [rule]})

    deadline = time.monotonic() + 60
    while (before := len(listed(s3, "gone/"))) == 1500:
        assert time.monotonic() < deadline, trio.nodes["a"].log_tail()
    trio.nodes["a"].kill()
    print(f"killed with {before} of 1500 left")

    s3 = s3_client(trio.nodes["b"].s3)
    deadline = time.monotonic() + 120
    while True:
        try:
            left = listed(s3, "gone/")
        except ClientError:
            left = ["?"]
        if not left:
            break
        assert time.monotonic() < deadline, (left[:5], trio.nodes["b"].log_tail())
        time.sleep(0.2)
    assert listed(s3, "kept/") == [name for name in names if name.startswith("kept/")]


def listed(s3: Any, prefix: str) -> list[str]:
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket="swept", Prefix=prefix)
    return [each["Key"] for page in pages for each in page.get("Contents", [])]
