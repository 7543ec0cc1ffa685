"""Server-side encryption as boto3 sees it: three forms on every verb, defaults of buckets, and S3's errors."""

import asyncio
import hashlib
import itertools
import json
import os
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from warp_core.views import Objects

pytestmark = pytest.mark.workspace

A, B = bytes(range(32)), bytes(range(32, 64))
PART = 5 * 1024 * 1024

PLAIN: dict[str, Any] = {}
SSE_S3: dict[str, Any] = {"ServerSideEncryption": "AES256"}
SSE_KMS: dict[str, Any] = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "one"}
SSE_KMS_TWO: dict[str, Any] = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "two"}
FORMS = ["plain", "s3", "kms", "customer"]


def customer(key: bytes, prefix: str = "") -> dict[str, Any]:
    return {f"{prefix}SSECustomerAlgorithm": "AES256", f"{prefix}SSECustomerKey": key}


def form(name: str, key: bytes = A) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what a write and what a read says."""
    return {
        "plain": (PLAIN, PLAIN),
        "s3": (SSE_S3, PLAIN),
        "kms": (SSE_KMS, PLAIN),
        "customer": (customer(key), customer(key)),
    }[name]


def source(name: str, key: bytes = A) -> dict[str, Any]:
    return customer(key, "CopySource") if name == "customer" else {}


@pytest.fixture(scope="module")
def sealed(serving: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A server whose namespace has ciphers and a key service."""
    folder = tmp_path_factory.mktemp("sealed")

    @asynccontextmanager
    async def view() -> AsyncIterator[Objects]:
        from warp_aead.filter import Aead
        from warp_core.containers import Containers, StoreSlot
        from warp_core.contexts import AuthContext
        from warp_core.namespace.namespace import Namespace
        from warp_core.namespace.objects import NamespaceObjects
        from warp_core.namespace.sealing import Sealer
        from warp_fixed.chunker import Fixed
        from warp_kms.config import Config
        from warp_kms.service import LocalKeys
        from warp_meta_memory.engine import Memory as MemoryMeta
        from warp_store_memory import Memory as MemoryStore

        def codec(name: str) -> Any:
            return Fixed(8 * 1024 * 1024) if name.startswith("fixed:") else Aead(name)

        async with (
            MemoryMeta() as meta,
            MemoryStore() as store,
            Containers([StoreSlot("m", store)], codec=codec) as containers,
            LocalKeys(
                Config(keys=("one", "two", "off")), AuthContext(folder, meta, ("R", "s"))
            ) as keys,
        ):
            await keys.enable_key("off", enabled=False)
            sealer = Sealer(containers.keyring, keys)
            yield NamespaceObjects(Namespace(meta, containers, sealer=sealer))
            assert len(containers.keyring) == 0, "a key was kept after its last use"

    running = serving(folder, view)
    yield running
    running.stop()


@pytest.fixture
def s3(sealed: Any, connect: Callable[..., Any]) -> Any:
    return connect(sealed.url)


@pytest.fixture
def bucket(s3: Any, request: pytest.FixtureRequest) -> str:
    name = f"bucket-{abs(hash(request.node.name)):x}"
    s3.create_bucket(Bucket=name)
    return name


def code(call: Callable[..., Any], **arguments: Any) -> tuple[int, str]:
    from botocore.exceptions import ClientError

    with pytest.raises(ClientError) as caught:
        call(**arguments)
    answer = caught.value.response
    return answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"]


def same(found: bytes, wanted: bytes) -> bool:
    return hashlib.sha256(found).digest() == hashlib.sha256(wanted).digest()


def raw(s3: Any, operation: str, headers: dict[str, str], **arguments: Any) -> Any:
    """Call with headers that boto3 would not send."""
    event = f"before-call.s3.{operation}"

    def add(params: dict[str, Any], **_: Any) -> None:
        params["headers"].update(headers)

    s3.meta.events.register(event, add)
    try:
        method = {"PutObject": s3.put_object, "GetObject": s3.get_object}
        method |= {"HeadObject": s3.head_object, "UploadPart": s3.upload_part}
        return method[operation](**arguments)
    finally:
        s3.meta.events.unregister(event, add)


