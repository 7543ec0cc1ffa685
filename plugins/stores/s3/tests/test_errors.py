"""Errors are told apart, retries end, parts are whole or gone: against an endpoint of the test's own."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from warp_core.config.types import Duration
from warp_core.errors import (
    ConfigError,
    Corrupt,
    InvalidArgument,
    NewerFormat,
    NotFound,
    StoreFailed,
    Unavailable,
)
from warp_store_s3 import Config, S3Store
from warp_store_s3.asking import Away
from warp_store_s3.listing import keys_of, total_of, uploads_of

Answer = tuple[int, dict[str, str], bytes]
MARKER = b'{"format":1,"id":"abc"}'


class Endpoint:
    """Answers requests by a function of the test's; remembers what was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.answer: Callable[[str, str], Answer] = self.usual
        self.url = ""

    def usual(self, method: str, target: str) -> Answer:
        if target.endswith("warp-store.json"):
            return 200, {}, MARKER
        return 200, {}, b"<ListMultipartUploadsResult/>"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                method, target, _ = head.split(b"\r\n")[0].decode().split(" ")
                headers = dict(re.findall(r"(?m)^([a-z0-9-]+): (.*?)\r$", head.decode()))
                await reader.readexactly(int(headers.get("content-length", "0")))
                self.asked.append(f"{method} {target}")
                self.headers.append(headers)
                status, more, body = self.answer(method, target)
                if not status:
                    return
                lines = "".join(f"{name}: {value}\r\n" for name, value in more.items())
                length = "" if "content-length" in more else f"content-length: {len(body)}\r\n"
                writer.write(f"HTTP/1.1 {status} x\r\n{lines}{length}\r\n".encode())
                writer.write(b"" if method == "HEAD" else body)
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    made = Endpoint()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield made
    server.close()


@pytest.fixture
def store(
    endpoint: Endpoint, tmp_path: Path, configured: Callable[..., Config]
) -> Callable[..., S3Store]:
    def make(**options: object) -> S3Store:
        options.setdefault("retries", 0)
        return S3Store(configured(endpoint.url, **options), tmp_path)

    return make


def error(status: int, code: str) -> Answer:
    return status, {}, f"<Error><Code>{code}</Code><Message>so it is</Message></Error>".encode()


async def test_an_endpoint_that_is_not_there_is_named_with_what_to_do(
    tmp_path: Path, configured: Callable[..., Config]
) -> None:
    config = configured("http://127.0.0.1:9", retries=0)
    with pytest.raises(Unavailable, match=r"127.0.0.1:9/tier-bucket/\S+ is away.*start it"):
        async with S3Store(config, tmp_path):
            pass


@pytest.mark.parametrize(
    ("status", "code", "kind", "said"),
    [
        (403, "AccessDenied", StoreFailed, r"refuses \(403 AccessDenied so it is\).*the right to"),
        (403, "SignatureDoesNotMatch", StoreFailed, "correct the credentials"),
        (404, "NoSuchBucket", StoreFailed, 'has no bucket "tier-bucket": make it'),
        (404, "NoSuchKey", NotFound, "has no"),
        (503, "SlowDown", Away, "is away: it answers 503 SlowDown"),
        (500, "InternalError", Away, "is away"),
        (400, "InvalidRequest", StoreFailed, "answers 400 InvalidRequest"),
    ],
)
async def test_what_went_wrong_is_told_apart(
    endpoint: Endpoint,
    store: Callable[..., S3Store],
    status: int,
    code: str,
    kind: type[Exception],
    said: str,
) -> None:
    async with store() as subject:
        endpoint.answer = lambda method, target: error(status, code)
        with pytest.raises(kind, match=said) as caught:
            await subject.read("a", offset=0, length=5)
        assert type(caught.value) is kind


async def test_a_busy_endpoint_is_asked_again_and_not_for_ever(
    endpoint: Endpoint, store: Callable[..., S3Store]
) -> None:
    async with store(retries=2) as subject:
        endpoint.asked.clear()
        answers = iter([error(503, "SlowDown"), (0, {}, b""), (206, {}, b"bytes")])
        endpoint.answer = lambda method, target: next(answers)
        assert await subject.read("a", offset=0, length=5) == b"bytes"
        endpoint.answer = lambda method, target: error(503, "SlowDown")
        endpoint.asked.clear()
        with pytest.raises(Away):
            await subject.read("a", offset=0, length=5)

        assert len(endpoint.asked) == 3


