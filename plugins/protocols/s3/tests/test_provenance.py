"""Versions that come from elsewhere, sent by core's client of S3."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

import pytest
from warp_core.errors import TimedOut, Unavailable
from warp_core.s3 import Body, Client, Endpoint, Response

T = TypeVar("T")
VERSION = f"{5:016x}{7:016x}"
MODIFIED = 1_700_000_000_123_456_789
SAID = {"x-warp-source-version-id": VERSION, "x-warp-source-modified": str(MODIFIED)}


def talk(shared: Any, work: Callable[[Client], Coroutine[Any, Any, T]], who: Any = None) -> T:
    """Do something with a client of the server."""
    key = who or shared.alice

    async def run() -> T:
        endpoint = Endpoint.parse(shared.url, key.access_key, key.secret)
        async with Client(endpoint) as client:
            return await work(client)

    return asyncio.run(run())


@pytest.fixture
def owned(shared: Any, connect: Callable[..., Any], bucket: str) -> str:
    """A bucket of Alice's that keeps versions."""
    alice = connect(shared.url, shared.alice)
    name = f"alices-{bucket}"
    alice.create_bucket(Bucket=name)
    alice.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    return name


def test_a_version_keeps_its_id_its_time_and_its_etag(shared: Any, s3: Any, owned: str) -> None:
    key = f"/{owned}/a b+ü".encode()
    headers = {
        **SAID,
        "x-warp-source-etag": "0123456789abcdef0123456789abcdef-3",
        "x-warp-source-replica": "true",
        "content-type": "text/plain; charset=utf-8",
        "x-amz-meta-name": "wert ü",
        "x-amz-tagging": "a=b&c=d%20e",
    }

    async def work(client: Client) -> list[Response]:
        put = [await client.request("PUT", key, headers=headers, body=b"data") for _ in range(2)]
        return [*put, await client.request("HEAD", key, query={"versionId": VERSION})]

    *puts, head = talk(shared, work)
    for put in puts:  # the second one is told what the first one was
        assert (put.status, put.headers["x-amz-version-id"]) == (200, VERSION), put.reason
    assert head.headers["etag"] == '"0123456789abcdef0123456789abcdef-3"'
    assert head.headers["last-modified"] == "Tue, 14 Nov 2023 22:13:20 GMT"
    assert head.headers["x-amz-replication-status"] == "REPLICA"
    said = s3.head_object(Bucket=owned, Key="a b+ü")["Metadata"]
    assert said["name"].encode("latin-1").decode() == "wert ü"
    assert len(s3.list_object_versions(Bucket=owned)["Versions"]) == 1
    tags = s3.get_object_tagging(Bucket=owned, Key="a b+ü")["TagSet"]
    assert tags == [{"Key": "a", "Value": "b"}, {"Key": "c", "Value": "d e"}]


def test_large_content_is_streamed_and_markers_and_uploads_keep_their_ids(
    shared: Any, s3: Any, owned: str
) -> None:
    data = bytes(range(256)) * 4096 * 6
    key = f"/{owned}/large".encode()
    later = {**SAID, "x-warp-source-version-id": f"{6:016x}{7:016x}"}
    last = {**SAID, "x-warp-source-version-id": f"{7:016x}{7:016x}"}

    async def pieces() -> AsyncIterator[memoryview]:
        for start in range(0, len(data), 1 << 20):
            yield memoryview(data)[start : start + (1 << 20)]

    async def work(client: Client) -> None:
        put = await client.request("PUT", key, headers=SAID, body=Body(len(data), pieces))
        assert put.headers["etag"] == f'"{hashlib.md5(data).hexdigest()}"'
        for _ in range(2):
            begun = await client.request("POST", key, query={"uploads": ""}, headers=last)
            upload = begun.body.split(b"<UploadId>")[1].split(b"<")[0].decode()
            named = {"partNumber": "1", "uploadId": upload}
            part = await client.request("PUT", key, query=named, body=b"part")
            parts = (
                "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber>"
                f"<ETag>{part.headers['etag']}</ETag></Part></CompleteMultipartUpload>"
            )
            done = await client.request(
                "POST", key, query={"uploadId": upload}, body=parts.encode()
            )
            assert done.headers["x-amz-version-id"] == last["x-warp-source-version-id"], done
        for _ in range(2):
            gone = await client.request("DELETE", key, headers=later)
            assert gone.headers["x-amz-version-id"] == later["x-warp-source-version-id"]
            assert gone.headers["x-amz-delete-marker"] == "true"

    talk(shared, work)
    found = s3.list_object_versions(Bucket=owned)
    assert [one["VersionId"][:16] for one in found["Versions"]] == [f"{n:016x}" for n in (7, 5)]
    assert [one["VersionId"][:16] for one in found["DeleteMarkers"]] == [f"{6:016x}"]
    assert s3.get_object(Bucket=owned, Key="large")["Body"].read() == b"part"
    assert s3.list_multipart_uploads(Bucket=owned).get("Uploads") is None


def test_who_may_write_may_not_say_where_it_comes_from(
    shared: Any, connect: Callable[..., Any], owned: str
) -> None:
    alice = connect(shared.url, shared.alice)
    key = f"/{owned}/k".encode()

    def allow(*actions: str) -> None:
        statement = {
            "Effect": "Allow",
            "Principal": {"AWS": "*"},
            "Action": actions,
            "Resource": f"arn:aws:s3:::{owned}/*",
        }
        policy = {"Version": "2012-10-17", "Statement": [statement]}
        alice.delete_public_access_block(Bucket=owned)
        alice.put_public_access_block(
            Bucket=owned, PublicAccessBlockConfiguration={"BlockPublicPolicy": False}
        )
        alice.put_bucket_policy(Bucket=owned, Policy=json.dumps(policy))

    async def work(client: Client) -> tuple[int, int, int]:
        put = await client.request("PUT", key, headers=SAID, body=b"1")
        plain = await client.request("PUT", key, body=b"2")
        gone = await client.request("DELETE", key, headers=SAID)
        return put.status, plain.status, gone.status

    allow("s3:PutObject", "s3:DeleteObject")
    assert talk(shared, work, shared.bob) == (403, 200, 403)
    allow("s3:PutObject", "s3:DeleteObject", "s3:ReplicateObject", "s3:ReplicateDelete")
    assert talk(shared, work, shared.bob) == (200, 200, 204)


def test_what_is_no_provenance_is_refused(shared: Any, owned: str) -> None:
    key = f"/{owned}/k".encode()

    async def work(client: Client) -> None:
        for name, value in (
            ("version-id", "null"),
            ("version-id", "f" * 32),
            ("modified", "yesterday"),
            ("modified", "-1"),
            ("etag", '"quoted"'),
        ):
            headers = {f"x-warp-source-{name}": value}
            answer = await client.request("PUT", key, headers=headers, body=b"1")
            assert (answer.status, answer.code) == (400, "InvalidArgument"), (name, value)

    talk(shared, work)


async def test_a_client_says_what_is_wrong_with_the_other_side() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        if reader.at_eof():
            return
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        endpoint = Endpoint.parse(f"http://127.0.0.1:{port}", "k", "s")
        async with Client(endpoint, stall_s=0.2) as client:
            with pytest.raises(TimedOut):
                await client.request("GET", b"/b/k")
    async with Client(endpoint) as client:
        with pytest.raises(Unavailable, match="nobody answers"):
            await client.request("GET", b"/b/k")


def test_a_secret_is_not_shown() -> None:
    assert "hidden" not in repr(Endpoint.parse("https://h", "k", "hidden"))