# Objects ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("size", [0, 1, 13, 1000, 65_536, 65_537, 1024 * 1024, 3_000_000])
def test_what_is_put_is_got(s3: Any, bucket: str, name: str, size: int) -> None:
    write, read = form(name)
    data = os.urandom(size)
    put = s3.put_object(Bucket=bucket, Key="k", Body=data, **write)
    got = s3.get_object(Bucket=bucket, Key="k", **read)
    head = s3.head_object(Bucket=bucket, Key="k", **read)

    assert same(got["Body"].read(), data)
    assert head["ContentLength"] == size
    assert put["ETag"] == got["ETag"] == head["ETag"]
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
    assert (put["ETag"] == f'"{md5}"') == (name in ("plain", "s3"))


@pytest.mark.parametrize("name", FORMS)
def test_ranges_are_the_contents(s3: Any, bucket: str, name: str) -> None:
    write, read = form(name)
    data = os.urandom(300_000)
    s3.put_object(Bucket=bucket, Key="k", Body=data, **write)
    for first, last in ((0, 0), (1, 100), (65_535, 65_536), (70_000, 250_000), (299_999, 299_999)):
        got = s3.get_object(Bucket=bucket, Key="k", Range=f"bytes={first}-{last}", **read)
        assert same(got["Body"].read(), data[first : last + 1])
        assert got["ResponseMetadata"]["HTTPStatusCode"] == 206


@pytest.mark.parametrize(
    ("write", "told"),
    [
        (SSE_S3, {"ServerSideEncryption": "AES256"}),
        (SSE_KMS, {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "one"}),
        (
            SSE_KMS | {"BucketKeyEnabled": True},
            {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "one", "BucketKeyEnabled": True},
        ),
        (
            {"ServerSideEncryption": "aws:kms:dsse", "SSEKMSKeyId": "two"},
            {"ServerSideEncryption": "aws:kms:dsse", "SSEKMSKeyId": "two"},
        ),
        (
            {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "arn:aws:kms:x:1:key/one"},
            {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "arn:aws:kms:x:1:key/one"},
        ),
    ],
)
def test_every_verb_tells_how_content_is_encrypted(
    s3: Any, bucket: str, write: dict[str, Any], told: dict[str, Any]
) -> None:
    answers = [
        s3.put_object(Bucket=bucket, Key="k", Body=b"x", **write),
        s3.get_object(Bucket=bucket, Key="k"),
        s3.head_object(Bucket=bucket, Key="k"),
        s3.copy_object(Bucket=bucket, Key="c", CopySource=f"{bucket}/k", **write),
        upload := s3.create_multipart_upload(Bucket=bucket, Key="m", **write),
    ]
    more = {"Bucket": bucket, "Key": "m", "UploadId": upload["UploadId"]}
    part = s3.upload_part(PartNumber=1, Body=b"x", **more)
    copied = s3.upload_part_copy(PartNumber=2, CopySource=f"{bucket}/k", **more)
    parts = [{"PartNumber": 1, "ETag": part["ETag"]}]
    answers += [
        part,
        copied,
        s3.complete_multipart_upload(MultipartUpload={"Parts": parts}, **more),
        s3.get_object(Bucket=bucket, Key="m"),
    ]
    for answer in answers:
        found = {
            name: answer[name]
            for name in ("ServerSideEncryption", "SSEKMSKeyId", "BucketKeyEnabled")
            if name in answer
        }
        assert found == told


def test_a_customers_key_is_told_by_its_digest(s3: Any, bucket: str) -> None:
    md5 = b64encode(hashlib.md5(A, usedforsecurity=False).digest()).decode()
    for answer in (
        s3.put_object(Bucket=bucket, Key="k", Body=b"x", **customer(A)),
        s3.get_object(Bucket=bucket, Key="k", **customer(A)),
        s3.head_object(Bucket=bucket, Key="k", **customer(A)),
        s3.get_object(Bucket=bucket, Key="k", Range="bytes=0-0", **customer(A)),
        s3.copy_object(
            Bucket=bucket,
            Key="c",
            CopySource=f"{bucket}/k",
            **customer(A),
            **customer(A, "CopySource"),
        ),
        s3.create_multipart_upload(Bucket=bucket, Key="m", **customer(A)),
    ):
        assert answer["SSECustomerAlgorithm"] == "AES256"
        assert answer["SSECustomerKeyMD5"] == md5


