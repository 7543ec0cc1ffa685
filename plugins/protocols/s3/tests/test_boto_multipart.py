"""Multipart uploads as boto3 sees them."""

import hashlib
from base64 import b64decode, b64encode
from hashlib import sha256
from typing import Any

import pytest
from awscrt import checksums as crt
from botocore.exceptions import ClientError
from warp_core.interfaces.accounts import made_id

PART = 5 * 1024 * 1024


def code(call: Any, **arguments: Any) -> tuple[int, str]:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    response = caught.value.response
    return response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"]


def begin(s3: Any, bucket: str, **arguments: Any) -> dict[str, Any]:
    made = s3.create_multipart_upload(Bucket=bucket, Key="k", **arguments)
    return {"Bucket": bucket, "Key": "k", "UploadId": made["UploadId"]}


def test_parts_become_an_object(s3: Any, bucket: str) -> None:
    at = begin(s3, bucket, Metadata={"m": "1"}, ContentType="text/x", Tagging="t=1")
    bodies = {3: b"a" * PART, 5: b"b" * 10}
    etags = {
        number: s3.upload_part(**at, PartNumber=number, Body=body)["ETag"]
        for number, body in bodies.items()
    }

    done = s3.complete_multipart_upload(
        **at,
        MultipartUpload={
            "Parts": [{"PartNumber": number, "ETag": etag} for number, etag in etags.items()]
        },
    )
    got = s3.get_object(Bucket=bucket, Key="k")
    second = s3.get_object(Bucket=bucket, Key="k", PartNumber=2)

    joined = b"".join(hashlib.md5(body).digest() for body in bodies.values())
    assert done["ETag"] == got["ETag"] == f'"{hashlib.md5(joined).hexdigest()}-2"'
    assert got["Body"].read() == bodies[3] + bodies[5]
    assert (got["Metadata"], got["ContentType"], got["TagCount"]) == ({"m": "1"}, "text/x", 1)
    assert (second["Body"].read(), second["PartsCount"]) == (b"b" * 10, 2)
    assert second["ContentRange"] == f"bytes {PART}-{PART + 9}/{PART + 10}"
    assert code(s3.get_object, Bucket=bucket, Key="k", PartNumber=3)[0] == 416
    assert code(s3.list_parts, **at) == (404, "NoSuchUpload")


@pytest.mark.parametrize(
    ("algorithm", "kind"),
    [
        ("CRC32", "COMPOSITE"),
        ("CRC32", "FULL_OBJECT"),
        ("CRC32C", "COMPOSITE"),
        ("CRC64NVME", "FULL_OBJECT"),
        ("SHA256", "COMPOSITE"),
    ],
)
def test_checksums_of_parts_become_the_objects(
    s3: Any, bucket: str, algorithm: str, kind: str
) -> None:
    bodies = [b"a" * PART, b"b" * 100]
    at = begin(s3, bucket, ChecksumAlgorithm=algorithm, ChecksumType=kind)
    parts = []
    for number, body in enumerate(bodies, 1):
        part = s3.upload_part(**at, PartNumber=number, Body=body, ChecksumAlgorithm=algorithm)
        parts.append(
            {
                "PartNumber": number,
                "ETag": part["ETag"],
                f"Checksum{algorithm}": part[f"Checksum{algorithm}"],
            }
        )

    listed = s3.list_parts(**at)
    done = s3.complete_multipart_upload(**at, MultipartUpload={"Parts": parts})

    name = f"Checksum{algorithm}"
    compute = {
        "CRC32": lambda data: crt.crc32(data).to_bytes(4, "big"),
        "CRC32C": lambda data: crt.crc32c(data).to_bytes(4, "big"),
        "CRC64NVME": lambda data: crt.crc64nvme(data).to_bytes(8, "big"),
        "SHA256": lambda data: hashlib.sha256(data).digest(),
    }[algorithm]
    if kind == "FULL_OBJECT":
        want = b64encode(compute(b"".join(bodies))).decode()
    else:
        joined = b"".join(b64decode(part[name]) for part in parts)
        want = b64encode(compute(joined)).decode() + "-2"
    assert (listed["ChecksumAlgorithm"], listed["ChecksumType"]) == (algorithm, kind)
    assert [part[name] for part in listed["Parts"]] == [part[name] for part in parts]
    assert (done[name], done["ChecksumType"]) == (want, kind)
    head = s3.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert (head[name], head["ChecksumType"]) == (want, kind)
    attributes = s3.get_object_attributes(
        Bucket=bucket, Key="k", ObjectAttributes=["ObjectParts", "Checksum"], MaxParts=1
    )
    assert attributes["ObjectParts"]["TotalPartsCount"] == 2
    assert attributes["ObjectParts"]["Parts"][0][name] == parts[0][name]


