"""Requests that nobody should send: good ones, mutated before or after they are signed.

What is mutated after signing tries the parsers (head, framing, chunks) and is refused as S3 refuses it. What is mutated before
signing gets past the signature, to where parameters, headers and documents mean something.
"""

from __future__ import annotations

import random
import re
import socket
import time
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from warp_integration.server import ACCESS_KEY, SECRET_KEY

ANSWER_S = 10.0  # the server answers or closes within this time, or the test calls it a hang
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
_DELETE = b"<Delete><Object><Key>a</Key></Object><Object><Key>d/b</Key></Object></Delete>"
_TAGS = b"<Tagging><TagSet><Tag><Key>k</Key><Value>v</Value></Tag></TagSet></Tagging>"
_PARTS = (
    b"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>&quot;0&quot;</ETag></Part>"
    b"</CompleteMultipartUpload>"
)
_VERSIONING = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"
_CHUNKED = {
    "x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
    "x-amz-trailer": "x-amz-checksum-crc32",
    "x-amz-decoded-content-length": "5",
    "Content-Encoding": "aws-chunked",
}


@dataclass(frozen=True)
class Asked:
    """One request before it is signed. `path`, names and values are not yet quoted."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


def corpus(bucket: str) -> list[Asked]:
    """Return good requests, one at least of each kind that the server knows."""
    root = f"/{bucket}"
    key = f"{root}/d/a"
    upload = {"uploadId": "0" * 32}
    return [
        Asked("GET", "/"),
        Asked("PUT", f"{root}-x"),
        Asked("DELETE", f"{root}-x"),
        Asked("HEAD", root),
        Asked("GET", root, {"list-type": "2", "max-keys": "7", "prefix": "d/", "delimiter": "/"}),
        Asked("GET", root, {"list-type": "2", "start-after": "a", "encoding-type": "url"}),
        Asked("GET", root, {"list-type": "2", "continuation-token": "YQ=="}),
        Asked("GET", root, {"prefix": "", "marker": "a", "max-keys": "3"}),
        Asked("GET", root, {"versions": "", "key-marker": "d/a", "version-id-marker": "null"}),
        Asked("GET", root, {"uploads": "", "max-uploads": "2"}),
        Asked("GET", root, {"location": ""}),
        Asked("GET", root, {"versioning": ""}),
        Asked("PUT", root, {"versioning": ""}, {}, _VERSIONING),
        Asked("POST", root, {"delete": ""}, {}, _DELETE),
        Asked("PUT", root, {"tagging": ""}, {}, _TAGS),
        Asked("GET", root, {"tagging": ""}),
        Asked("PUT", key, {}, {"x-amz-meta-a": "b", "Content-Type": "text/plain"}, b"hello"),
        Asked("PUT", key, {}, {"If-None-Match": "*", "x-amz-tagging": "a=b&c=d"}, b"hello"),
        Asked("PUT", key, {}, {"Content-MD5": "XUFAKrxLKna5cZ2REBfFkg=="}, b"hello"),
        Asked("PUT", key, {}, {"x-amz-checksum-crc32": "NhCmhg=="}, b"hello"),
        Asked(
            "PUT", key, {}, _CHUNKED, b"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n"
        ),
        Asked("PUT", key, {}, {"x-amz-copy-source": f"{bucket}/d/kept"}),
        Asked("GET", key, {}, {"Range": "bytes=1-2"}),
        Asked("GET", f"{root}/d/kept", {"partNumber": "1"}),
        Asked("GET", key, {"versionId": "null"}, {"If-Match": '"0"'}),
        Asked("GET", key, {}, {"If-Modified-Since": "Wed, 21 Oct 2015 07:28:00 GMT"}),
        Asked("GET", key, {"response-content-type": "a/b", "response-expires": "0"}),
        Asked("GET", key, {"attributes": ""}, {"x-amz-object-attributes": "ETag"}),
        Asked("HEAD", key),
        Asked("GET", key, {"tagging": ""}),
        Asked("PUT", key, {"tagging": ""}, {}, _TAGS),
        Asked("DELETE", key, {"tagging": ""}),
        Asked("DELETE", key, {"versionId": "null"}),
        Asked("POST", key, {"uploads": ""}),
        Asked("PUT", key, {**upload, "partNumber": "1"}, {}, b"hello"),
        Asked("GET", key, {**upload, "max-parts": "1", "part-number-marker": "0"}),
        Asked("POST", key, upload, {}, _PARTS),
        Asked("DELETE", key, upload),
    ]


WORDS: Sequence[str] = (
    "",
    "0",
    "-1",
    "1",
    "10001",
    "1e3",
    " 5",
    "0x10",
    "99999999999999999999999",
    "null",
    "\u0663",  # a digit, for a careless parser
    "a" * 1025,
    "../../etc/passwd",
    "//",
    "\x00",
    "\x01",
    "\r\nX-Injected: 1",
    "%00",
    "%zz",
    "+",
    "\u00e9\U0001f600",
    "\ud7ff\ue000",
    '"',
    "<&>",
    "bytes=-0",
    "bytes=5-1",
    "bytes=0-0,2-2",
    "bytes=99999999999999999999-",
    "*",
    "YQ",
    "=" * 7,
    "Tue, 99 Foo 2015 99:99:99 GMT",
    "2015-13-45T00:00:00Z",
    "url",
    "x" * 3000,
)
PIECES: Sequence[bytes] = (
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b":",
    b",",
    b"\xff\xfe",
    b"%",
    b"%2e%2e/",
    b"Content-Length: 5\r\n",
    b"Content-Length: 18446744073709551616\r\n",
    b"Content-Length : 3\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: chunked, identity\r\n",
    b"transfer-encoding:\x0bchunked\r\n",
    b"Expect: 100-continue\r\n",
    b"Connection: close\r\n",
    b"Upgrade: h2c\r\n",
    b"0\r\n\r\n",
    b"ffffffffffffffff\r\n",
    b"5;chunk-signature=0\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"<",
    b"</",
    b"<!DOCTYPE a [<!ENTITY b 'c'>]>&b;",
    b"<![CDATA[",
    b"<a>" * 500,
    b"&#0;",
    b"\xef\xbb\xbf",
    b"X-A: " + b"y" * 9000 + b"\r\n",
    b"X-B: 1\r\n" * 200,
)
METHODS = ("GET", "PUT", "POST", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "get", "BREW")


def twisted(rng: random.Random, asked: Asked, others: Sequence[Asked]) -> Asked:
    """Return a request with one to three things changed that a signature does not protect from."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        asked = rng.choice(_TWISTS)(rng, asked, rng.choice(others))
    return asked


