"""Connections on the wire: order, framing, limits, timeouts and ends, spoken byte by byte."""

import contextlib
import hashlib
import io
import re
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from warp_core import logs
from warp_core.config import Address, Duration
from warp_core.errors import AlreadyRunning, ConfigError, Corrupt, NoSpace
from warp_s3.connection import LINGER_MAX, LINGER_S


def signed(
    method: str,
    target: str,
    body: bytes = b"",
    headers: dict[str, str] | None = None,
    *,
    payload: str | None = None,
) -> bytes:
    """Sign a request; gives its head without the empty line and without Content-Length."""
    aws = AWSRequest(
        method=method, url=f"http://localhost{target}", headers=headers or {}, data=body
    )
    signer = S3SigV4Auth(Credentials("ROOTKEY", "root-secret"), "s3", "us-east-1")
    if payload is not None:
        signer.payload = lambda _: payload
    signer.add_auth(aws)
    lines = [f"{method} {target} HTTP/1.1", "Host: localhost"]
    lines += [f"{name}: {value}" for name, value in aws.headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n"


def put(target: str, body: bytes, headers: dict[str, str] | None = None) -> bytes:
    head = signed("PUT", target, body, headers)
    return head + b"Content-Length: %d\r\n\r\n" % len(body)


def get(target: str) -> bytes:
    return signed("GET", target) + b"\r\n"


class Client:
    """A socket that reads answers one by one."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.buffer = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def _read(self) -> bool:
        data = self.socket.recv(65536)
        self.buffer += data
        return bool(data)

    def answer(self, *, head_only: bool = False) -> tuple[int, dict[str, str], bytes]:
        while b"\r\n\r\n" not in self.buffer:
            if not self._read():
                raise EOFError(self.buffer)
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {
            name.lower(): value for name, _, value in (line.partition(": ") for line in lines)
        }
        length = 0 if head_only else int(headers.get("content-length", "0"))
        while len(self.buffer) < length:
            if not self._read():
                raise EOFError
        body, self.buffer = self.buffer[:length], self.buffer[length:]
        return int(first.split()[1]), headers, body

    def ended(self) -> bool:
        with contextlib.suppress(ConnectionError):
            return not self.buffer and not self._read()
        return True

    def close(self) -> None:
        self.socket.close()


@pytest.fixture
def dial(shared: Any, s3: Any, bucket: str) -> Iterator[Any]:
    clients: list[Client] = []

    def connect(port: int = 0) -> Client:
        clients.append(Client(port or shared.port))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


def code(body: bytes) -> str:
    match = re.search(rb"<Code>(.*?)</Code>", body)
    return match[1].decode() if match else ""


def test_pipelined_requests_are_answered_in_order(dial: Any, bucket: str) -> None:
    client = dial()
    requests = [put(f"/{bucket}/k{n}", b"%d" % n) + b"%d" % n for n in range(30)]
    requests += [get(f"/{bucket}/k{n}") for n in range(30)]

    client.send(b"".join(requests))
    answers = [client.answer() for _ in requests]

    assert [status for status, _, _ in answers] == [200] * 60
    assert [body for _, _, body in answers[30:]] == [b"%d" % n for n in range(30)]
    assert len({headers["x-amz-request-id"] for _, headers, _ in answers}) == 60


def test_pipelined_requests_behind_a_large_body_wait(dial: Any, bucket: str) -> None:
    client = dial()
    body = bytes(range(256)) * 4000

    client.send(put(f"/{bucket}/k", body) + body + get(f"/{bucket}/k") * 3)

    assert client.answer()[0] == 200
    for _ in range(3):
        assert client.answer()[2] == body


def test_a_request_may_come_byte_by_byte(dial: Any, bucket: str) -> None:
    client = dial()
    client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in put(f"/{bucket}/k", b"hello") + b"hello":
        client.send(bytes([byte]))

    assert client.answer()[0] == 200


def test_an_empty_line_before_a_request_is_ignored(dial: Any, bucket: str) -> None:
    client = dial()
    client.send(b"\r\n" + put(f"/{bucket}/k", b"x") + b"x")
    assert client.answer()[0] == 200
    client.send(b"\r\n" + get(f"/{bucket}/k"))
    assert client.answer()[2] == b"x"


def test_a_client_that_expects_it_is_told_to_continue(dial: Any, bucket: str) -> None:
    for size in (5, 200_000):
        client = dial()
        body = b"x" * size
        client.send(put(f"/{bucket}/k", body, {"Expect": "100-continue"}))
        assert client.answer()[0] == 100
        client.send(body)
        assert client.answer()[0] == 200
        client.send(get(f"/{bucket}/k"))
        assert client.answer()[2] == body


def test_a_client_that_expects_it_is_refused_before_it_sends(dial: Any, bucket: str) -> None:
    client = dial()
    head = put("/no-such-bucket/k", b"x" * 100_000, {"Expect": "100-continue"})
    client.send(head)
    status, headers, body = client.answer()

    assert (status, code(body)) == (404, "NoSuchBucket")
    assert headers["connection"] == "close"
    assert client.ended()


def test_a_head_answer_has_a_length_and_no_body(dial: Any, bucket: str) -> None:
    client = dial()
    client.send(put(f"/{bucket}/k", b"hello") + b"hello")
    client.answer()
    client.send(signed("HEAD", f"/{bucket}/k") + b"\r\n" + get(f"/{bucket}/k"))

    status, headers, _ = client.answer(head_only=True)
    assert (status, headers["content-length"]) == (200, "5")
    assert client.answer()[2] == b"hello"


def test_errors_of_head_requests_have_no_body(dial: Any, bucket: str) -> None:
    client = dial()
    client.send(signed("HEAD", f"/{bucket}/none") + b"\r\n" + get(f"/{bucket}/none"))

    assert client.answer()[0] == 404
    assert client.answer()[0] == 404


def test_an_error_keeps_the_connection_if_the_body_can_be_skipped(dial: Any, bucket: str) -> None:
    client = dial()
    client.send(put("/no-such-bucket/k", b"x" * 100_000) + b"x" * 100_000)
    assert code(client.answer()[2]) == "NoSuchBucket"
    client.send(put(f"/{bucket}/k", b"y") + b"y")

    assert client.answer()[0] == 200


def test_an_error_is_seen_by_a_client_that_still_sends(dial: Any, bucket: str) -> None:
    client = dial()
    size = 50_000_000
    head = signed("PUT", "/no-such-bucket/k", headers={}, payload="UNSIGNED-PAYLOAD")
    client.send(head + b"Content-Length: %d\r\n\r\n" % size)
    with contextlib.suppress(ConnectionError):
        for _ in range(50):
            client.send(bytes(100_000))
    status, headers, body = client.answer()

    assert (status, code(body)) == (404, "NoSuchBucket")
    assert headers["connection"] == "close"


def refused() -> bytes:
    head = signed("PUT", "/no-such-bucket/k", payload="UNSIGNED-PAYLOAD")
    return head + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("garbage", [b"", b"\x16\x03\x01 what is this\r\n\r\n", b"GET /"])
def test_what_is_refused_is_not_read_for_ever(dial: Any, garbage: bytes) -> None:
    client = dial()
    begin = garbage or refused()
    piece = b"10000\r\n" + bytes(0x10000) + b"\r\n"
    sent, started = 0, time.monotonic()
    client.send(begin)
    with contextlib.suppress(ConnectionError):
        while sent < 64 * LINGER_MAX:
            client.send(piece)
            sent += len(piece)

    # Beside what the server read there is what the system took into its buffers.
    assert sent < LINGER_MAX + 32 * 1024 * 1024
    assert time.monotonic() - started < LINGER_S + 30


def test_a_refused_request_that_drips_on_ends_in_time(dial: Any) -> None:
    client = dial()
    client.send(refused())
    assert code(client.answer()[2]) == "NoSuchBucket"
    started = time.monotonic()
    with contextlib.suppress(ConnectionError):
        while time.monotonic() - started < LINGER_S + 60:
            client.send(b"1")
            time.sleep(0.05)

    assert time.monotonic() - started < LINGER_S + 30


def test_a_refusal_does_not_wait_for_a_body_that_drips(dial: Any) -> None:
    client = dial()
    client.send(put("/no-such-bucket/k", b"x" * 100_000))
    started = time.monotonic()
    drip = threading.Event()

    def send() -> None:
        with contextlib.suppress(OSError):
            while not drip.wait(0.05):
                client.send(b"x")

    sender = threading.Thread(target=send)
    sender.start()
    status, headers, body = client.answer()
    drip.set()
    sender.join()

    assert (status, code(body)) == (404, "NoSuchBucket")
    assert headers["connection"] == "close"
    assert time.monotonic() - started < LINGER_S + 30


@pytest.mark.parametrize("pieces", [[b"hello"], [b"he", b"llo"], [b"x" * 100_000, b"y" * 200_000]])
def test_chunked_bodies_are_stored(dial: Any, bucket: str, pieces: list[bytes]) -> None:
    client = dial()
    head = signed("PUT", f"/{bucket}/k", payload="UNSIGNED-PAYLOAD")
    client.send(head + b"Transfer-Encoding: chunked\r\n\r\n")
    for piece in pieces:
        client.send(b"%x\r\n%s\r\n" % (len(piece), piece))
    client.send(b"0\r\n\r\n" + get(f"/{bucket}/k"))

    assert client.answer()[0] == 200
    assert client.answer()[2] == b"".join(pieces)


def test_a_chunked_body_is_verified_too(dial: Any, bucket: str) -> None:
    client = dial()
    digest = hashlib.sha256(b"hello").hexdigest()
    for body, status in ((b"hello", 200), (b"hullo", 400)):
        head = signed("PUT", f"/{bucket}/k", payload=digest)
        client.send(head + b"Transfer-Encoding: chunked\r\n\r\n5\r\n" + body + b"\r\n0\r\n\r\n")
        answer = client.answer()
        assert answer[0] == status
    assert code(answer[2]) == "XAmzContentSHA256Mismatch"


@pytest.mark.parametrize(
    ("sent", "want"),
    [
        (
            b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "BadRequest",
        ),
        (
            b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n",
            "BadRequest",
        ),
        (b"GET / HTTP/1.1\nHost: a\n\n", "BadRequest"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "BadRequest"),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 3000, "RequestHeaderSectionTooLarge"),
        (b"GET /" + b"a" * 70_000, "RequestHeaderSectionTooLarge"),
        (b"GET / HTTP/3.0\r\nHost: a\r\n\r\n", "UnsupportedHttpVersion"),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", "InvalidURI"),
    ],
)
def test_broken_framing_is_answered_and_closed(dial: Any, sent: bytes, want: str) -> None:
    client = dial()
    with contextlib.suppress(ConnectionError):
        client.send(sent)
    _, headers, body = client.answer()

    assert code(body) == want
    assert headers["connection"] == "close"
    assert client.ended()


def test_a_smuggled_request_is_never_answered(dial: Any, bucket: str) -> None:
    client = dial()
    hidden = get(f"/{bucket}")
    head = signed("PUT", f"/{bucket}/k", hidden)
    client.send(
        head
        + b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" % len(hidden)
        + hidden
    )

    assert code(client.answer()[2]) == "BadRequest"
    assert client.ended()


@pytest.mark.parametrize(
    "chunks",
    [b"-1\r\n", b"5\nhello\n0\n\n", b"fffffffffffffffff\r\n", b"5\r\nhelloX0\r\n\r\n", b"z" * 5000],
)
def test_broken_chunks_are_answered_and_closed(dial: Any, bucket: str, chunks: bytes) -> None:
    client = dial()
    head = signed("PUT", f"/{bucket}/k", payload="UNSIGNED-PAYLOAD")
    client.send(head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)
    status, headers, _ = client.answer()

    assert status == 400
    assert headers["connection"] == "close"


def test_a_body_cut_short_stores_nothing(serve: Any, connect: Any) -> None:
    running = serve()
    connect(running.url).create_bucket(Bucket="bucket")
    bucket = "bucket"

    def dial() -> Client:
        return Client(running.port)

    for size in (10, 500_000):
        client = dial()
        client.send(put(f"/{bucket}/cut", bytes(size)) + bytes(size - 1))
        client.socket.shutdown(socket.SHUT_WR)
        status, _, body = client.answer()
        assert (status, code(body)) == (400, "IncompleteBody")
    for size in (10, 500_000):
        client = dial()
        client.send(put(f"/{bucket}/cut", bytes(size)) + bytes(size - 1))
        client.close()
    client = dial()
    client.send(get(f"/{bucket}/cut"))

    assert client.answer()[0] == 404
    deadline = time.monotonic() + 60
    while running.objects.open_writers and time.monotonic() < deadline:
        time.sleep(0.01)
    assert running.objects.open_writers == 0


def test_a_client_that_leaves_during_a_download_costs_nothing(serve: Any, connect: Any) -> None:
    running = serve()
    s3 = connect(running.url)
    s3.create_bucket(Bucket="bucket")
    s3.put_object(Bucket="bucket", Key="k", Body=bytes(30_000_000))
    for _ in range(3):
        client = Client(running.port)
        client.send(get("/bucket/k"))
        client.socket.recv(1000)
        client.close()
    deadline = time.monotonic() + 60
    while running.objects.open_readers and time.monotonic() < deadline:
        time.sleep(0.01)

    assert running.objects.open_readers == 0


def test_reads_that_wait_are_sent_too(serve: Any, connect: Any) -> None:
    running = serve()
    running.objects.waits = True
    s3 = connect(running.url)
    s3.create_bucket(Bucket="bucket")
    for size in (10, 65536, 5_000_000):
        s3.put_object(Bucket="bucket", Key="k", Body=bytes(size))
        assert s3.get_object(Bucket="bucket", Key="k")["Body"].read() == bytes(size)


def test_a_corrupt_object_is_never_sent_as_data(serve: Any, connect: Any, dial: Any) -> None:
    running = serve()
    s3 = connect(running.url)
    s3.create_bucket(Bucket="bucket")
    s3.put_object(Bucket="bucket", Key="k", Body=bytes(3_000_000))
    running.objects.waits = True

    real = running.objects.pause
    calls = iter(range(100))

    async def fail_later() -> None:
        if next(calls) == 2:
            raise Corrupt("a frame is not what was written")
        await real()

    running.objects.pause = fail_later
    client = dial(running.port)
    client.send(get("/bucket/k"))

    with pytest.raises((EOFError, ConnectionError)):
        client.answer()
    assert running.objects.open_readers == 0


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    logs.configure(stream=stream)
    yield stream
    logs.configure()


@pytest.mark.parametrize("size", [1000, 3_000_000])
def test_an_object_that_ends_early_ends_the_connection_and_is_logged(
    serve: Any, connect: Any, log: io.StringIO, size: int
) -> None:
    running = serve()
    s3 = connect(running.url)
    s3.create_bucket(Bucket="bucket")
    s3.put_object(Bucket="bucket", Key="k", Body=bytes(size))
    running.objects.cut_at = size // 2
    client = Client(running.port)
    client.send(get("/bucket/k"))

    with pytest.raises((EOFError, ConnectionError)):
        client.answer()
    client.close()
    assert running.objects.open_readers == 0
    assert "object ended early" in log.getvalue()


def test_a_full_disk_is_told_as_such(serve: Any, connect: Any) -> None:
    running = serve()
    s3 = connect(running.url)
    s3.create_bucket(Bucket="bucket")
    running.objects.failure = NoSpace("the store is down to its reserve")
    for size in (10, 600_000):
        try:
            s3.put_object(Bucket="bucket", Key="k", Body=bytes(size))
        except Exception as error:
            response = error.response  # type: ignore[attr-defined]
            assert response["Error"]["Code"] == "InsufficientStorage"
        else:
            pytest.fail("stored on a full disk")
    running.objects.failure = RuntimeError("a defect of ours, with a secret in it")
    client = Client(running.port)
    client.send(get("/bucket/k"))
    status, _, body = client.answer()
    client.close()

    assert (status, code(body)) == (500, "InternalError")
    assert b"secret" not in body


def test_slow_clients_are_let_go(serve: Any, connect: Any) -> None:
    running = serve(
        head_timeout=Duration(0.3), stall_timeout=Duration(0.3), idle_timeout=Duration(1.2)
    )
    s3 = connect(running.url)
    s3.create_bucket(Bucket="bucket")
    s3.put_object(Bucket="bucket", Key="k", Body=bytes(60_000_000))

    slow_head, slow_body, stalled_body, idle, no_reader = (Client(running.port) for _ in range(5))
    slow_head.send(b"GET / HTTP/1.1\r\nHos")
    slow_body.send(put("/bucket/a", b"hello") + b"he")
    stalled_body.send(put("/bucket/a", bytes(500_000)) + bytes(200_000))
    no_reader.send(get("/bucket/k"))

    for client in (slow_head, slow_body, stalled_body):
        _, headers, body = client.answer()
        assert code(body) == "RequestTimeout"
        assert headers["connection"] == "close"
    started = time.monotonic()
    assert idle.ended()
    assert time.monotonic() - started < 60
    deadline = time.monotonic() + 60
    while running.objects.open_readers and time.monotonic() < deadline:
        time.sleep(0.01)
    assert running.objects.open_readers == 0
    for client in (slow_head, slow_body, stalled_body, idle, no_reader):
        client.close()


def test_the_head_of_a_request_does_not_have_the_time_of_an_idle_connection(serve: Any) -> None:
    running = serve(head_timeout=Duration(0.3), idle_timeout=Duration(100))
    for begun in (b"GET / HTTP/1.1\r\nHos", get("/") + b"GET / HT"):
        client = Client(running.port)
        client.send(begun)
        told = [client.answer() for _ in range(begun.count(b"GET"))]

        assert code(told[-1][2]) == "RequestTimeout"
        assert client.ended()
        client.close()


def test_connections_beyond_the_limit_are_refused(serve: Any) -> None:
    running = serve(connections_max=2)
    clients = [Client(running.port) for _ in range(2)]
    for client in clients:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.answer()[0] == 403
    third = Client(running.port)

    assert third.ended()
    clients.pop().close()
    time.sleep(0.1)
    fourth = Client(running.port)
    fourth.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert fourth.answer()[0] == 403
    for client in (*clients, third, fourth):
        client.close()


def test_stopping_finishes_what_is_in_progress(serve: Any, connect: Any) -> None:
    running = serve()
    s3 = connect(running.url)
    s3.create_bucket(Bucket="bucket")
    idle, busy = Client(running.port), Client(running.port)
    body = bytes(300_000)
    busy.send(put("/bucket/k", body) + body[:100_000])
    time.sleep(0.1)

    running.begin_stop()
    assert idle.ended()
    with pytest.raises(ConnectionError):
        Client(running.port)
    busy.send(body[100_000:])
    status, headers, _ = busy.answer()

    assert (status, headers["connection"]) == (200, "close")
    assert busy.ended()
    running.stop()
    idle.close()
    busy.close()


def test_stopping_does_not_wait_for_ever(serve: Any, connect: Any) -> None:
    running = serve(drain_s=0.3)
    s3 = connect(running.url)
    s3.create_bucket(Bucket="bucket")
    busy = Client(running.port)
    busy.send(put("/bucket/k", bytes(300_000)))
    time.sleep(0.1)

    running.stop()

    assert busy.ended()
    assert running.objects.open_writers == 0
    busy.close()


def test_a_taken_port_is_named(serve: Any) -> None:
    running = serve()

    with pytest.raises(AlreadyRunning) as caught:
        serve(listen=Address(f"127.0.0.1:{running.port}"))

    assert str(running.port) in str(caught.value)


def test_an_address_of_another_machine_is_named(serve: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        serve(listen=Address("192.0.2.1:9000"))

    assert "192.0.2.1:9000" in str(caught.value)


def test_a_unix_socket_is_private_and_serves(serve: Any, tmp_path: Any) -> None:
    running = serve(listen=Address("unix:s3.sock"))
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(tmp_path / "s3.sock"))
    client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")

    assert b"AccessDenied" in client.recv(65536)
    assert (tmp_path / "s3.sock").stat().st_mode & 0o777 == 0o600
    assert running.url == f"unix:{tmp_path}/s3.sock"
    client.close()


def test_requests_are_counted(serve: Any) -> None:
    from warp_core.metrics import snapshot

    running = serve()
    client = Client(running.port)
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nBREW / HTTP/1.1\r\nHost: a\r\n\r\n")
    client.answer()
    client.answer()
    numbers = snapshot(running.metrics)
    client.close()

    assert numbers['warp_s3_requests_total{method="GET",status="403"}'] == 1
    assert numbers['warp_s3_requests_total{method="other",status="405"}'] == 1
    assert numbers["warp_s3_connections"] == 1


FRAGMENTS = st.lists(
    st.one_of(
        st.binary(max_size=40),
        st.sampled_from(
            [
                b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
                b"PUT /b/k HTTP/1.1\r\nHost: a\r\n",
                b"Content-Length: 5\r\n",
                b"Content-Length: 99999999999\r\n",
                b"Transfer-Encoding: chunked\r\n",
                b"Expect: 100-continue\r\n",
                b"Connection: close\r\n",
                b"Authorization: AWS4-HMAC-SHA256 Credential=",
                b"x-amz-content-sha256: STREAMING-AWS4-HMAC-SHA256-PAYLOAD\r\n",
                b"\r\n",
                b"\r\n\r\n",
                b"5\r\nhello\r\n",
                b"0\r\n\r\n",
                b"\n",
                b"\0",
                b"A" * 20_000,
            ]
        ),
    ),
    max_size=12,
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(fragments=FRAGMENTS)
def test_no_garbage_stops_the_server(dial: Any, shared: Any, fragments: list[bytes]) -> None:
    client = Client(shared.port)
    with contextlib.suppress(ConnectionError):
        client.send(b"".join(fragments))
        client.socket.shutdown(socket.SHUT_WR)
    answers = b""
    with contextlib.suppress(ConnectionError):
        while data := client.socket.recv(65536):
            answers += data
    client.close()

    for status in re.findall(rb"HTTP/1.1 (\d+)", answers):
        assert status in {b"100", b"400", b"403", b"404", b"405", b"411", b"501", b"505"}
    assert shared.errors == []


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(body=st.binary(max_size=300), kind=st.sampled_from(["", "-TRAILER"]))
def test_no_garbage_in_a_signed_stream_stops_the_server(
    dial: Any, shared: Any, bucket: str, body: bytes, kind: str
) -> None:
    client = Client(shared.port)
    head = signed(
        "PUT",
        f"/{bucket}/garbage",
        headers={"x-amz-decoded-content-length": "10"},
        payload="STREAMING-AWS4-HMAC-SHA256-PAYLOAD" + kind,
    )
    client.send(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    status, _, answer = client.answer()
    client.close()

    assert status in {400, 403}
    assert code(answer)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    body=st.binary(max_size=200)
    | st.lists(
        st.sampled_from(
            [b"<Delete>", b"</Delete>", b"<Object>", b"</Object>", b"<Key>k</Key>", b"&"]
        )
    ).map(b"".join)
)
def test_no_garbage_in_xml_stops_the_server(
    dial: Any, shared: Any, bucket: str, body: bytes
) -> None:
    client = Client(shared.port)
    head = signed("POST", f"/{bucket}?delete", body)
    client.send(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    status, _, answer = client.answer()
    client.close()

    assert status in {200, 400}
    assert status == 200 or code(answer) in {"MalformedXML", "MissingRequestBodyError"}


def test_garbage_by_many_leaks_nothing(serve: Any) -> None:
    running = serve()

    def attack() -> None:
        for number in range(100):
            client = Client(running.port)
            with contextlib.suppress(ConnectionError):
                client.send(b"PUT /b/k HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % number)
                client.send(bytes(number // 2))
            client.close()

    threads = [threading.Thread(target=attack) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    deadline = time.monotonic() + 60
    while running.server._connections and time.monotonic() < deadline:
        time.sleep(0.01)

    assert not running.server._connections
    assert running.errors == []
