"""Objects as boto3 sees them."""

import datetime
import hashlib
import threading
from base64 import b64encode
from typing import Any

import boto3.s3.transfer
import pytest
import xxhash
from awscrt import checksums as crt
from botocore.exceptions import ClientError


def code(call: Any, **arguments: Any) -> tuple[int, str]:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    response = caught.value.response
    return response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"]


def payload(size: int) -> bytes:
    return (bytes(range(256)) * (size // 256 + 1))[:size]


@pytest.mark.parametrize("size", [0, 1, 4096, 65535, 65536, 65537, 3_000_000])
def test_what_is_put_comes_back(s3: Any, bucket: str, size: int) -> None:
    body = payload(size)

    put = s3.put_object(
        Bucket=bucket, Key="k", Body=body, Metadata={"a": "b"}, ContentType="text/x"
    )
    got = s3.get_object(Bucket=bucket, Key="k")

    assert got["Body"].read() == body
    assert put["ETag"] == got["ETag"] == f'"{hashlib.md5(body).hexdigest()}"'
    assert got["Metadata"] == {"a": "b"}
    assert got["ContentType"] == "text/x"
    assert got["ContentLength"] == size


@pytest.mark.parametrize(
    "key",
    [
        "a",
        "a/b/c",
        "/lead",
        "tail/",
        "a//b",
        "sp ace",
        "plus+",
        "per%cent",
        "é€🙂",
        "q?x&y=z",
        "..",
        "a\x01b",
        "#",
        "~-_.",
        "k" * 1024,
    ],
)
def test_every_key_is_stored_and_listed(s3: Any, bucket: str, key: str) -> None:
    s3.put_object(Bucket=bucket, Key=key, Body=b"x")

    assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == b"x"
    assert [one["Key"] for one in s3.list_objects_v2(Bucket=bucket)["Contents"]] == [key]
    s3.delete_object(Bucket=bucket, Key=key)
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_headers_of_an_object_are_kept(s3: Any, bucket: str) -> None:
    kept = {
        "CacheControl": "no-cache",
        "ContentDisposition": 'attachment; filename="x"',
        "ContentEncoding": "gzip",
        "ContentLanguage": "de",
        "ContentType": "text/plain",
        "StorageClass": "STANDARD_IA",
        "WebsiteRedirectLocation": "/other",
    }
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", Expires=datetime.datetime(2030, 1, 1), **kept)

    head = s3.head_object(Bucket=bucket, Key="k")

    assert {name: head[name] for name in kept} == kept
    assert head["ExpiresString"].startswith("Tue, 01 Jan 2030")


def test_a_get_can_replace_headers(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", ContentType="text/a")

    got = s3.get_object(
        Bucket=bucket, Key="k", ResponseContentType="text/b", ResponseCacheControl="no-store"
    )

    assert (got["ContentType"], got["CacheControl"]) == ("text/b", "no-store")


def test_what_is_not_there_is_named(s3: Any, bucket: str) -> None:
    assert code(s3.get_object, Bucket=bucket, Key="k") == (404, "NoSuchKey")
    assert code(s3.head_object, Bucket=bucket, Key="k") == (404, "404")
    assert code(s3.get_object, Bucket="no-such-bucket", Key="k") == (404, "NoSuchBucket")
    assert code(s3.put_object, Bucket="no-such-bucket", Key="k") == (404, "NoSuchBucket")
    assert code(s3.put_object, Bucket="no-such-bucket", Key="k", Body=bytes(70000)) == (
        404,
        "NoSuchBucket",
    )
    s3.delete_object(Bucket=bucket, Key="k")


@pytest.mark.parametrize(
    ("range_", "want", "content_range"),
    [
        ("bytes=0-0", b"0", "bytes 0-0/10"),
        ("bytes=2-4", b"234", "bytes 2-4/10"),
        ("bytes=7-", b"789", "bytes 7-9/10"),
        ("bytes=7-99", b"789", "bytes 7-9/10"),
        ("bytes=-3", b"789", "bytes 7-9/10"),
        ("bytes=-99", b"0123456789", "bytes 0-9/10"),
        ("bytes=4-2", b"0123456789", None),
        ("bytes=0-1,3-4", b"0123456789", None),
        ("lines=1-2", b"0123456789", None),
    ],
)
def test_ranges(s3: Any, bucket: str, range_: str, want: bytes, content_range: str | None) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"0123456789")

    got = s3.get_object(Bucket=bucket, Key="k", Range=range_)

    assert got["Body"].read() == want
    assert got.get("ContentRange") == content_range
    assert got["ResponseMetadata"]["HTTPStatusCode"] == (206 if content_range else 200)


@pytest.mark.parametrize("range_", ["bytes=10-", "bytes=10-11", "bytes=-0"])
def test_a_range_beyond_the_end_is_refused(s3: Any, bucket: str, range_: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"0123456789")

    assert code(s3.get_object, Bucket=bucket, Key="k", Range=range_) == (416, "InvalidRange")


def test_large_ranges_come_back(s3: Any, bucket: str) -> None:
    body = payload(5_000_000)
    s3.put_object(Bucket=bucket, Key="k", Body=body)

    got = s3.get_object(Bucket=bucket, Key="k", Range="bytes=1000001-4000002")

    assert got["Body"].read() == body[1000001:4000003]


def test_conditions_of_reads(s3: Any, bucket: str) -> None:
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"x")["ETag"]
    at = {"Bucket": bucket, "Key": "k"}
    past = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
    future = datetime.datetime(2100, 1, 1, tzinfo=datetime.UTC)

    for call in (s3.get_object, s3.head_object):
        call(**at, IfMatch=etag)
        call(**at, IfNoneMatch='"other"')
        call(**at, IfModifiedSince=past)
        call(**at, IfUnmodifiedSince=future)
        call(**at, IfMatch=etag, IfUnmodifiedSince=past)
        assert code(call, **at, IfNoneMatch=etag)[0] == 304
        assert code(call, **at, IfNoneMatch="*")[0] == 304
        assert code(call, **at, IfModifiedSince=future)[0] == 304
        assert code(call, **at, IfMatch='"other"')[0] == 412
        assert code(call, **at, IfUnmodifiedSince=past)[0] == 412
        # RFC 9110, 13.2.2: If-None-Match decides, If-Modified-Since is ignored.
        call(**at, IfNoneMatch='"other"', IfModifiedSince=future)


def test_a_write_happens_only_if_its_condition_holds(s3: Any, bucket: str) -> None:
    at = {"Bucket": bucket, "Key": "k"}
    assert code(s3.put_object, **at, Body=b"0", IfMatch='"x"') == (404, "NoSuchKey")

    etag = s3.put_object(**at, Body=b"1", IfNoneMatch="*")["ETag"]

    for body in (b"2", bytes(100_000)):
        assert code(s3.put_object, **at, Body=body, IfNoneMatch="*") == (412, "PreconditionFailed")
        assert code(s3.put_object, **at, Body=body, IfMatch='"x"') == (412, "PreconditionFailed")
    assert s3.get_object(**at)["Body"].read() == b"1"
    s3.put_object(**at, Body=b"2", IfMatch=etag)
    assert code(s3.put_object, **at, Body=b"3", IfMatch=etag) == (412, "PreconditionFailed")
    assert code(s3.put_object, **at, Body=b"3", IfNoneMatch='"x"') == (501, "NotImplemented")
    assert code(s3.delete_object, **at, IfMatch=etag) == (412, "PreconditionFailed")
    assert s3.get_object(**at)["Body"].read() == b"2"


def test_of_many_writers_one_creates(shared: Any, connect: Any, bucket: str) -> None:
    results: list[str] = []

    def write(number: int) -> None:
        try:
            connect(shared.url).put_object(
                Bucket=bucket, Key="k", Body=str(number).encode(), IfNoneMatch="*"
            )
            results.append(str(number))
        except ClientError as error:
            results.append(error.response["Error"]["Code"])

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    winners = [one for one in results if one.isdigit()]
    assert len(winners) == 1
    assert results.count("PreconditionFailed") == 7
    assert connect(shared.url).get_object(Bucket=bucket, Key="k")["Body"].read() == (
        winners[0].encode()
    )


CHECKSUMS = {
    "CRC32": lambda data: crt.crc32(data).to_bytes(4, "big"),
    "CRC32C": lambda data: crt.crc32c(data).to_bytes(4, "big"),
    "CRC64NVME": lambda data: crt.crc64nvme(data).to_bytes(8, "big"),
    "SHA1": lambda data: hashlib.sha1(data).digest(),
    "SHA256": lambda data: hashlib.sha256(data).digest(),
    "SHA512": lambda data: hashlib.sha512(data).digest(),
    "MD5": lambda data: hashlib.md5(data).digest(),
    "XXHASH64": lambda data: xxhash.xxh64_digest(data),
    "XXHASH3": lambda data: xxhash.xxh3_64_digest(data),
    "XXHASH128": lambda data: xxhash.xxh3_128_digest(data),
}


@pytest.mark.parametrize("name", CHECKSUMS)
@pytest.mark.parametrize("size", [100, 200_000])
def test_checksums_are_verified_kept_and_told(s3: Any, bucket: str, name: str, size: int) -> None:
    body = payload(size)
    value = b64encode(CHECKSUMS[name](body)).decode()
    wrong = b64encode(CHECKSUMS[name](b"other")).decode()

    put = s3.put_object(Bucket=bucket, Key="k", Body=body, **{f"Checksum{name}": value})
    head = s3.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")

    assert put[f"Checksum{name}"] == head[f"Checksum{name}"] == value
    assert put["ChecksumType"] == head["ChecksumType"] == "FULL_OBJECT"
    assert f"Checksum{name}" not in s3.head_object(Bucket=bucket, Key="k")
    assert code(
        s3.put_object, Bucket=bucket, Key="bad", Body=body, **{f"Checksum{name}": wrong}
    ) == (400, "BadDigest")
    assert code(s3.head_object, Bucket=bucket, Key="bad")[0] == 404


def test_content_md5_is_verified(s3: Any, bucket: str) -> None:
    right = b64encode(hashlib.md5(b"x").digest()).decode()
    wrong = b64encode(hashlib.md5(b"y").digest()).decode()

    s3.put_object(Bucket=bucket, Key="k", Body=b"x", ContentMD5=right)

    assert code(s3.put_object, Bucket=bucket, Key="k", Body=b"x", ContentMD5=wrong) == (
        400,
        "BadDigest",
    )
    assert code(s3.put_object, Bucket=bucket, Key="k", Body=b"x", ContentMD5="zz") == (
        400,
        "InvalidDigest",
    )


def test_an_object_without_a_chosen_checksum_gets_one(
    shared: Any, connect: Any, bucket: str
) -> None:
    s3 = connect(shared.url, request_checksum_calculation="when_required")

    put = s3.put_object(Bucket=bucket, Key="k", Body=b"123456789")

    assert (
        put["ChecksumCRC64NVME"]
        == b64encode(crt.crc64nvme(b"123456789").to_bytes(8, "big")).decode()
    )


def test_attributes_of_an_object(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"123", ChecksumAlgorithm="SHA256")

    got = s3.get_object_attributes(
        Bucket=bucket,
        Key="k",
        ObjectAttributes=["ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"],
    )

    assert got["ObjectSize"] == 3
    assert got["StorageClass"] == "STANDARD"
    assert got["ETag"] == hashlib.md5(b"123").hexdigest()
    assert got["Checksum"]["ChecksumSHA256"] == b64encode(hashlib.sha256(b"123").digest()).decode()
    assert "ObjectParts" not in got


def test_copies_take_over_or_replace(s3: Any, bucket: str) -> None:
    s3.put_object(
        Bucket=bucket,
        Key="a +é",
        Body=b"x",
        Metadata={"m": "1"},
        ContentType="text/a",
        Tagging="t=1",
    )
    source = {"Bucket": bucket, "Key": "a +é"}

    s3.copy_object(Bucket=bucket, Key="same", CopySource=source)
    s3.copy_object(
        Bucket=bucket,
        Key="new",
        CopySource=source,
        MetadataDirective="REPLACE",
        Metadata={"m": "2"},
        TaggingDirective="REPLACE",
        Tagging="t=2",
        ChecksumAlgorithm="SHA1",
    )
    same = s3.get_object(Bucket=bucket, Key="same")
    new = s3.get_object(Bucket=bucket, Key="new", ChecksumMode="ENABLED")

    assert same["Body"].read() == new["Body"].read() == b"x"
    assert (same["Metadata"], same["ContentType"]) == ({"m": "1"}, "text/a")
    assert (new["Metadata"], new["ContentType"]) == ({"m": "2"}, "binary/octet-stream")
    assert s3.get_object_tagging(Bucket=bucket, Key="same")["TagSet"][0]["Value"] == "1"
    assert s3.get_object_tagging(Bucket=bucket, Key="new")["TagSet"][0]["Value"] == "2"
    assert new["ChecksumSHA1"] == b64encode(hashlib.sha1(b"x").digest()).decode()


def test_copies_that_make_no_sense_are_refused(s3: Any, bucket: str) -> None:
    etag = s3.put_object(Bucket=bucket, Key="a", Body=b"x")["ETag"]
    to = {"Bucket": bucket, "Key": "b"}
    source = {"Bucket": bucket, "Key": "a"}

    assert code(s3.copy_object, Bucket=bucket, Key="a", CopySource=source) == (
        400,
        "InvalidRequest",
    )
    assert code(s3.copy_object, **to, CopySource=f"{bucket}/none") == (404, "NoSuchKey")
    assert code(s3.copy_object, **to, CopySource="no-such-bucket/a") == (404, "NoSuchBucket")
    assert code(s3.copy_object, **to, CopySource="nothing") == (400, "InvalidArgument")
    assert code(s3.copy_object, **to, CopySource=source, CopySourceIfNoneMatch=etag) == (
        412,
        "PreconditionFailed",
    )
    assert code(s3.copy_object, **to, CopySource=source, CopySourceIfMatch='"x"') == (
        412,
        "PreconditionFailed",
    )
    s3.copy_object(**to, CopySource=source, CopySourceIfMatch=etag)
    assert code(s3.copy_object, **to, CopySource=source, IfNoneMatch="*") == (
        412,
        "PreconditionFailed",
    )
    s3.copy_object(
        Bucket=bucket, Key="a", CopySource=source, MetadataDirective="REPLACE", Metadata={"n": "1"}
    )
    assert s3.head_object(Bucket=bucket, Key="a")["Metadata"] == {"n": "1"}


def test_many_keys_are_deleted_at_once(s3: Any, bucket: str) -> None:
    keys = [f"k{number} &<é" for number in range(150)]
    for key in keys:
        s3.put_object(Bucket=bucket, Key=key)

    answer = s3.delete_objects(
        Bucket=bucket, Delete={"Objects": [{"Key": key} for key in [*keys, "never was"]]}
    )
    quiet = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "x"}], "Quiet": True})

    assert [one["Key"] for one in answer["Deleted"]] == [*keys, "never was"]
    assert "Deleted" not in quiet
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_tags_of_objects(s3: Any, bucket: str) -> None:
    at = {"Bucket": bucket, "Key": "k"}
    s3.put_object(**at, Tagging="a=1&b=%C3%A9")
    assert s3.get_object(**at)["TagCount"] == 2
    assert s3.get_object_tagging(**at)["TagSet"] == [
        {"Key": "a", "Value": "1"},
        {"Key": "b", "Value": "é"},
    ]

    s3.put_object_tagging(**at, Tagging={"TagSet": [{"Key": "c", "Value": "2"}]})
    assert s3.get_object_tagging(**at)["TagSet"] == [{"Key": "c", "Value": "2"}]
    s3.delete_object_tagging(**at)

    assert s3.get_object_tagging(**at)["TagSet"] == []
    assert code(s3.put_object, **at, Tagging="a=1&a=2") == (400, "InvalidTag")
    assert code(s3.get_object_tagging, Bucket=bucket, Key="none") == (404, "NoSuchKey")