async def test_an_endpoint_that_says_nothing_is_given_up(
    endpoint: Endpoint, store: Callable[..., S3Store]
) -> None:
    async with store(timeout=Duration(0.1)) as subject:
        endpoint.answer = lambda method, target: (206, {"content-length": "10"}, b"half")
        with pytest.raises(Away, match="is away"):
            await subject.read("a", offset=0, length=10)


async def test_ranges_of_several_requests_are_of_one_object(
    endpoint: Endpoint, store: Callable[..., S3Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("warp_store_s3.store.READ_MAX", 4)
    versions = {"old": b"0123456789", "new": b"abcdefghij"}
    current = "old"

    def answer(method: str, target: str) -> Answer:
        nonlocal current
        headers = endpoint.headers[-1]
        wanted = headers.get("if-match", f'"{current}"').strip('"')
        if wanted != current:
            return error(412, "PreconditionFailed")
        first, last = map(int, headers["range"].removeprefix("bytes=").split("-"))
        data = versions[current][first : last + 1]
        if first == 4:
            current = "new"
        return 206, {"etag": f'"{wanted}"', "content-range": f"bytes {first}-{last}/10"}, data

    async with store() as subject:
        endpoint.answer = answer
        assert await subject.read("a", offset=0, length=10) == versions["new"]


async def test_an_upload_that_fails_is_aborted(
    endpoint: Endpoint, store: Callable[..., S3Store]
) -> None:
    def answer(method: str, target: str) -> Answer:
        if "uploads=" in target:
            return 200, {}, b"<UploadId>u1</UploadId>"
        if "partNumber=2" in target:
            return error(403, "AccessDenied")
        return 200, {"etag": '"e"'}, b""

    async with store() as subject:
        endpoint.answer = answer
        with pytest.raises(StoreFailed, match="refuses"):
            await subject.put("a", [bytes(11 << 20)])

    assert endpoint.asked[-1].startswith("DELETE ")
    assert endpoint.asked[-1].endswith("?uploadId=u1")
    assert all(headers.get("content-md5") for ask, headers in zip(
        endpoint.asked, endpoint.headers, strict=True) if "partNumber" in ask)  # fmt: skip


async def test_the_end_of_an_upload_may_be_an_error_in_a_success(
    endpoint: Endpoint, store: Callable[..., S3Store]
) -> None:
    def answer(method: str, target: str) -> Answer:
        if "uploads=" in target:
            return 200, {}, b"<UploadId>u1</UploadId>"
        if method == "POST":
            return error(200, "InvalidPart")
        return 200, {"etag": '"e"'}, b""

    async with store() as subject:
        endpoint.answer = answer
        with pytest.raises(StoreFailed, match="InvalidPart"):
            await subject.put("a", [bytes(6 << 20)])


async def test_uploads_of_an_earlier_run_are_aborted_at_the_start(
    endpoint: Endpoint, store: Callable[..., S3Store]
) -> None:
    subject = store(prefix="mine")
    left = ["mine/b/c.1", "mine/b/c.2", "others/b/c.3"]

    def answer(method: str, target: str) -> Answer:
        if target.endswith("warp-store.json"):
            return 200, {}, MARKER
        if method == "DELETE":
            left.remove(target.partition("?")[0].removeprefix("/tier-bucket/"))
            return 204, {}, b""
        rows = "".join(f"<Upload><Key>{key}</Key><UploadId>u</UploadId></Upload>" for key in left)
        return 200, {}, f"<R>{rows}<IsTruncated>false</IsTruncated></R>".encode()

    endpoint.answer = answer
    async with subject:
        assert left == ["others/b/c.3"]


async def test_a_store_of_a_later_release_or_a_damaged_one_is_refused(
    endpoint: Endpoint, store: Callable[..., S3Store]
) -> None:
    for body, kind in ((b'{"format":2,"id":"x"}', NewerFormat), (b"{", Corrupt)):
        endpoint.answer = lambda method, target, body=body: (200, {}, body)
        with pytest.raises(kind):
            async with store():
                pass


async def test_an_endpoint_without_ranges_is_told_so(
    endpoint: Endpoint, store: Callable[..., S3Store]
) -> None:
    async with store() as subject:
        endpoint.answer = lambda method, target: (200, {}, b"all of it")
        assert await subject.read("a", offset=0, length=99) == b"all of it"
        with pytest.raises(StoreFailed, match="ranges"):
            await subject.read("a", offset=3, length=2)


async def test_others_keys_below_the_prefix_are_left_out(
    endpoint: Endpoint, store: Callable[..., S3Store]
) -> None:
    rows = "".join(
        f"<Contents><Key>{key}</Key><Size>1</Size></Contents>"
        for key in ("mine/b/a.b", "mine/b/A", "mine/b/a&amp;b", "mine/b/../c", "mine/b/z", "other")
    )
    async with store(prefix="mine") as subject:
        endpoint.answer = lambda method, target: (200, {}, f"<R>{rows}</R>".encode())
        assert [info.name for info in await subject.list()] == ["a/b", "z"]


# Credentials and configuration --------------------------------------------------------------------


async def test_keys_come_from_a_file_that_only_its_owner_reads(
    endpoint: Endpoint, store: Callable[..., S3Store], tmp_path: Path
) -> None:
    file = tmp_path / "tier.ini"
    file.write_text("[other]\naws_access_key_id = FILEKEY\naws_secret_access_key = s%ecret\n")
    file.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        async with store(credentials="tier.ini", profile="other"):
            pass
    file.chmod(0o600)
    async with store(credentials="tier.ini", profile="other"):
        assert "Credential=FILEKEY/" in endpoint.headers[-1]["authorization"]
    with pytest.raises(ConfigError, match=r"missing in \[default\]|'default'"):
        async with store(credentials="tier.ini"):
            pass
    with pytest.raises(ConfigError, match="cannot be read"):
        async with store(credentials="none.ini"):
            pass


async def test_keys_that_are_nowhere_are_named(
    store: Callable[..., S3Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(ConfigError, match="AWS_SECRET_ACCESS_KEY not set in the environment"):
        async with store():
            pass


async def test_a_virtual_host_needs_a_name(store: Callable[..., S3Store]) -> None:
    with pytest.raises(InvalidArgument, match="needs a host name"):
        async with store(style="virtual"):
            pass


async def test_a_bucket_may_be_in_front_of_the_host(
    endpoint: Endpoint,
    configured: Callable[..., Config],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    port = int(endpoint.url.rpartition(":")[2])
    connect: Callable[..., Awaitable[object]] = asyncio.open_connection

    async def here(host: str, port: int, **options: object) -> object:
        assert host == "tier-bucket.s3.example"
        return await connect("127.0.0.1", port, **options)

    monkeypatch.setattr("asyncio.open_connection", here)
    config = configured(f"http://s3.example:{port}", style="virtual", prefix="p")
    async with S3Store(config, tmp_path):
        assert endpoint.asked[0] == "GET /p/warp-store.json"
        assert endpoint.headers[0]["host"] == f"tier-bucket.s3.example:{port}"


@pytest.mark.parametrize(
    "options",
    [
        {"endpoint": "ftp://x"},
        {"bucket": "B"},
        {"prefix": "/abs"},
        {"prefix": "Upper"},
        {"retries": 99},
        {"secret_key": "in the file"},
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, object]) -> None:
    import msgspec
    from warp_core.config.types import convert

    given = {"endpoint": "https://s3.example", "bucket": "tier-bucket", **options}
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(given, Config, dec_hook=convert)


def test_answers_are_read_as_far_as_they_make_sense() -> None:
    assert keys_of(b"<Contents><Key>a</Key></Contents>").entries == []
    assert uploads_of(b"<IsTruncated>true</IsTruncated>") == ([], True)
    assert [total_of(text) for text in ("bytes 0-1/9", "bytes */9", "bytes 0-1/*", "", "x")] == [
        *(9, 9),
        *(None, None, None),
    ]