def _twist_query(rng: random.Random, asked: Asked, other: Asked) -> Asked:
    query = {**asked.query}
    if query and rng.random() < 0.7:
        query[rng.choice(list(query))] = rng.choice(WORDS)
    else:
        query.update(other.query)
    return replace(asked, query=query)


def _twist_headers(rng: random.Random, asked: Asked, other: Asked) -> Asked:
    headers = {**asked.headers}
    if headers and rng.random() < 0.7:
        value = rng.choice(WORDS).replace("\r", "").replace("\n", "").replace("\0", "")
        headers[rng.choice(list(headers))] = value.encode().decode("latin-1")
    else:
        headers.update(other.headers)
    return replace(asked, headers=headers)


def _twist_path(rng: random.Random, asked: Asked, other: Asked) -> Asked:
    way = rng.randrange(4)
    if way == 0:
        return replace(asked, path=other.path)
    if way == 1:
        return replace(asked, path=asked.path + "/" + rng.choice(WORDS))
    if way == 2:
        return replace(asked, path="/" + rng.choice(WORDS) + "/a")
    return replace(asked, path=asked.path + "/" * rng.randrange(1, 4))


def _twist_method(rng: random.Random, asked: Asked, other: Asked) -> Asked:
    return replace(asked, method=rng.choice(METHODS))


def _twist_body(rng: random.Random, asked: Asked, other: Asked) -> Asked:
    return replace(asked, body=mangled(rng, asked.body) if rng.random() < 0.7 else other.body)


_TWISTS: Sequence[Callable[[random.Random, Asked, Asked], Asked]] = (
    _twist_query,
    _twist_query,
    _twist_headers,
    _twist_path,
    _twist_method,
    _twist_body,
)


def mangled(rng: random.Random, raw: bytes) -> bytes:
    """Return bytes with one to four cuts, copies, flips or insertions."""
    data = bytearray(raw)
    for _ in range(rng.randrange(1, 5)):
        at = rng.randrange(len(data) + 1)
        length = rng.choice((1, 1, 2, 8, 40))
        way = rng.randrange(6)
        if way == 0:
            del data[at : at + length]
        elif way == 1:
            data[at:at] = data[at : at + length] * rng.choice((1, 2, 50))
        elif way == 2 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif way == 3:
            del data[at:]
        elif way == 4:
            data[at:at] = rng.randbytes(length)
        else:
            data[at:at] = rng.choice(PIECES)
    return bytes(data)


def signed(asked: Asked, endpoint: str) -> bytes:
    """Return a request as it goes over the wire, with botocore's signature on what it says."""
    target = urllib.parse.quote(asked.path, safe="/~")
    if asked.query:
        target += "?" + urllib.parse.urlencode(asked.query, quote_via=urllib.parse.quote)
    request = AWSRequest(
        asked.method,
        endpoint + target,
        headers={"Content-Length": str(len(asked.body)), **asked.headers},
        data=asked.body,
    )
    S3SigV4Auth(Credentials(ACCESS_KEY, SECRET_KEY), "s3", "us-east-1").add_auth(request)
    head = [f"{asked.method} {target} HTTP/1.1", f"Host: {urllib.parse.urlsplit(endpoint).netloc}"]
    head += [f"{name}: {value}" for name, value in request.headers.items()]
    return "\r\n".join([*head, "", ""]).encode("latin-1", "replace") + asked.body


def thrown(endpoint: str, raw: bytes, rng: random.Random) -> bytes:
    """Send bytes on a connection of their own, whole or in pieces, and return everything that comes back until it closes.

    Raises:
        TimeoutError: It neither answered nor closed in ANSWER_S.
    """
    url = urllib.parse.urlsplit(endpoint)
    assert url.hostname
    assert url.port
    with socket.create_connection((url.hostname, url.port), timeout=ANSWER_S) as connection:
        answer = b""
        try:
            at = 0
            while at < len(raw):
                step = len(raw) if rng.random() < 0.8 else rng.randrange(1, 200)
                connection.sendall(raw[at : at + step])
                at += step
                if at < len(raw):
                    time.sleep(0.0005)
            connection.shutdown(socket.SHUT_WR)
            while data := connection.recv(1 << 16):
                answer += data
        except ConnectionError:
            pass  # it answered, or not, and closed before it had read all
        return answer


def statuses(answer: bytes) -> list[int]:
    """Return the status of each answer that a connection gave."""
    return [int(status) for status in _STATUS.findall(answer)]