def test_metadata_has_a_limit_and_any_language(s3: Any, bucket: str) -> None:
    assert code(s3.put_object, Bucket=bucket, Key="k", Metadata={"m": "x" * 2048}) == (
        400,
        "MetadataTooLarge",
    )


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        ({"ServerSideEncryption": "AES256"}, (501, "NotImplemented")),
        ({"ObjectLockLegalHoldStatus": "ON"}, (400, "InvalidRequest")),
        ({"ACL": "public-read"}, (400, "AccessControlListNotSupported")),
        ({"GrantRead": "id=x"}, (400, "AccessControlListNotSupported")),
        ({"StorageClass": "FAST"}, (400, "InvalidStorageClass")),
        ({"WriteOffsetBytes": 1}, (501, "NotImplemented")),
    ],
)
def test_what_is_not_there_is_refused_instead_of_ignored(
    s3: Any, bucket: str, arguments: dict[str, Any], answer: tuple[int, str]
) -> None:
    assert code(s3.put_object, Bucket=bucket, Key="k", Body=b"x", **arguments) == answer


def test_canned_acls_that_change_nothing_are_taken(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", ACL="bucket-owner-full-control")
    s3.put_object_acl(Bucket=bucket, Key="k", ACL="private")

    grants = s3.get_object_acl(Bucket=bucket, Key="k")["Grants"]

    assert [grant["Permission"] for grant in grants] == ["FULL_CONTROL"]
    assert code(s3.put_object_acl, Bucket=bucket, Key="k", ACL="public-read") == (
        400,
        "AccessControlListNotSupported",
    )


def test_presigned_urls_read_and_write(s3: Any, bucket: str) -> None:
    from urllib.request import Request, urlopen

    at = {"Bucket": bucket, "Key": "a b/é"}
    put = s3.generate_presigned_url("put_object", Params={**at, "ContentType": "text/p"})
    request = Request(put, data=b"hello", method="PUT", headers={"Content-Type": "text/p"})
    with urlopen(request) as response:
        assert response.status == 200

    url = s3.generate_presigned_url(
        "get_object", Params={**at, "ResponseContentType": "text/q"}, ExpiresIn=60
    )
    with urlopen(url) as response:
        assert (response.read(), response.headers["Content-Type"]) == (b"hello", "text/q")


def test_large_files_go_up_and_down_in_parts(s3: Any, bucket: str, tmp_path: Any) -> None:
    body = payload(13_000_000)
    (tmp_path / "up").write_bytes(body)
    config = boto3.s3.transfer.TransferConfig(
        multipart_threshold=5 << 20, multipart_chunksize=5 << 20, max_concurrency=4
    )

    s3.upload_file(str(tmp_path / "up"), bucket, "k", Config=config)
    s3.download_file(bucket, "k", str(tmp_path / "down"), Config=config)

    assert (tmp_path / "down").read_bytes() == body
    assert s3.head_object(Bucket=bucket, Key="k")["ETag"].endswith('-3"')


def test_nothing_stays_open(serve: Any, connect: Any) -> None:
    running = serve()
    s3, bucket = connect(running.url), "bucket"
    s3.create_bucket(Bucket=bucket)
    for size in (0, 10, 100_000, 3_000_000):
        s3.put_object(Bucket=bucket, Key="k", Body=payload(size))
        s3.get_object(Bucket=bucket, Key="k")["Body"].read()
    code(s3.put_object, Bucket=bucket, Key="k", Body=payload(100_000), ChecksumCRC32="AAAAAA==")
    code(s3.get_object, Bucket=bucket, Key="k", Range="bytes=9999999-")
    code(s3.get_object, Bucket=bucket, Key="k", IfNoneMatch="*")

    assert (running.objects.open_readers, running.objects.open_writers) == (0, 0)


def test_keys_are_deleted_only_as_they_were_seen(s3: Any, bucket: str) -> None:
    def delete(**seen: Any) -> str:
        s3.put_object(Bucket=bucket, Key="k", Body=b"x")
        told = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "k", **seen}]})
        return str(told["Errors"][0]["Code"]) if "Errors" in told else "deleted"

    then = datetime.datetime(2015, 1, 1, tzinfo=datetime.UTC)
    assert delete(ETag="other") == "PreconditionFailed"
    assert delete(Size=9) == "PreconditionFailed"
    assert delete(LastModifiedTime=then) == "PreconditionFailed"
    modified = s3.head_object(Bucket=bucket, Key="k")["LastModified"]
    assert delete(Size=1) == "deleted"
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    etag = s3.head_object(Bucket=bucket, Key="k")["ETag"]
    assert delete(ETag=etag, Size=1) == "deleted"
    assert modified > then


def test_a_header_of_tags_is_sorted_and_a_torrent_is_not_there(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Tagging="foo=bar&bar")

    tags = s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"]

    assert tags == [{"Key": "bar", "Value": ""}, {"Key": "foo", "Value": "bar"}]
    assert code(s3.get_object_torrent, Bucket=bucket, Key="k") == (404, "NoSuchKey")