def test_a_part_with_another_checksum_is_refused(s3: Any, bucket: str) -> None:
    at = begin(s3, bucket, ChecksumAlgorithm="SHA256")

    assert code(s3.upload_part, **at, PartNumber=1, Body=b"x", ChecksumAlgorithm="CRC32C") == (
        400,
        "InvalidRequest",
    )
    assert code(
        s3.create_multipart_upload,
        Bucket=bucket,
        Key="k",
        ChecksumAlgorithm="SHA1",
        ChecksumType="FULL_OBJECT",
    ) == (400, "InvalidRequest")


def test_a_wrong_completion_changes_nothing(s3: Any, bucket: str) -> None:
    at = begin(s3, bucket)
    small = s3.upload_part(**at, PartNumber=1, Body=b"a")["ETag"]
    last = s3.upload_part(**at, PartNumber=2, Body=b"b")["ETag"]

    def complete(*parts: tuple[int, str], **arguments: Any) -> tuple[int, str]:
        return code(
            s3.complete_multipart_upload,
            **at,
            MultipartUpload={"Parts": [{"PartNumber": n, "ETag": e} for n, e in parts]},
            **arguments,
        )

    assert complete((1, small), (2, last)) == (400, "EntityTooSmall")
    assert complete((2, last), (1, small)) == (400, "InvalidPartOrder")
    assert complete((1, small), (3, last)) == (400, "InvalidPart")
    assert complete((1, last)) == (400, "InvalidPart")
    assert complete((1, small), MpuObjectSize=2) == (400, "InvalidRequest")
    assert complete((1, small), ChecksumCRC64NVME="AAAAAAAAAAA=") == (400, "BadDigest")
    assert complete() == (400, "MalformedXML")
    assert complete((1, small), IfMatch='"x"') == (404, "NoSuchKey")
    assert code(s3.head_object, Bucket=bucket, Key="k")[0] == 404
    s3.complete_multipart_upload(
        **at,
        MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": small}]},
        IfNoneMatch="*",
        MpuObjectSize=1,
    )
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"a"


def test_parts_are_replaced_listed_and_aborted(s3: Any, bucket: str) -> None:
    at = begin(s3, bucket)
    s3.upload_part(**at, PartNumber=2, Body=b"old")
    for number in (1, 2, 7):
        s3.upload_part(**at, PartNumber=number, Body=b"x" * number)

    pages = s3.get_paginator("list_parts").paginate(**at, PaginationConfig={"PageSize": 1})
    parts = [part for page in pages for part in page.get("Parts", [])]

    assert [(part["PartNumber"], part["Size"]) for part in parts] == [(1, 1), (2, 2), (7, 7)]
    s3.abort_multipart_upload(**at)
    assert code(s3.abort_multipart_upload, **at) == (404, "NoSuchUpload")
    assert code(s3.upload_part, **at, PartNumber=1, Body=b"") == (404, "NoSuchUpload")
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)


@pytest.mark.parametrize("number", [0, 10001])
def test_part_numbers_have_limits(s3: Any, bucket: str, number: int) -> None:
    at = begin(s3, bucket)

    assert code(s3.upload_part, **at, PartNumber=number, Body=b"") == (400, "InvalidArgument")


