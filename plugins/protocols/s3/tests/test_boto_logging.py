"""Access logs, as boto3 asks for them and finds them in their bucket."""

import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st
from warp_core.config import Duration
from warp_s3.access_log.record import Record, line
from warp_s3.access_log.spool import FILES_MAX, Line, Spool
from warp_s3.access_log.target import DELIVERY, EVENT, Target, object_key
from warp_s3.http import Request

FIELD = re.compile(r'\[[^\]]*\]|"[^"]*"|\S+')
PATIENCE_S = 30.0


def code_of(call: Any, **named: Any) -> tuple[int, str]:
    with pytest.raises(ClientError) as caught:
        call(**named)
    answer = caught.value.response
    return answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"]


def enabled(target: str, prefix: str = "log/", **more: Any) -> dict[str, Any]:
    return {"LoggingEnabled": {"TargetBucket": target, "TargetPrefix": prefix, **more}}


@pytest.fixture
def node(serve: Callable[..., Any]) -> Any:
    return serve(access_log_interval=Duration(1))


def lines_of(s3: Any, bucket: str, prefix: str, *, least: int) -> list[list[str]]:
    """Wait until a log has so many lines; return them as fields."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        page = s3.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", [])
        text = "".join(
            s3.get_object(Bucket=bucket, Key=each["Key"])["Body"].read().decode() for each in page
        )
        lines = [FIELD.findall(each) for each in text.splitlines()]
        if len(lines) >= least:
            return lines
        assert time.monotonic() < deadline, lines
        time.sleep(0.2)


# Configuration ------------------------------------------------------------------------------------


def test_where_a_log_goes_comes_back(s3: Any, bucket: str) -> None:
    s3.create_bucket(Bucket=f"{bucket}-logs")
    for said in (
        enabled(f"{bucket}-logs"),
        enabled(f"{bucket}-logs", "", TargetObjectKeyFormat={"SimplePrefix": {}}),
        enabled(
            f"{bucket}-logs",
            TargetObjectKeyFormat={"PartitionedPrefix": {"PartitionDateSource": "EventTime"}},
        ),
    ):
        s3.put_bucket_logging(Bucket=bucket, BucketLoggingStatus=said)
        found = s3.get_bucket_logging(Bucket=bucket)
        assert found["LoggingEnabled"] == said["LoggingEnabled"]
    s3.put_bucket_logging(Bucket=bucket, BucketLoggingStatus={})
    assert "LoggingEnabled" not in s3.get_bucket_logging(Bucket=bucket)


def test_a_log_goes_to_a_bucket_of_the_same_owner(shared: Any, connect: Any, s3: Any) -> None:
    alice = connect(shared.url, shared.alice)
    mine, other = f"alices-{id(shared):x}", f"roots-{id(shared):x}"
    alice.create_bucket(Bucket=mine)
    s3.create_bucket(Bucket=other)
    invalid = (400, "InvalidTargetBucketForLogging")

    for target in (other, "no-such-bucket-at-all"):
        refused = code_of(
            alice.put_bucket_logging, Bucket=mine, BucketLoggingStatus=enabled(target)
        )
        assert refused == invalid
    missing = code_of(
        s3.put_bucket_logging, Bucket="no-such-bucket", BucketLoggingStatus=enabled(other)
    )
    assert missing == (404, "NoSuchBucket")


def test_grants_need_acls(s3: Any, bucket: str) -> None:
    owner = s3.list_buckets()["Owner"]["ID"]
    grant = {"Grantee": {"ID": owner, "Type": "CanonicalUser"}, "Permission": "READ"}
    said = enabled(bucket, TargetGrants=[grant])
    refused = code_of(s3.put_bucket_logging, Bucket=bucket, BucketLoggingStatus=said)
    assert refused == (400, "InvalidArgument")
    s3.put_bucket_ownership_controls(
        Bucket=bucket, OwnershipControls={"Rules": [{"ObjectOwnership": "ObjectWriter"}]}
    )
    s3.put_bucket_logging(Bucket=bucket, BucketLoggingStatus=said)
    found = s3.get_bucket_logging(Bucket=bucket)["LoggingEnabled"]["TargetGrants"]
    assert [each["Permission"] for each in found] == ["READ"]


# Delivery -----------------------------------------------------------------------------------------


def test_requests_are_told_in_the_log(node: Any, connect: Any) -> None:
    s3 = connect(node.url)
    s3.create_bucket(Bucket="source")
    s3.create_bucket(Bucket="logs")
    s3.put_bucket_logging(Bucket="source", BucketLoggingStatus=enabled("logs"))
    owner = s3.list_buckets()["Owner"]["ID"]
    made = s3.put_object(Bucket="source", Key="a b", Body=b"hello")
    s3.get_object(Bucket="source", Key="a b")["Body"].read()
    s3.head_object(Bucket="source", Key="a b")
    s3.list_objects_v2(Bucket="source")
    s3.copy_object(Bucket="source", Key="c", CopySource={"Bucket": "source", "Key": "a b"})
    assert code_of(s3.get_object, Bucket="source", Key="missing") == (404, "NoSuchKey")
    s3.get_object_tagging(Bucket="source", Key="c")
    s3.delete_object(Bucket="source", Key="c")
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(f"{node.url}/source/c")
    s3.put_object(Bucket="logs", Key="not-logged", Body=b"")
    lines = lines_of(s3, "logs", "log/", least=9)

    by_operation = {(each[6], each[7], each[9]): each for each in lines}
    assert len(lines) == 9
    assert all(len(each) == 26 for each in lines)
    assert all(each[:2] == [owner, "source"] for each in lines)
    put = by_operation["REST.PUT.OBJECT", "a%20b", "200"]
    assert put[4] == owner
    assert put[5] == made["ResponseMetadata"]["RequestId"]
    assert put[8] == '"PUT /source/a%20b HTTP/1.1"'
    assert put[10:13] == ["-", "-", "5"]
    assert "Boto3" in put[16]
    assert (put[19], put[21]) == ("SigV4", "AuthHeader")
    assert by_operation["REST.GET.OBJECT", "a%20b", "200"][11:13] == ["5", "5"]
    assert by_operation["REST.HEAD.OBJECT", "a%20b", "200"][11:13] == ["-", "5"]
    assert by_operation["REST.GET.OBJECT", "missing", "404"][10] == "NoSuchKey"
    refused = by_operation["REST.GET.OBJECT", "c", "403"]
    assert (refused[4], refused[19], refused[10]) == ("-", "-", "AccessDenied")
    for operation in ("GET.BUCKET", "COPY.OBJECT", "GET.OBJECT_TAGGING", "DELETE.OBJECT"):
        assert any(each[0] == f"REST.{operation}" for each in by_operation)
    keys = [each["Key"] for each in s3.list_objects_v2(Bucket="logs", Prefix="log/")["Contents"]]
    assert all(re.fullmatch(r"log/\d{4}(-\d\d){5}-[0-9A-F]{16}", key) for key in keys)


def test_partitions_have_account_region_and_day(node: Any, connect: Any) -> None:
    s3 = connect(node.url)
    s3.create_bucket(Bucket="source")
    s3.create_bucket(Bucket="logs")
    said = {"PartitionedPrefix": {"PartitionDateSource": "EventTime"}}
    s3.put_bucket_logging(
        Bucket="source", BucketLoggingStatus=enabled("logs", TargetObjectKeyFormat=said)
    )
    s3.head_bucket(Bucket="source")
    lines_of(s3, "logs", "log/", least=1)
    (key, *_) = [each["Key"] for each in s3.list_objects_v2(Bucket="logs")["Contents"]]
    day = r"(\d{4})/(\d\d)/(\d\d)/\1-\2-\3-00-00-00-[0-9A-F]{16}"
    assert re.fullmatch(rf"log/\d{{12}}/us-east-1/source/{day}", key)


def test_what_was_not_delivered_is_after_a_restart(
    serve: Callable[..., Any], connect: Any, tmp_path: Path
) -> None:
    first = serve(access_log_interval=Duration(3600))
    s3 = connect(first.url)
    s3.create_bucket(Bucket="source")
    s3.create_bucket(Bucket="logs")
    s3.put_bucket_logging(Bucket="source", BucketLoggingStatus=enabled("logs"))
    for _ in range(5):
        s3.head_bucket(Bucket="source")
    left = first.objects
    first.stop()

    @asynccontextmanager
    async def again() -> Any:
        yield left

    second = serve(view=again, access_log_interval=Duration(1))
    assert len(lines_of(connect(second.url), "logs", "log/", least=5)) == 5
    deadline = time.monotonic() + PATIENCE_S
    while list((tmp_path / "s3-access-logs").glob("*.lines")):
        assert time.monotonic() < deadline
        time.sleep(0.1)


# Parts --------------------------------------------------------------------------------------------


def record(**more: Any) -> Record:
    request = Request("GET", "/b/k", "a=1", {"user-agent": 'quo"te\x01'}, None, False, True, False)
    said: dict[str, Any] = {
        "owner": "o" * 64,
        "bucket": "b",
        "second": 1_549_411_200,
        "address": "192.0.2.3",
        "requester": "",
        "request_id": "3E57427F3EXAMPLE",
        "operation": "REST.GET.OBJECT",
        "key": b"k",
        "request": request,
        "status": 200,
        "error": "",
        "sent": 113,
        "size": 113,
        "total_ms": 7,
        "turn_around_ms": 5,
        "version": "",
        "signature": "",
        "auth": "",
        "tls": "1.3",
    }
    return Record(**said | more)


def test_a_line_is_as_the_user_guide_says() -> None:
    assert line(record()) == (
        "o" * 64 + " b [06/Feb/2019:00:00:00 +0000] 192.0.2.3 - 3E57427F3EXAMPLE REST.GET.OBJECT k "
        '"GET /b/k?a=1 HTTP/1.1" 200 - 113 113 7 5 "-" "quo%22te%01" - - - - - - TLSv1.3 - -\n'
    )


@given(st.binary(min_size=1, max_size=30), st.text(st.characters(max_codepoint=255)))
def test_no_key_and_no_header_breaks_a_line(key: bytes, agent: str) -> None:
    request = Request("GET", "/b/k", "", {"user-agent": agent}, None, False, True, False)
    text = line(record(key=key, request=request))
    assert text.count("\n") == 1
    assert len(FIELD.findall(text.strip("\n"))) == 26


def test_a_spool_gives_back_what_it_took_but_for_a_torn_end(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    assert spool.waiting() == []
    lines = [Line("b", n, f"line {n} é\n") for n in range(3)]
    for n, each in enumerate(lines):
        spool.append(each, now_ns=n)
    assert spool.waiting() == []
    spool.rotate()
    (path,) = spool.waiting()
    assert spool.read(path) == lines
    path.write_bytes(path.read_bytes()[:-5])
    assert spool.read(path) == lines[:2]
    spool.remove(path)
    spool.remove(path)
    assert spool.waiting() == []


def test_a_full_spool_drops_and_counts(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    for n in range(FILES_MAX):
        spool.append(Line("b", 0, "x"), now_ns=n)
        spool.rotate()
    spool.append(Line("b", 0, "x"), now_ns=FILES_MAX)
    assert spool.dropped == 1
    assert len(spool.waiting()) == FILES_MAX


def test_a_batch_has_one_name() -> None:
    said = {"number": "123456789012", "region": "eu", "bucket": "b", "second": 86_400}
    simple = object_key(Target("t", "p"), event=False, batch="1", **said)  # type: ignore[arg-type]
    again = object_key(Target("t", "p"), event=False, batch="1", **said)  # type: ignore[arg-type]
    other = object_key(Target("t", "p"), event=False, batch="2", **said)  # type: ignore[arg-type]
    parted = object_key(
        Target("t", "p/", partition=DELIVERY),
        event=False,
        batch="1",
        **said,  # type: ignore[arg-type]
    )
    by_event = object_key(
        Target("t", "p/", partition=EVENT),
        event=True,
        batch="1",
        **said,  # type: ignore[arg-type]
    )
    assert simple == again != other
    assert simple.startswith(b"p1970-01-02-00-00-00-")
    assert parted.startswith(b"p/123456789012/eu/b/1970/01/02/1970-01-02-00-00-00-")
    assert by_event.startswith(b"p/123456789012/eu/b/1970/01/02/1970-01-02-00-00-00-")
