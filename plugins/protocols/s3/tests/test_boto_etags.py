"""ETags that are no MD5: what clients see of them."""

import base64
import hashlib
import os
import re
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

OPAQUE = re.compile(r'"[0-9a-f]{32}-0"')


@pytest.fixture
def opaque(serve: Callable[..., Any], connect: Callable[..., Any]) -> Any:
    s3 = connect(serve(etags="opaque").url)
    s3.create_bucket(Bucket="opaque")
    return s3


@pytest.mark.parametrize("size", [0, 1000, 300_000])
def test_an_opaque_etag_is_new_with_each_write(opaque: Any, size: int) -> None:
    content = os.urandom(size)
    first = opaque.put_object(Bucket="opaque", Key="k", Body=content)["ETag"]
    second = opaque.put_object(Bucket="opaque", Key="k", Body=content)["ETag"]

    assert first != second
    assert OPAQUE.fullmatch(first)
    found = opaque.get_object(Bucket="opaque", Key="k")
    assert (found["ETag"], found["Body"].read()) == (second, content)
    assert opaque.head_object(Bucket="opaque", Key="k")["ETag"] == second
    assert opaque.list_objects_v2(Bucket="opaque")["Contents"][0]["ETag"] == second


def test_conditions_hold_for_opaque_etags(opaque: Any) -> None:
    first = opaque.put_object(Bucket="opaque", Key="k", Body=b"1")["ETag"]
    second = opaque.put_object(Bucket="opaque", Key="k", Body=b"2", IfMatch=first)["ETag"]
    with pytest.raises(ClientError, match="PreconditionFailed"):
        opaque.put_object(Bucket="opaque", Key="k", Body=b"3", IfMatch=first)
    with pytest.raises(ClientError, match="304"):
        opaque.get_object(Bucket="opaque", Key="k", IfNoneMatch=second)

    copied = opaque.copy_object(Bucket="opaque", Key="c", CopySource="opaque/k")
    assert copied["CopyObjectResult"]["ETag"] == second


def test_an_md5_that_the_client_sends_is_checked_and_is_the_etag(opaque: Any) -> None:
    md5 = hashlib.md5(b"content", usedforsecurity=False)
    said = base64.b64encode(md5.digest()).decode()
    made = opaque.put_object(Bucket="opaque", Key="k", Body=b"content", ContentMD5=said)

    assert made["ETag"] == f'"{md5.hexdigest()}"'
    with pytest.raises(ClientError, match="BadDigest"):
        opaque.put_object(Bucket="opaque", Key="k", Body=b"another", ContentMD5=said)


def test_parts_with_opaque_etags_are_joined(opaque: Any) -> None:
    upload = opaque.create_multipart_upload(Bucket="opaque", Key="k")["UploadId"]
    named = {"Bucket": "opaque", "Key": "k", "UploadId": upload}
    contents = [os.urandom(5 << 20), b"the end"]
    parts = [
        {"PartNumber": n, "ETag": opaque.upload_part(PartNumber=n, Body=body, **named)["ETag"]}
        for n, body in enumerate(contents, 1)
    ]
    done = opaque.complete_multipart_upload(MultipartUpload={"Parts": parts}, **named)

    assert all(OPAQUE.fullmatch(part["ETag"]) for part in parts)
    assert re.fullmatch('"[0-9a-f]{32}-2"', done["ETag"])
    content = opaque.get_object(Bucket="opaque", Key="k")["Body"].read()
    assert (len(content), content[-7:]) == ((5 << 20) + 7, b"the end")
