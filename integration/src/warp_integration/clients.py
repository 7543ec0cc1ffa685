"""The S3 clients that people have, each reduced to what a round trip needs.

Every client stores a folder in a bucket, lists it, reads it back into another folder and deletes everything, by the
commands that its own manual gives. None gets a WARP-specific option beyond endpoint and key.
"""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from warp_integration.requirements import locate, require
from warp_integration.server import ACCESS_KEY, SECRET_KEY

TIMEOUT_S = 1800
REGION = "us-east-1"


def s3_client(endpoint: str, **config: Any) -> Any:
    """Return a boto3 client for `endpoint` with botocore's defaults and `config` on top."""
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name=REGION,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        config=Config(**config),
    )


class Client(ABC):
    """One client at one endpoint.

    Args:
        endpoint: URL of the server.
        home: A folder for the client's own files.
    """

    name: str
    program: str = ""

    def __init__(self, endpoint: str, home: Path) -> None:
        if self.program:
            require(self.program)
        home.mkdir(parents=True, exist_ok=True)
        self.endpoint = endpoint
        self.home = home

    @abstractmethod
    def create_bucket(self, bucket: str) -> None:
        """Create a bucket."""

    @abstractmethod
    def store(self, folder: Path, bucket: str) -> None:
        """Store every file below `folder`, its path as key."""

    @abstractmethod
    def list(self, bucket: str) -> set[str]:
        """Return every key."""

    @abstractmethod
    def read_back(self, bucket: str, folder: Path) -> None:
        """Read every object into a file below `folder`."""

    @abstractmethod
    def delete_all(self, bucket: str) -> None:
        """Delete every object."""

    def _run(self, *arguments: str | Path, environment: Mapping[str, str] | None = None) -> str:
        program = locate(self.program)
        assert program
        ended = subprocess.run(
            [program, *arguments],
            env={**os.environ, "HOME": str(self.home), **(environment or {})},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
        if ended.returncode:
            words = " ".join(map(str, arguments))
            tail = (ended.stdout + ended.stderr)[-3000:]
            raise AssertionError(f"{self.program} {words} ended with {ended.returncode}:\n{tail}")
        return ended.stdout


class Boto3(Client):
    """boto3 with its transfer manager, ten files at once."""

    name = "boto3"

    def __init__(self, endpoint: str, home: Path) -> None:
        super().__init__(endpoint, home)
        self._s3 = s3_client(endpoint, max_pool_connections=20)

    def create_bucket(self, bucket: str) -> None:
        self._s3.create_bucket(Bucket=bucket)

    def store(self, folder: Path, bucket: str) -> None:
        with ThreadPoolExecutor(10) as pool:
            jobs = [
                pool.submit(self._s3.upload_file, str(folder / name), bucket, name)
                for name in files_of(folder)
            ]
            for job in jobs:
                job.result()

    def list(self, bucket: str) -> set[str]:
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return {found["Key"] for page in pages for found in page.get("Contents", ())}

    def read_back(self, bucket: str, folder: Path) -> None:
        keys = self.list(bucket)
        for key in keys:
            (folder / key).parent.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(10) as pool:
            jobs = [
                pool.submit(self._s3.download_file, bucket, key, str(folder / key)) for key in keys
            ]
            for job in jobs:
                job.result()

    def delete_all(self, bucket: str) -> None:
        keys = sorted(self.list(bucket))
        for at in range(0, len(keys), 1000):
            objects = [{"Key": key} for key in keys[at : at + 1000]]
            answer = self._s3.delete_objects(Bucket=bucket, Delete={"Objects": objects})
            assert not answer.get("Errors"), answer["Errors"]


class AwsCli(Client):
    """`aws s3`."""

    name = "awscli"
    program = "aws"

    def _aws(self, *arguments: str | Path) -> str:
        keys = {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        words = ("--endpoint-url", self.endpoint, "s3", *arguments)
        return self._run(*words, environment=keys)

    def create_bucket(self, bucket: str) -> None:
        self._aws("mb", f"s3://{bucket}")

    def store(self, folder: Path, bucket: str) -> None:
        self._aws("cp", "--recursive", "--only-show-errors", folder, f"s3://{bucket}/")

    def list(self, bucket: str) -> set[str]:
        lines = self._aws("ls", "--recursive", f"s3://{bucket}/").splitlines()
        return {line.split(maxsplit=2)[2].partition(" ")[2] for line in lines}

    def read_back(self, bucket: str, folder: Path) -> None:
        self._aws("cp", "--recursive", "--only-show-errors", f"s3://{bucket}/", folder)

    def delete_all(self, bucket: str) -> None:
        self._aws("rm", "--recursive", "--only-show-errors", f"s3://{bucket}/")


class Rclone(Client):
    """`rclone`, also as a judge of its own: `check` compares sizes and hashes."""

    name = "rclone"
    program = "rclone"

    def _rclone(self, *arguments: str | Path) -> str:
        options = {
            "RCLONE_CONFIG_WARP_TYPE": "s3",
            "RCLONE_CONFIG_WARP_PROVIDER": "Other",
            "RCLONE_CONFIG_WARP_ENDPOINT": self.endpoint,
            "RCLONE_CONFIG_WARP_REGION": REGION,
            "RCLONE_CONFIG_WARP_ACCESS_KEY_ID": ACCESS_KEY,
            "RCLONE_CONFIG_WARP_SECRET_ACCESS_KEY": SECRET_KEY,
            "RCLONE_CONFIG": "/dev/null",
            "RCLONE_RETRIES": "1",
            "RCLONE_LOW_LEVEL_RETRIES": "1",  # what needs a retry is a fault here
        }
        return self._run(*arguments, environment=options)

    def create_bucket(self, bucket: str) -> None:
        self._rclone("mkdir", f"warp:{bucket}")

    def store(self, folder: Path, bucket: str) -> None:
        self._rclone("copy", folder, f"warp:{bucket}")
        self._rclone("check", folder, f"warp:{bucket}")

    def list(self, bucket: str) -> set[str]:
        return set(self._rclone("lsf", "-R", "--files-only", f"warp:{bucket}").splitlines())

    def read_back(self, bucket: str, folder: Path) -> None:
        self._rclone("copy", f"warp:{bucket}", folder)

    def delete_all(self, bucket: str) -> None:
        self._rclone("delete", f"warp:{bucket}")


class S3cmd(Client):
    """`s3cmd`."""

    name = "s3cmd"
    program = "s3cmd"

    def _s3cmd(self, *arguments: str | Path) -> str:
        config = self.home / "s3cfg"
        host = self.endpoint.partition("//")[2]
        lines = {
            "access_key": ACCESS_KEY,
            "secret_key": SECRET_KEY,
            "host_base": host,
            "host_bucket": host,
            "use_https": "False",
            "bucket_location": REGION,
        }
        config.write_text("[default]\n" + "".join(f"{k} = {v}\n" for k, v in lines.items()))
        return self._run("--config", config, "--no-progress", *arguments)

    def create_bucket(self, bucket: str) -> None:
        self._s3cmd("mb", f"s3://{bucket}")

    def store(self, folder: Path, bucket: str) -> None:
        self._s3cmd("put", "--recursive", f"{folder}/", f"s3://{bucket}/")

    def list(self, bucket: str) -> set[str]:
        start = f"s3://{bucket}/"
        lines = self._s3cmd("ls", "--recursive", start).splitlines()
        return {line.partition(start)[2] for line in lines}

    def read_back(self, bucket: str, folder: Path) -> None:
        self._s3cmd("get", "--recursive", f"s3://{bucket}/", f"{folder}/")

    def delete_all(self, bucket: str) -> None:
        self._s3cmd("del", "--recursive", "--force", f"s3://{bucket}/")


CLIENTS: dict[str, type[Client]] = {
    client.name: client for client in (Boto3, AwsCli, Rclone, S3cmd)
}


def mixed_files(folder: Path, *, count: int, large: int, seed: int) -> None:
    """Fill `folder` with `count` files of mixed sizes and names, and one of `large` bytes."""
    rng = random.Random(seed)
    sizes = (0, 1, 100, 1000, 4096, 20_000, 70_000, 300_000)
    names = ("plain", "with space", "ünïcode", "plus+and&amp", "100%", "a=b,c;d", "[x](y)'", "日本")
    for number in range(count):
        depth = rng.choice((0, 0, 1, 1, 2, 5))
        parts = [f"dir {rng.randrange(4)}" for _ in range(depth)]
        path = folder.joinpath(*parts, f"{rng.choice(names)} {number}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rng.randbytes(rng.choice(sizes)))
    block = rng.randbytes(1 << 20)
    with (folder / "large").open("wb") as file:
        for number in range(large >> 20):
            file.write(number.to_bytes(8, "big") + block[8:])


def files_of(folder: Path) -> dict[str, tuple[int, str]]:
    """Return path → (size, SHA-256) of every file below `folder`."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            found[str(path.relative_to(folder))] = (path.stat().st_size, digest)
    return found