def test_uploads_are_listed_page_by_page(s3: Any, bucket: str) -> None:
    made = [
        (key, s3.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"])
        for key in ("a", "a", "b/1", "c")
    ]

    pages = s3.get_paginator("list_multipart_uploads").paginate(
        Bucket=bucket, PaginationConfig={"PageSize": 1}
    )
    rolled = s3.list_multipart_uploads(Bucket=bucket, Delimiter="/")

    assert [(one["Key"], one["UploadId"]) for page in pages for one in page["Uploads"]] == made
    assert [one["Prefix"] for one in rolled["CommonPrefixes"]] == ["b/"]
    assert rolled["Uploads"][0]["Initiator"]["ID"] == made_id("account:root")


@pytest.mark.parametrize("algorithm", [None, "CRC32", "CRC64NVME"])
def test_parts_are_copied_from_other_objects(s3: Any, bucket: str, algorithm: str | None) -> None:
    body = bytes(range(256)) * 24_000
    s3.put_object(Bucket=bucket, Key="source", Body=body)
    at = begin(s3, bucket, **({"ChecksumAlgorithm": algorithm} if algorithm else {}))
    source = {"Bucket": bucket, "Key": "source"}

    first = s3.upload_part_copy(
        **at, PartNumber=1, CopySource=source, CopySourceRange=f"bytes=100-{PART + 99}"
    )["CopyPartResult"]
    second = s3.upload_part_copy(**at, PartNumber=2, CopySource=source)["CopyPartResult"]
    s3.complete_multipart_upload(
        **at,
        MultipartUpload={
            "Parts": [
                {"PartNumber": 1, "ETag": first["ETag"]},
                {"PartNumber": 2, "ETag": second["ETag"]},
            ]
        },
    )

    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == body[100 : PART + 100] + body
    if algorithm == "CRC64NVME":
        head = s3.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
        whole = crt.crc64nvme(body[100 : PART + 100] + body).to_bytes(8, "big")
        assert head["ChecksumCRC64NVME"] == b64encode(whole).decode()


@pytest.mark.parametrize("range_", ["bytes=0-10", "bytes=5-", "bytes=-5", "0-1", "bytes=3-2"])
def test_a_copied_range_must_be_complete_and_inside(s3: Any, bucket: str, range_: str) -> None:
    s3.put_object(Bucket=bucket, Key="source", Body=b"0123456789")
    at = begin(s3, bucket)

    assert code(
        s3.upload_part_copy,
        **at,
        PartNumber=1,
        CopySource=f"{bucket}/source",
        CopySourceRange=range_,
    ) == (400, "InvalidArgument")


def test_a_completion_says_the_objects_checksum_not_its_own(s3: Any, bucket: str) -> None:
    content = b"A" * 1024
    digest = sha256(content).digest()
    composite = f"{b64encode(sha256(digest).digest()).decode()}-1"

    def complete(**more: str) -> Any:
        upload = s3.create_multipart_upload(Bucket=bucket, Key="k", ChecksumAlgorithm="SHA256")
        named = {"Bucket": bucket, "Key": "k", "UploadId": upload["UploadId"]}
        part = s3.upload_part(**named, PartNumber=1, Body=content, ChecksumAlgorithm="SHA256")
        parts = [{"PartNumber": 1, "ETag": part["ETag"], "ChecksumSHA256": part["ChecksumSHA256"]}]
        return s3.complete_multipart_upload(**named, MultipartUpload={"Parts": parts}, **more)

    for given in (composite, composite.removesuffix("-1")):
        assert complete(ChecksumSHA256=given)["ChecksumSHA256"] == composite
    assert code(complete, ChecksumSHA256="bad") == (400, "InvalidRequest")
    assert code(complete, ChecksumSHA256=b64encode(digest).decode()) == (400, "BadDigest")


def test_a_completion_without_parts_is_malformed(s3: Any, bucket: str) -> None:
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]

    wrong = code(s3.complete_multipart_upload, Bucket=bucket, Key="k", UploadId=upload)

    assert wrong == (400, "MalformedXML")
