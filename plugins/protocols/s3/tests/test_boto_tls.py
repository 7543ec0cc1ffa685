"""Over TLS boto3 leaves the body unsigned and sends its checksum as a trailer."""

import hashlib
import ssl
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import botocore.httpchecksum
import pytest
from awscrt import checksums as crt
from botocore.config import Config as ClientConfig
from botocore.exceptions import ClientError
from warp_core.errors import ConfigError

CERTIFICATE = str(Path(__file__).with_name("localhost.pem"))

CHECKSUMS = {
    "CRC32": lambda data: crt.crc32(data).to_bytes(4, "big"),
    "CRC32C": lambda data: crt.crc32c(data).to_bytes(4, "big"),
    "CRC64NVME": lambda data: crt.crc64nvme(data).to_bytes(8, "big"),
    "SHA1": lambda data: hashlib.sha1(data).digest(),
    "SHA256": lambda data: hashlib.sha256(data).digest(),
}


@pytest.fixture
def secure(serve: Any) -> Iterator[Any]:
    running = serve(tls_certificate=CERTIFICATE)
    s3 = boto3.client(
        "s3",
        endpoint_url=running.url.replace("127.0.0.1", "localhost"),
        aws_access_key_id="ROOTKEY",
        aws_secret_access_key="root-secret",
        region_name="us-east-1",
        verify=CERTIFICATE,
        config=ClientConfig(signature_version="s3v4", s3={"addressing_style": "path"}),
    )
    s3.create_bucket(Bucket="bucket")
    s3.running = running
    return s3


@pytest.mark.parametrize("size", [0, 100, 70_000, 2_500_000])
def test_checksums_in_trailers_are_verified(secure: Any, size: int) -> None:
    sent: list[dict[str, str]] = []
    secure.meta.events.register(
        "before-send.s3.PutObject", lambda request, **_: sent.append(dict(request.headers))
    )
    body = (bytes(range(256)) * 10_000)[:size]
    for name, compute in CHECKSUMS.items():
        secure.put_object(Bucket="bucket", Key="k", Body=body, ChecksumAlgorithm=name)
        got = secure.get_object(Bucket="bucket", Key="k", ChecksumMode="ENABLED")

        assert got["Body"].read() == body
        assert got[f"Checksum{name}"] == b64encode(compute(body)).decode()
        assert "ContentEncoding" not in got
    assert all("x-amz-trailer" in {key.lower() for key in headers} for headers in sent)


def test_a_wrong_trailer_stores_nothing(secure: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    secure.put_object(Bucket="bucket", Key="k", Body=b"before")
    monkeypatch.setattr(botocore.httpchecksum.BaseChecksum, "b64digest", lambda _: "AAAAAA==")
    for size in (5, 1_500_000):
        with pytest.raises(ClientError) as caught:
            secure.put_object(Bucket="bucket", Key="k", Body=bytes(size), ChecksumAlgorithm="CRC32")

        assert caught.value.response["Error"]["Code"] == "BadDigest"
    monkeypatch.undo()
    assert secure.get_object(Bucket="bucket", Key="k")["Body"].read() == b"before"


@pytest.mark.parametrize("size", [65_537, 2_500_000, 20_000_000])
def test_plain_bodies_are_stored_over_tls(secure: Any, size: int) -> None:
    url = secure.generate_presigned_url("put_object", Params={"Bucket": "bucket", "Key": "plain"})
    body = (bytes(range(251)) * 100_000)[:size]
    trusting = ssl.create_default_context(cafile=CERTIFICATE)
    for _ in range(5):
        asked = urllib.request.Request(url, data=body, method="PUT", headers={"Content-Type": ""})
        with urllib.request.urlopen(asked, context=trusting, timeout=60) as answer:
            assert answer.status == 200

    same = secure.get_object(Bucket="bucket", Key="plain")["Body"].read() == body
    assert same


def test_large_objects_come_back_over_tls(secure: Any) -> None:
    body = bytes(range(256)) * 40_000
    secure.put_object(Bucket="bucket", Key="k", Body=body)

    url = secure.generate_presigned_url("get_object", Params={"Bucket": "bucket", "Key": "k"})
    with urllib.request.urlopen(url, context=ssl.create_default_context(cafile=CERTIFICATE)) as got:
        assert got.read() == body


@pytest.mark.parametrize("certificate", ["none.pem", __file__])
def test_a_certificate_that_cannot_be_used_is_named(serve: Any, certificate: str) -> None:
    with pytest.raises(ConfigError) as caught:
        serve(tls_certificate=certificate)

    assert certificate in str(caught.value)