def test_the_key_that_nobody_names_has_an_arn(s3: Any, bucket: str) -> None:
    put = s3.put_object(Bucket=bucket, Key="k", Body=b"x", ServerSideEncryption="aws:kms")
    got = s3.get_object(Bucket=bucket, Key="k")

    assert put["SSEKMSKeyId"] == got["SSEKMSKeyId"]
    assert put["SSEKMSKeyId"].startswith("arn:aws:kms:us-east-1:")
    assert put["SSEKMSKeyId"].endswith(":key/default")


def test_an_encryption_context_comes_back_with_the_write(s3: Any, bucket: str) -> None:
    context = b64encode(b'{"team":"a"}').decode()
    put = s3.put_object(
        Bucket=bucket, Key="k", Body=b"x", SSEKMSEncryptionContext=context, **SSE_KMS
    )

    assert put["SSEKMSEncryptionContext"] == context
    wrong = {"Bucket": bucket, "Key": "k", **SSE_KMS}
    for bad in ("{}", b64encode(b"[1]").decode(), b64encode(b'{"a":1}').decode()):
        assert code(s3.put_object, SSEKMSEncryptionContext=bad, **wrong) == (400, "InvalidArgument")


# What is refused ----------------------------------------------------------------------------------


def test_a_customers_key_is_needed_to_read(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x" * 100, **customer(A))
    place = {"Bucket": bucket, "Key": "k"}
    attributes = {"ObjectAttributes": ["ETag"]}

    assert code(s3.get_object, **place) == (400, "InvalidRequest")
    assert code(s3.head_object, **place)[0] == 400
    assert code(s3.get_object_attributes, **place, **attributes) == (400, "InvalidRequest")
    assert code(s3.get_object, **place, **customer(B)) == (403, "AccessDenied")
    assert code(s3.head_object, **place, **customer(B))[0] == 403
    # boto3 encodes the key of every other verb.
    given = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": KEY, "SSECustomerKeyMD5": MD5}
    assert s3.get_object_attributes(**place, **attributes, **given)["ETag"]


@pytest.mark.parametrize("name", ["plain", "s3", "kms"])
def test_a_key_where_none_belongs_is_refused(s3: Any, bucket: str, name: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x" * 100, **form(name)[0])
    place = {"Bucket": bucket, "Key": "k"}

    assert code(s3.get_object, **place, **customer(B)) == (400, "InvalidRequest")
    assert code(s3.head_object, **place, **customer(B))[0] == 400


KEY = b64encode(A).decode()
MD5 = b64encode(hashlib.md5(A, usedforsecurity=False).digest()).decode()
SSE = "x-amz-server-side-encryption"


@pytest.mark.parametrize(
    ("headers", "answer"),
    [
        ({f"{SSE}-customer-key": KEY, f"{SSE}-customer-key-MD5": MD5}, "InvalidArgument"),
        (
            {f"{SSE}-customer-algorithm": "AES256", f"{SSE}-customer-key-MD5": MD5},
            "InvalidArgument",
        ),
        ({f"{SSE}-customer-algorithm": "AES256", f"{SSE}-customer-key": KEY}, "InvalidArgument"),
        (
            {
                f"{SSE}-customer-algorithm": "AES256",
                f"{SSE}-customer-key": KEY,
                f"{SSE}-customer-key-MD5": "AAAAAAAAAAAAAAAAAAAAAA==",
            },
            "InvalidArgument",
        ),
        (
            {
                f"{SSE}-customer-algorithm": "AES256",
                f"{SSE}-customer-key": "c2hvcnQ=",
                f"{SSE}-customer-key-MD5": MD5,
            },
            "InvalidArgument",
        ),
        (
            {
                f"{SSE}-customer-algorithm": "AES128",
                f"{SSE}-customer-key": KEY,
                f"{SSE}-customer-key-MD5": MD5,
            },
            "InvalidEncryptionAlgorithmError",
        ),
        (
            {
                SSE: "AES256",
                f"{SSE}-customer-algorithm": "AES256",
                f"{SSE}-customer-key": KEY,
                f"{SSE}-customer-key-MD5": MD5,
            },
            "InvalidArgument",
        ),
        ({SSE: "aes:kms"}, "InvalidArgument"),
        ({SSE: "aes256"}, "InvalidArgument"),
        ({SSE: "AES256", f"{SSE}-aws-kms-key-id": "one"}, "InvalidArgument"),
        ({f"{SSE}-aws-kms-key-id": "one"}, "InvalidArgument"),
        ({SSE: "aws:kms", f"{SSE}-aws-kms-key-id": "nobody"}, "KMS.NotFoundException"),
        ({SSE: "aws:kms", f"{SSE}-aws-kms-key-id": "off"}, "KMS.DisabledException"),
        ({SSE: "aws:kms", f"{SSE}-bucket-key-enabled": "maybe"}, "InvalidArgument"),
    ],
)
def test_half_a_wish_is_refused(s3: Any, bucket: str, headers: dict[str, str], answer: str) -> None:
    put = {"Bucket": bucket, "Key": "k", "Body": b"x"}

    assert code(lambda **more: raw(s3, "PutObject", headers, **more), **put) == (400, answer)
    assert code(s3.head_object, Bucket=bucket, Key="k")[0] == 404


def test_reads_say_nothing_of_the_servers_keys(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x" * 100, **SSE_KMS)
    place = {"Bucket": bucket, "Key": "k"}
    said = {SSE: "aws:kms", f"{SSE}-aws-kms-key-id": "one"}
    for operation in ("GetObject", "HeadObject"):
        assert code(lambda o=operation, **more: raw(s3, o, said, **more), **place)[0] == 400


def test_errors_do_not_repeat_a_key(s3: Any, bucket: str) -> None:
    from botocore.exceptions import ClientError

    almost = b64encode(A[:31]).decode()
    headers = {
        f"{SSE}-customer-algorithm": "AES256",
        f"{SSE}-customer-key": almost,
        f"{SSE}-customer-key-MD5": MD5,
    }
    with pytest.raises(ClientError) as caught:
        raw(s3, "PutObject", headers, Bucket=bucket, Key="k", Body=b"x")

    assert almost not in str(caught.value.response)


# Copies and parts ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("before", "after"), list(itertools.product(FORMS, FORMS)))
def test_copies_are_encrypted_as_they_say(s3: Any, bucket: str, before: str, after: str) -> None:
    data = os.urandom(200_000)
    s3.put_object(Bucket=bucket, Key="a", Body=data, Metadata={"m": "1"}, **form(before)[0])
    write, read = form(after, B)
    copied = s3.copy_object(
        Bucket=bucket, Key="b", CopySource=f"{bucket}/a", **write, **source(before)
    )
    got = s3.get_object(Bucket=bucket, Key="b", **read)

    assert same(got["Body"].read(), data)
    assert got["Metadata"] == {"m": "1"}
    assert got["ETag"] == copied["CopyObjectResult"]["ETag"]
    assert got.get("ServerSideEncryption") == write.get("ServerSideEncryption")
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
    assert (got["ETag"] == f'"{md5}"') == (after in ("plain", "s3"))


def test_a_copy_onto_itself_may_change_the_encryption(s3: Any, bucket: str) -> None:
    data = os.urandom(100_000)
    place = {"Bucket": bucket, "Key": "a", "CopySource": f"{bucket}/a"}
    s3.put_object(Bucket=bucket, Key="a", Body=data)
    assert code(s3.copy_object, **place) == (400, "InvalidRequest")
    s3.copy_object(**place, **customer(A))
    s3.copy_object(**place, **customer(B), **customer(A, "CopySource"))
    assert code(s3.get_object, Bucket=bucket, Key="a", **customer(A)) == (403, "AccessDenied")
    s3.copy_object(**place, **SSE_KMS, **customer(B, "CopySource"))

    assert same(s3.get_object(Bucket=bucket, Key="a")["Body"].read(), data)


def test_a_copy_needs_its_sources_key(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="a", Body=b"x", **customer(A))
    s3.put_object(Bucket=bucket, Key="p", Body=b"x")
    place = {"Bucket": bucket, "Key": "b"}
    there = {"CopySource": f"{bucket}/a"}

    assert code(s3.copy_object, **place, **there) == (400, "InvalidRequest")
    assert code(s3.copy_object, **place, **there, **customer(B, "CopySource")) == (
        403,
        "AccessDenied",
    )
    needless = {"CopySource": f"{bucket}/p", **customer(A, "CopySource")}
    assert code(s3.copy_object, **place, **needless) == (400, "InvalidRequest")


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("copied", FORMS)
def test_uploads_in_parts_are_encrypted_as_begun(
    s3: Any, bucket: str, name: str, copied: str
) -> None:
    write, read = form(name, B)
    of_parts = read
    other = os.urandom(100_000)
    s3.put_object(Bucket=bucket, Key="src", Body=other, **form(copied)[0])
    upload = s3.create_multipart_upload(Bucket=bucket, Key="m", **write)
    more = {"Bucket": bucket, "Key": "m", "UploadId": upload["UploadId"]}
    first = os.urandom(PART)
    parts = [s3.upload_part(PartNumber=1, Body=first, **more, **of_parts)["ETag"]]
    made = s3.upload_part_copy(
        PartNumber=2,
        CopySource=f"{bucket}/src",
        CopySourceRange="bytes=10-70009",
        **more,
        **of_parts,
        **source(copied),
    )
    parts.append(made["CopyPartResult"]["ETag"])
    listed = [{"PartNumber": at, "ETag": etag} for at, etag in enumerate(parts, 1)]
    s3.complete_multipart_upload(MultipartUpload={"Parts": listed}, **more)
    whole = first + other[10:70_010]
    got = s3.get_object(Bucket=bucket, Key="m", **read)

    assert same(got["Body"].read(), whole)
    assert got["ETag"].endswith('-2"')
    piece = s3.get_object(Bucket=bucket, Key="m", PartNumber=2, **read)
    assert same(piece["Body"].read(), whole[PART:])
    across = s3.get_object(Bucket=bucket, Key="m", Range=f"bytes={PART - 5}-{PART + 5}", **read)
    assert same(across["Body"].read(), whole[PART - 5 : PART + 6])


def test_parts_come_with_the_key_of_their_upload(s3: Any, bucket: str) -> None:
    upload = s3.create_multipart_upload(Bucket=bucket, Key="m", **customer(A))["UploadId"]
    part = {"Bucket": bucket, "Key": "m", "UploadId": upload, "PartNumber": 1, "Body": b"x"}

    assert code(s3.upload_part, **part) == (400, "InvalidRequest")
    assert code(s3.upload_part, **part, **customer(B)) == (400, "InvalidArgument")
    plain = s3.create_multipart_upload(Bucket=bucket, Key="m")["UploadId"]
    needless = {**part, "UploadId": plain, **customer(A)}
    assert code(s3.upload_part, **needless) == (400, "InvalidRequest")
    assert s3.upload_part(**part, **customer(A))["SSECustomerAlgorithm"] == "AES256"


def test_parts_may_repeat_how_their_upload_was_begun(s3: Any, bucket: str) -> None:
    said = {SSE: "aws:kms", f"{SSE}-aws-kms-key-id": "two"}
    for wish, expected in ((SSE_KMS, True), (PLAIN, False), (customer(A), False)):
        upload = s3.create_multipart_upload(Bucket=bucket, Key="m", **wish)["UploadId"]
        part = {"Bucket": bucket, "Key": "m", "UploadId": upload, "PartNumber": 1, "Body": b"x"}
        if expected:
            assert raw(s3, "UploadPart", said, **part)["SSEKMSKeyId"] == "one"
        else:
            answer = code(lambda **more: raw(s3, "UploadPart", said, **more), **part)
            assert answer == (400, "InvalidArgument")


# Buckets ------------------------------------------------------------------------------------------


def rule(algorithm: str, key: str = "", **more: Any) -> dict[str, Any]:
    applied = {"SSEAlgorithm": algorithm} | ({"KMSMasterKeyID": key} if key else {})
    return {"Rules": [{"ApplyServerSideEncryptionByDefault": applied, **more}]}


def test_a_default_applies_where_nothing_is_said(s3: Any, bucket: str) -> None:
    unset = (404, "ServerSideEncryptionConfigurationNotFoundError")
    assert code(s3.get_bucket_encryption, Bucket=bucket) == unset
    wanted = rule("aws:kms", "two", BucketKeyEnabled=True)
    s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration=wanted)
    got = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]

    assert got == wanted
    put = s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    copied = s3.copy_object(Bucket=bucket, Key="c", CopySource=f"{bucket}/k")
    upload = s3.create_multipart_upload(Bucket=bucket, Key="m")
    for answer in (put, copied, upload, s3.head_object(Bucket=bucket, Key="k")):
        assert answer["SSEKMSKeyId"] == "two"
        assert answer["BucketKeyEnabled"]
    said = s3.put_object(Bucket=bucket, Key="k", Body=b"x", **SSE_S3)
    assert (said["ServerSideEncryption"], "SSEKMSKeyId" in said) == ("AES256", False)
    own = s3.put_object(Bucket=bucket, Key="k", Body=b"x", **customer(A))
    assert "ServerSideEncryption" not in own
    s3.delete_bucket_encryption(Bucket=bucket)
    s3.delete_bucket_encryption(Bucket=bucket)
    assert code(s3.get_bucket_encryption, Bucket=bucket) == unset
    assert "ServerSideEncryption" not in s3.put_object(Bucket=bucket, Key="k", Body=b"x")


def test_a_default_of_s3s_own_keys(s3: Any, bucket: str) -> None:
    s3.put_bucket_encryption(
        Bucket=bucket, ServerSideEncryptionConfiguration=rule("AES256", BucketKeyEnabled=False)
    )
    data = os.urandom(70_000)
    put = s3.put_object(Bucket=bucket, Key="k", Body=data)

    assert put["ServerSideEncryption"] == "AES256"
    assert same(s3.get_object(Bucket=bucket, Key="k")["Body"].read(), data)


@pytest.mark.parametrize(
    ("wanted", "answer"),
    [
        (rule("ROT13"), (400, "MalformedXML")),
        (rule("AES256", "one"), (400, "InvalidArgument")),
        ({"Rules": []}, (400, "MalformedXML")),
        ({"Rules": [*rule("AES256")["Rules"], *rule("AES256")["Rules"]]}, (400, "MalformedXML")),
    ],
)
def test_a_default_that_cannot_be_meant_is_refused(
    s3: Any, bucket: str, wanted: dict[str, Any], answer: tuple[int, str]
) -> None:
    call = {"Bucket": bucket, "ServerSideEncryptionConfiguration": wanted}

    assert code(s3.put_bucket_encryption, **call) == answer


def test_a_default_key_that_is_not_there_fails_the_write(s3: Any, bucket: str) -> None:
    s3.put_bucket_encryption(
        Bucket=bucket, ServerSideEncryptionConfiguration=rule("aws:kms", "nobody")
    )

    assert code(s3.put_object, Bucket=bucket, Key="k", Body=b"x") == (400, "KMS.NotFoundException")


def test_no_bucket_no_default(s3: Any) -> None:
    assert code(s3.get_bucket_encryption, Bucket="no-such-bucket") == (404, "NoSuchBucket")


def test_a_policy_may_demand_encryption(
    sealed: Any, s3: Any, bucket: str, connect: Callable[..., Any]
) -> None:
    from botocore.exceptions import ClientError

    def deny(operator: str, key: str, value: str) -> dict[str, Any]:
        return {
            "Effect": "Deny",
            "Principal": "*",
            "Action": "s3:PutObject",
            "Resource": f"arn:aws:s3:::{bucket}/*",
            "Condition": {operator: {f"s3:{SSE}{key}": value}},
        }

    allow = {
        "Effect": "Allow",
        "Principal": "*",
        "Action": ["s3:PutObject", "s3:GetObject"],
        "Resource": f"arn:aws:s3:::{bucket}/*",
    }
    s3.delete_public_access_block(Bucket=bucket)
    alice = connect(sealed.url, sealed.alice)

    def allowed(**wish: Any) -> bool:
        try:
            alice.put_object(Bucket=bucket, Key="k", Body=b"x", **wish)
        except ClientError as error:
            return error.response["Error"]["Code"] != "AccessDenied"
        return True

    for denied, judged in (
        (deny("Null", "", "true"), [(PLAIN, False), (SSE_S3, True), (SSE_KMS, True)]),
        (
            deny("StringNotEquals", "", "AES256"),
            [(PLAIN, False), (SSE_S3, True), (SSE_KMS, False)],
        ),
        (
            deny("StringNotEqualsIfExists", "-aws-kms-key-id", "two"),
            [(SSE_S3, False), (SSE_KMS, False), (SSE_KMS_TWO, True)],
        ),
        (deny("Null", "-customer-algorithm", "true"), [(SSE_S3, False), (customer(A), True)]),
    ):
        policy = json.dumps({"Version": "2012-10-17", "Statement": [allow, denied]})
        s3.put_bucket_policy(Bucket=bucket, Policy=policy)
        for wish, expected in judged:
            assert allowed(**wish) == expected, (denied["Condition"], wish)


def test_forms_are_encrypted_as_they_say(sealed: Any, s3: Any, bucket: str) -> None:
    from urllib.request import Request, urlopen

    fields = {
        f"{SSE}-customer-algorithm": "AES256",
        f"{SSE}-customer-key": KEY,
        f"{SSE}-customer-key-MD5": MD5,
    }
    for said, read in ((fields, customer(A)), ({SSE: "AES256"}, PLAIN)):
        post = s3.generate_presigned_post(
            bucket, "k", Fields=said, Conditions=[{name: value} for name, value in said.items()]
        )
        lines = b"".join(
            f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
            for name, value in post["fields"].items()
        )
        body = (
            lines + b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
            b"posted\r\n--b--\r\n"
        )
        kind = {"Content-Type": "multipart/form-data; boundary=b"}
        with urlopen(Request(post["url"], body, kind)) as answer:
            assert answer.status == 204

        assert s3.get_object(Bucket=bucket, Key="k", **read)["Body"].read() == b"posted"
    assert s3.head_object(Bucket=bucket, Key="k")["ServerSideEncryption"] == "AES256"


# Options ------------------------------------------------------------------------------------------


def test_keys_may_be_kept_from_plain_connections(
    serve: Callable[..., Any], connect: Callable[..., Any]
) -> None:
    s3 = connect(serve(sse_c_needs_tls=True).url)
    s3.create_bucket(Bucket="needs-tls")
    place = {"Bucket": "needs-tls", "Key": "k"}

    assert code(s3.put_object, **place, **customer(A)) == (400, "InvalidRequest")
    assert code(s3.get_object, **place, **customer(A)) == (400, "InvalidRequest")


def test_a_server_may_encrypt_by_default(
    serve: Callable[..., Any], connect: Callable[..., Any]
) -> None:
    s3 = connect(serve(default_encryption="AES256").url)
    s3.create_bucket(Bucket="by-default")
    rules = s3.get_bucket_encryption(Bucket="by-default")["ServerSideEncryptionConfiguration"]

    assert rules == rule("AES256", BucketKeyEnabled=False)


def test_without_a_key_service_encryption_is_refused_instead_of_ignored(
    serve: Callable[..., Any], connect: Callable[..., Any]
) -> None:
    s3 = connect(serve().url)
    s3.create_bucket(Bucket="no-keys")
    put = {"Bucket": "no-keys", "Key": "k", "Body": b"x"}

    assert code(s3.put_object, **put, **SSE_S3) == (501, "NotImplemented")


def test_a_bucket_may_block_customers_keys(sealed: Any, s3: Any, bucket: str) -> None:
    from warp_s3.encryption import default_of, from_xml, to_xml

    body = (
        b"<ServerSideEncryptionConfiguration><Rule><ApplyServerSideEncryptionByDefault>"
        b"<SSEAlgorithm>AES256</SSEAlgorithm></ApplyServerSideEncryptionByDefault>"
        b"<BlockedEncryptionTypes><EncryptionType>SSE-C</EncryptionType></BlockedEncryptionTypes>"
        b"</Rule></ServerSideEncryptionConfiguration>"
    )
    kept = from_xml(body)
    default = default_of({"s3.encryption": kept}, "")
    assert default.blocked == ("SSE-C",)
    assert "<EncryptionType>SSE-C</EncryptionType>" in to_xml(default)
    change = sealed.objects.set_document(bucket, "s3.encryption", kept)
    asyncio.run_coroutine_threadsafe(change, sealed.loop).result()
    put = {"Bucket": bucket, "Key": "k", "Body": b"x"}

    assert code(s3.put_object, **put, **customer(A)) == (403, "AccessDenied")
    assert s3.put_object(**put)["ServerSideEncryption"] == "AES256"
