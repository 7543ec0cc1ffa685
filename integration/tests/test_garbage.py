"""No request, however wrong, stops the server, makes it fail inside, grow, or touch what it should not."""

from __future__ import annotations

import os
import random
import re
from collections import Counter

import pytest
from warp_integration.clients import s3_client
from warp_integration.garbage import corpus, mangled, signed, statuses, thrown, twisted
from warp_integration.server import WarpServer

pytestmark = [pytest.mark.workspace, pytest.mark.usefixtures("warp_serve")]

MIB = 1 << 20
GROWTH_MAX = (
    24 * MIB
)  # of RssAnon between the first and the last third: caches of rows fill, and are full at 300,000 requests
HEADS = re.compile(rb"HTTP/1\.1 \d{3} .*?\r\n\r\n", re.DOTALL)
HONEST = {
    501,
    503,
    505,
}  # what is not implemented, waits, or is no HTTP/1; 500 and all else would be a fault inside


def descriptors(server: WarpServer) -> int:
    return len(os.listdir(f"/proc/{server.pid}/fd"))


@pytest.mark.parametrize(
    ("count", "seed"), [(4000, 1), pytest.param(100_000, 2, marks=pytest.mark.slow)]
)
def test_garbage_is_refused_and_changes_nothing(server: WarpServer, count: int, seed: int) -> None:
    rng = random.Random(seed)
    s3 = s3_client(server.s3)
    bucket = f"garbage-{seed}"
    s3.create_bucket(Bucket=bucket)
    s3.create_bucket(Bucket=f"{bucket}-safe")
    kept = rng.randbytes(300_000)
    s3.put_object(Bucket=f"{bucket}-safe", Key="kept", Body=kept)
    s3.put_object(Bucket=bucket, Key="d/kept", Body=kept)
    good = corpus(bucket)
    seen: Counter[int] = Counter()
    faults: list[tuple[bytes, bytes]] = []
    memory = []
    open_before = descriptors(server)

    for number in range(count):
        asked = rng.choice(good)
        if rng.random() < 0.6:
            raw = signed(twisted(rng, asked, good), server.s3)
        else:
            raw = mangled(rng, signed(asked, server.s3))
        answer = thrown(server.s3, raw, rng)
        seen.update(statuses(answer))
        wrong = [status for status in statuses(answer) if status >= 500 and status not in HONEST]
        if wrong or any(b"\nX-Injected" in head for head in HEADS.findall(answer)):
            faults.append((raw[:2000], answer[:1000]))
        if number % (count // 12) == 0:
            memory.append(server.rss_anon())

    print(f"{count} requests: {dict(sorted(seen.items()))}")
    assert not faults, f"{len(faults)} faults, the first: {faults[0]}"
    assert server.running
    assert "Traceback" not in server.log()
    assert seen[200] > count / 50, "so much was wrong that nothing was tried behind the signature"
    assert seen[400] > count / 50
    assert max(memory[-4:]) - max(memory[:4]) <= GROWTH_MAX, memory
    assert descriptors(server) <= open_before + 16
    body = s3.get_object(Bucket=f"{bucket}-safe", Key="kept")["Body"].read()
    assert body == kept or pytest.fail("an object in another bucket changed")
    assert [each["Key"] for each in s3.list_objects_v2(Bucket=f"{bucket}-safe")["Contents"]] == [
        "kept"
    ]


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_a_request_in_a_body_is_never_run(server: WarpServer, method: str) -> None:
    """Framing said twice is refused; what could be a second request is never answered."""
    s3 = s3_client(server.s3)
    if "smuggled" not in {each["Name"] for each in s3.list_buckets()["Buckets"]}:
        s3.create_bucket(Bucket="smuggled")
    inner = signed(corpus("smuggled")[1], server.s3)  # PUT /smuggled-x
    for framing in (
        b"Content-Length: %d\r\nTransfer-Encoding: chunked" % len(inner),
        b"Transfer-Encoding: chunked\r\nContent-Length: 4",
        b"Content-Length: 0\r\nContent-Length: %d" % len(inner),
        b"Transfer-Encoding : chunked",
        b"Transfer-Encoding: xchunked",
        b"Content-Length: +0",
    ):
        host = re.sub(r"^http://", "", server.s3).encode()
        raw = b"%s /smuggled/k HTTP/1.1\r\nHost: %s\r\n%s\r\n\r\n" % (
            method.encode(),
            host,
            framing,
        )
        answer = thrown(server.s3, raw + b"0\r\n\r\n" + inner, random.Random(1))
        assert len(statuses(answer)) == 1, framing
        assert statuses(answer)[0] in {400, 411, 501}, framing
    assert "smuggled-x" not in {each["Name"] for each in s3.list_buckets()["Buckets"]}
