"""Clients that append to one log at once by conditional writes alone, as table formats do.

A log is numbered objects; whoever stores number n first with `If-None-Match: *` owns it, and the others go on with n + 1. Beside it
a counter is one object that is replaced with `If-Match`. Each class is one client, in the words of its own manual.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from warp_integration.clients import REGION, s3_client
from warp_integration.requirements import locate, require, require_modules
from warp_integration.server import ACCESS_KEY, SECRET_KEY

TIMEOUT_S = 120.0
LOG = "log/"
COUNTER = "counter"


class Appender(ABC):
    """One client with one bucket, used by one thread.

    Args:
        endpoint: URL of the server.
        bucket: A bucket that exists.
        home: A folder for the client's own files.
    """

    name: str
    swaps = True  # whether the client knows If-Match

    def __init__(self, endpoint: str, bucket: str, home: Path) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.endpoint, self.bucket, self.home = endpoint, bucket, home

    @abstractmethod
    def create(self, key: str, body: bytes) -> bool:
        """Store an object that is not there yet; return whether it was this call that did."""

    @abstractmethod
    def read(self, key: str) -> tuple[bytes, str]:
        """Return an object's content and its ETag as the client shows it."""

    def swap(self, key: str, body: bytes, etag: str) -> bool:
        """Replace an object that still has the ETag; return whether it had."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of what the client holds."""
        return


class Boto3(Appender):
    """boto3."""

    name = "boto3"

    def __init__(self, endpoint: str, bucket: str, home: Path) -> None:
        super().__init__(endpoint, bucket, home)
        self._s3 = s3_client(endpoint)

    def create(self, key: str, body: bytes) -> bool:
        return self._put(key, body, IfNoneMatch="*")

    def swap(self, key: str, body: bytes, etag: str) -> bool:
        return self._put(key, body, IfMatch=etag)

    def read(self, key: str) -> tuple[bytes, str]:
        found = self._s3.get_object(Bucket=self.bucket, Key=key)
        return found["Body"].read(), found["ETag"]

    def close(self) -> None:
        self._s3.close()

    def _put(self, key: str, body: bytes, **conditions: str) -> bool:
        from botocore.exceptions import ClientError

        try:
            self._s3.put_object(Bucket=self.bucket, Key=key, Body=body, **conditions)
        except ClientError as error:
            if error.response["Error"]["Code"] not in _REFUSED:
                raise
            return False
        return True


class Aiobotocore(Appender):
    """aiobotocore, a loop in each thread."""

    name = "aiobotocore"

    def __init__(self, endpoint: str, bucket: str, home: Path) -> None:
        require_modules(aiobotocore="aiobotocore")
        from aiobotocore.session import get_session

        super().__init__(endpoint, bucket, home)
        self._loop = asyncio.new_event_loop()
        self._context = get_session().create_client(
            "s3",
            endpoint_url=endpoint,
            region_name=REGION,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
        )
        self._s3: Any = self._loop.run_until_complete(self._context.__aenter__())

    def create(self, key: str, body: bytes) -> bool:
        return self._put(key, body, IfNoneMatch="*")

    def swap(self, key: str, body: bytes, etag: str) -> bool:
        return self._put(key, body, IfMatch=etag)

    def read(self, key: str) -> tuple[bytes, str]:
        async def run() -> tuple[bytes, str]:
            found = await self._s3.get_object(Bucket=self.bucket, Key=key)
            async with found["Body"] as body:
                return await body.read(), found["ETag"]

        return self._loop.run_until_complete(run())

    def close(self) -> None:
        self._loop.run_until_complete(self._context.__aexit__(None, None, None))
        self._loop.close()

    def _put(self, key: str, body: bytes, **conditions: str) -> bool:
        from botocore.exceptions import ClientError

        put = self._s3.put_object(Bucket=self.bucket, Key=key, Body=body, **conditions)
        try:
            self._loop.run_until_complete(put)
        except ClientError as error:
            if error.response["Error"]["Code"] not in _REFUSED:
                raise
            return False
        return True


class S3fs(Appender):
    """s3fs: files that are created or not; it has no If-Match."""

    name = "s3fs"
    swaps = False

    def __init__(self, endpoint: str, bucket: str, home: Path) -> None:
        require_modules(s3fs="s3fs")
        import s3fs

        super().__init__(endpoint, bucket, home)
        self._files = s3fs.S3FileSystem(
            key=ACCESS_KEY, secret=SECRET_KEY, endpoint_url=endpoint, use_listings_cache=False
        )

    def create(self, key: str, body: bytes) -> bool:
        try:
            self._files.pipe_file(f"{self.bucket}/{key}", body, mode="create")
        except FileExistsError:
            return False
        return True

    def read(self, key: str) -> tuple[bytes, str]:
        path = f"{self.bucket}/{key}"
        return self._files.cat_file(path), self._files.info(path, refresh=True)["ETag"]


