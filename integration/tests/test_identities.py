"""Users, roles and sessions through `warp serve`: what was acknowledged holds after a kill, and what was taken away stays away."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from warp_integration.server import WarpServer, config_text

pytestmark = [pytest.mark.workspace, pytest.mark.usefixtures("warp_serve")]

ACCOUNT = """
[[account]]
name = "lab"
number = "123456789012"
keys = [{ access_key = "LABKEY", secret = "lab-secret" }]
"""
LAB = {"aws_access_key_id": "LABKEY", "aws_secret_access_key": "lab-secret"}


def client(server: WarpServer, service: str, key: dict[str, str]) -> Any:
    return boto3.client(service, endpoint_url=server.s3, region_name="us-east-1", **key)


def key_of(made: dict[str, Any]) -> dict[str, str]:
    key = {
        "aws_access_key_id": made["AccessKeyId"],
        "aws_secret_access_key": made["SecretAccessKey"],
    }
    return key | ({"aws_session_token": made["SessionToken"]} if "SessionToken" in made else {})


def policy(**more: Any) -> str:
    statement = {"Effect": "Allow", **more}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def test_users_roles_and_sessions_survive_kills(tmp_path: Path) -> None:
    config = tmp_path / "warp.toml"
    config.write_text(config_text() + ACCOUNT)
    server = WarpServer(tmp_path / "data", config=config, logs=tmp_path / "logs")
    with server:
        iam = client(server, "iam", LAB)
        arn = iam.create_user(UserName="ada")["User"]["Arn"]
        user = key_of(iam.create_access_key(UserName="ada")["AccessKey"])
        iam.put_user_policy(
            UserName="ada",
            PolicyName="p",
            PolicyDocument=policy(Action="s3:*", Resource=["arn:aws:s3:::ada*"]),
        )
        role = iam.create_role(
            RoleName="reader",
            AssumeRolePolicyDocument=policy(Principal={"AWS": arn}, Action="sts:AssumeRole"),
        )["Role"]["Arn"]
        iam.attach_role_policy(
            RoleName="reader", PolicyArn="arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"
        )
        client(server, "s3", user).create_bucket(Bucket="ada-1")
        answer = client(server, "sts", user).assume_role(RoleArn=role, RoleSessionName="one")
        session = key_of(answer["Credentials"])
        server.kill()
        server.start()

        client(server, "s3", user).put_object(Bucket="ada-1", Key="k", Body=b"1")
        reader = client(server, "s3", session)
        assert reader.get_object(Bucket="ada-1", Key="k")["Body"].read() == b"1"
        with pytest.raises(ClientError, match="AccessDenied"):
            reader.put_object(Bucket="ada-1", Key="k", Body=b"2")
        with pytest.raises(ClientError, match="AccessDenied"):
            client(server, "s3", user).create_bucket(Bucket="other")
        iam = client(server, "iam", LAB)
        iam.detach_role_policy(
            RoleName="reader", PolicyArn="arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"
        )
        iam.delete_role(RoleName="reader")
        iam.delete_access_key(UserName="ada", AccessKeyId=user["aws_access_key_id"])
        server.kill()
        server.start()

        for key in (session, user):
            with pytest.raises(ClientError, match="InvalidAccessKeyId"):
                client(server, "s3", key).list_buckets()
        assert [each["UserName"] for each in client(server, "iam", LAB).list_users()["Users"]] == [
            "ada"
        ]
        # Nothing below S3 has heard of users: what they made is their account's.
        client(server, "s3", LAB).get_object(Bucket="ada-1", Key="k")
