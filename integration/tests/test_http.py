"""HTTP as its own clients see it: curl, openssl, boto3, and a socket where none of them does what is needed."""

from __future__ import annotations

import os
import re
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from warp_integration.clients import s3_client
from warp_integration.requirements import require
from warp_integration.server import ACCESS_KEY, SECRET_KEY, WarpServer, config_text

pytestmark = [pytest.mark.workspace, pytest.mark.usefixtures("warp_serve")]

WAIT_S = 60.0  # for hangs
OPTIONS = """
tls_certificate = "{folder}/server.pem"
tls_key = "{folder}/server.key"
http_log = "s3.log"
head_timeout = "2s"
"""


def make_certificate(folder: Path, name: str) -> None:
    """Write a certificate for loopback and its key as openssl makes them."""
    require("openssl")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "2", "-subj", f"/CN={name}"]
    command += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    files = ["-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.pem")]
    subprocess.run([*command, *files], check=True, capture_output=True, timeout=WAIT_S)


@pytest.fixture(scope="module")
def folder(warp_serve: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("http")


@pytest.fixture(scope="module")
def secure(folder: Path) -> Iterator[WarpServer]:
    """A server with TLS, a log and short timeouts."""
    make_certificate(folder, "server")
    config = folder / "warp.toml"
    config.write_text(config_text(extra=OPTIONS.format(folder=folder)))
    with WarpServer(folder / "data", config=config, logs=folder / "logs") as server:
        yield server
        assert server.running, server.log_tail()


@pytest.fixture(scope="module")
def s3(secure: WarpServer, folder: Path) -> Iterator[Any]:
    import boto3
    from botocore.config import Config

    client = boto3.client(
        "s3",
        endpoint_url=secure.s3,
        region_name="us-east-1",
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        verify=str(folder / "server.pem"),
        config=Config(signature_version="s3v4"),
    )
    client.create_bucket(Bucket="http")
    yield client
    client.close()


@pytest.fixture
def curl(folder: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    require("curl")

    def run(*words: str, give: bytes = b"") -> subprocess.CompletedProcess[str]:
        command = [
            "curl",
            "-sS",
            "-v",
            "--http1.1",
            "--cacert",
            str(folder / "server.pem"),
        ]
        done = subprocess.run(
            [*command, "--max-time", "60", *words], input=give, capture_output=True, timeout=120
        )
        told = [part.decode("utf-8", "replace") for part in (done.stdout, done.stderr)]
        return subprocess.CompletedProcess(done.args, done.returncode, *told)

    return run


def presigned(s3: Any, verb: str, key: str) -> str:
    return str(s3.generate_presigned_url(verb, Params={"Bucket": "http", "Key": key}))


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_curl_waits_for_100_continue(s3: Any, curl: Any) -> None:
    body = os.urandom(2 << 20)
    done = curl(
        *("-X", "PUT", "-H", "Expect: 100-continue", "--expect100-timeout", "50"),
        *("-H", "Content-Type:", "--data-binary", "@-", presigned(s3, "put_object", "continued")),
        give=body,
    )

    assert "HTTP/1.1 100 Continue" in done.stderr, done.stderr
    assert "HTTP/1.1 200 OK" in done.stderr
    assert s3.get_object(Bucket="http", Key="continued")["Body"].read() == body


def test_curl_is_refused_before_it_sends(s3: Any, curl: Any) -> None:
    url = presigned(s3, "put_object", "refused").replace("X-Amz-Signature=", "X-Amz-Signature=0")
    done = curl(
        *("-X", "PUT", "-H", "Expect: 100-continue", "--expect100-timeout", "50"),
        *("-H", "Content-Type:", "--data-binary", "@-", url),
        give=bytes(2 << 20),
    )

    assert "HTTP/1.1 403" in done.stderr
    assert "100 Continue" not in done.stderr
    assert "<Code>SignatureDoesNotMatch</Code>" in done.stdout


def test_curl_sends_a_chunked_body(s3: Any, curl: Any) -> None:
    body = os.urandom(300_000)
    url = presigned(s3, "put_object", "chunked")
    done = curl("-T", "-", "-H", "Transfer-Encoding: chunked", url, give=body)

    assert "Transfer-Encoding: chunked" in done.stderr
    assert "HTTP/1.1 200 OK" in done.stderr, done.stderr
    assert s3.get_object(Bucket="http", Key="chunked")["Body"].read() == body


def test_curl_keeps_its_connection(s3: Any, curl: Any) -> None:
    s3.put_object(Bucket="http", Key="kept", Body=b"content")
    url = presigned(s3, "get_object", "kept")
    done = curl(url, url, url)

    assert done.stdout == "content" * 3
    assert done.stderr.count("SSL connection using") == 1


def test_requests_may_come_before_answers(secure: WarpServer, s3: Any, folder: Path) -> None:
    for number in range(5):
        s3.put_object(Bucket="http", Key=f"{number}", Body=b"content %d" % number)
    host = secure.s3.partition("//")[2]
    asked = b""
    for number in range(5):
        target = presigned(s3, "get_object", f"{number}").partition(host)[2]
        asked += f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    name, _, port = host.partition(":")
    trusting = ssl.create_default_context(cafile=folder / "server.pem")
    with (
        socket.create_connection((name, int(port)), timeout=WAIT_S) as plain,
        trusting.wrap_socket(plain, server_hostname=name) as client,
    ):
        client.sendall(asked)
        told = b""
        while told.count(b"content ") < 5:
            data = client.recv(65536)
            assert data, told
            told += data

    assert re.findall(rb"content (\d)", told) == [b"0", b"1", b"2", b"3", b"4"]


@pytest.mark.parametrize("off", ["-1h", "+1h"])
def test_a_clock_that_is_off_is_told_as_aws_does(secure: WarpServer, s3: Any, off: str) -> None:
    require("curl", "faketime")
    signing = ["--aws-sigv4", "aws:amz:us-east-1:s3", "--user", f"{ACCESS_KEY}:{SECRET_KEY}"]
    signing += ["-H", "x-amz-content-sha256: UNSIGNED-PAYLOAD"]

    def ask(*clock: str) -> str:
        command = [*clock, "curl", "-sSik", "--http1.1", *signing, f"{secure.s3}/http"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=True)
        return done.stdout

    assert ask().startswith("HTTP/1.1 200")
    told = ask("faketime", "-f", off)
    assert told.startswith("HTTP/1.1 403")
    assert "<Code>RequestTimeTooSkewed</Code>" in told
    assert "<MaxAllowedSkewMilliseconds>900000</MaxAllowedSkewMilliseconds>" in told


def test_clients_that_send_nothing_are_let_go(secure: WarpServer, folder: Path) -> None:
    require("openssl")
    host = secure.s3.partition("//")[2]
    slow = subprocess.Popen(
        ["openssl", "s_client", "-quiet", "-connect", host],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert slow.stdin
    assert slow.stdout
    with slow:
        slow.stdin.write(b"GET /http/kept HTTP/1.1\r\nHost: h\r\nX-Slow: ")  # and no end
        slow.stdin.flush()
        told = slow.stdout.read()
        slow.kill()

    assert b"<Code>RequestTimeout</Code>" in told


def test_requests_are_logged_in_the_combined_format(s3: Any, curl: Any, folder: Path) -> None:
    s3.put_object(Bucket="http", Key="logged", Body=b"content")
    curl("-A", "a client/1.0", "-e", "http://from/", presigned(s3, "get_object", "logged"))
    log = folder / "data" / "s3.log"
    until(lambda: "a client/1.0" in log.read_text())

    (line,) = [line for line in log.read_text().splitlines() if "a client/1.0" in line]
    wanted = (
        rf"127\.0\.0\.1 - {ACCESS_KEY} \[\d\d/\w{{3}}/\d{{4}}(:\d\d){{3}} \+0000\]"
        r' "GET /http/logged\?\S+ HTTP/1\.1" 200 7 "http://from/" "a client/1\.0"'
    )
    assert re.fullmatch(wanted, line), line
    assert "X-Amz-Signature=-" in line


def test_a_renewed_certificate_is_shown_without_a_restart(
    secure: WarpServer, folder: Path, tmp_path: Path
) -> None:
    """The last one with this server: others trust the first certificate."""
    require("openssl")
    host = secure.s3.partition("//")[2]

    def shown() -> str:
        command = ["openssl", "s_client", "-connect", host, "-showcerts"]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=WAIT_S
        )
        found = re.search("-----BEGIN.*?END CERTIFICATE-----", done.stdout, re.DOTALL)
        return found[0] if found else ""

    before = (folder / "server.pem").read_text().strip()
    assert shown() == before
    make_certificate(tmp_path, "server")
    for name in ("server.key", "server.pem"):
        (tmp_path / name).replace(folder / name)

    after = (folder / "server.pem").read_text().strip()
    until(lambda: shown() == after)
    assert before != after
    assert secure.running


def test_sigterm_lets_a_download_end_and_takes_no_more(tmp_path: Path) -> None:
    config = tmp_path / "warp.toml"
    config.write_text(config_text())
    body = os.urandom(32 << 20)
    with WarpServer(tmp_path / "data", config=config, logs=tmp_path / "logs") as server:
        plain = s3_client(server.s3)
        plain.create_bucket(Bucket="drained")
        plain.put_object(Bucket="drained", Key="large", Body=body)
        stream = plain.get_object(Bucket="drained", Key="large")["Body"]
        begun = stream.read(1 << 20)
        host, _, port = server.s3.partition("//")[2].partition(":")
        with ThreadPoolExecutor(1) as pool:
            ended = pool.submit(server.terminate, WAIT_S)

            def refused() -> bool:
                try:
                    socket.create_connection((host, int(port)), timeout=WAIT_S).close()
                except ConnectionRefusedError:
                    return True
                return False

            until(refused)
            rest = stream.read()
            plain.close()
            assert ended.result(WAIT_S) == 0
    same = begun + rest == body
    assert same