class Obstore(Appender):
    """obstore: the Rust crate object_store, which delta-rs, Polars and Icechunk use as well."""

    name = "obstore"

    def __init__(self, endpoint: str, bucket: str, home: Path) -> None:
        require_modules(obstore="obstore")
        from obstore.store import S3Store

        super().__init__(endpoint, bucket, home)
        self._store = S3Store(
            bucket,
            endpoint=endpoint,
            access_key_id=ACCESS_KEY,
            secret_access_key=SECRET_KEY,
            region=REGION,
            client_options={"allow_http": True},
            virtual_hosted_style_request=False,
        )

    def create(self, key: str, body: bytes) -> bool:
        return self._put(key, body, "create")

    def swap(self, key: str, body: bytes, etag: str) -> bool:
        return self._put(key, body, {"e_tag": etag})

    def read(self, key: str) -> tuple[bytes, str]:
        import obstore

        found = obstore.get(self._store, key)
        return bytes(found.bytes()), found.meta["e_tag"] or ""

    def _put(self, key: str, body: bytes, mode: Any) -> bool:
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        try:
            obstore.put(self._store, key, body, mode=mode)
        except (AlreadyExistsError, PreconditionError):
            return False
        return True


class AwsCli(Appender):
    """`aws s3api`."""

    name = "awscli"

    def __init__(self, endpoint: str, bucket: str, home: Path) -> None:
        require("aws")
        super().__init__(endpoint, bucket, home)

    def create(self, key: str, body: bytes) -> bool:
        return self._put(key, body, "--if-none-match", "*")

    def swap(self, key: str, body: bytes, etag: str) -> bool:
        return self._put(key, body, "--if-match", etag)

    def read(self, key: str) -> tuple[bytes, str]:
        target = self.home / "read"
        words = ("--query", "ETag", "--output", "text", str(target))
        done = self._aws("get-object", key, *words)
        assert done.returncode == 0, done.stderr
        return target.read_bytes(), done.stdout.strip()

    def _put(self, key: str, body: bytes, *condition: str) -> bool:
        source = self.home / "source"
        source.write_bytes(body)
        done = self._aws("put-object", key, "--body", str(source), *condition)
        if done.returncode and not any(f"({code})" in done.stderr for code in _REFUSED):
            raise AssertionError(done.stderr)
        return done.returncode == 0

    def _aws(self, verb: str, key: str, *words: str) -> subprocess.CompletedProcess[str]:
        keys = {
            "HOME": str(self.home),
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        where = ("--bucket", self.bucket, "--key", key)
        command = [str(locate("aws")), "--endpoint-url", self.endpoint, "s3api", verb]
        return subprocess.run(
            [*command, *where, *words],
            env=os.environ | keys,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )


class S3cmd(Appender):
    """`s3cmd`, which knows conditions only as headers that one adds."""

    name = "s3cmd"

    def __init__(self, endpoint: str, bucket: str, home: Path) -> None:
        require("s3cmd")
        super().__init__(endpoint, bucket, home)
        host = endpoint.partition("//")[2]
        (home / "s3cfg").write_text(
            f"[default]\naccess_key = {ACCESS_KEY}\nsecret_key = {SECRET_KEY}\nhost_base = {host}\n"
            f"host_bucket = {host}\nuse_https = False\nbucket_location = {REGION}\nmax_retries = 1\n"
        )

    def create(self, key: str, body: bytes) -> bool:
        return self._put(key, body, "If-None-Match: *")

    def swap(self, key: str, body: bytes, etag: str) -> bool:
        return self._put(key, body, f'If-Match: "{etag}"')

    def read(self, key: str) -> tuple[bytes, str]:
        import hashlib

        done = self._s3cmd("get", f"s3://{self.bucket}/{key}", "-")
        assert done.returncode == 0, done.stderr
        return done.stdout, hashlib.md5(done.stdout, usedforsecurity=False).hexdigest()

    def _put(self, key: str, body: bytes, condition: str) -> bool:
        source = self.home / "source"
        source.write_bytes(body)
        target = f"s3://{self.bucket}/{key}"
        done = self._s3cmd("put", "--add-header", condition, str(source), target)
        if done.returncode and not any(code.encode() in done.stderr for code in _REFUSED_BY_STATUS):
            raise AssertionError(done.stderr)
        return done.returncode == 0

    def _s3cmd(self, *words: str) -> subprocess.CompletedProcess[bytes]:
        command = [str(locate("s3cmd")), "--config", str(self.home / "s3cfg"), "--no-progress"]
        return subprocess.run(
            [*command, *words],
            env=os.environ | {"HOME": str(self.home)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT_S,
        )


APPENDERS: dict[str, type[Appender]] = {
    each.name: each for each in (Boto3, Aiobotocore, S3fs, Obstore, AwsCli, S3cmd)
}
_REFUSED = ("PreconditionFailed", "ConditionalRequestConflict")
_REFUSED_BY_STATUS = ("412", "409")


def append(client: Appender, records: list[bytes]) -> None:
    """Append records to the log, each at the first number that is free."""
    number = 0
    for record in records:
        while not client.create(f"{LOG}{number:08d}", record):
            number += 1
        number += 1


def count(client: Appender, times: int) -> None:
    """Add one to the counter so many times."""
    done = 0
    while done < times:
        body, etag = client.read(COUNTER)
        done += client.swap(COUNTER, b"%d" % (int(body) + 1), etag)


def together(make: Callable[[int], Appender], jobs: list[Callable[[Appender], None]]) -> None:
    """Run each job with a client of its own, all at once."""

    def run(number: int) -> None:
        client = make(number)
        try:
            jobs[number](client)
        finally:
            client.close()

    with ThreadPoolExecutor(len(jobs)) as pool:
        for ended in [pool.submit(run, number) for number in range(len(jobs))]:
            ended.result(TIMEOUT_S)
