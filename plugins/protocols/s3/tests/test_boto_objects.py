"""Objects as boto3 sees them."""

import hashlib
from typing import Any

import pytest
from botocore.exceptions import ClientError


def code(error: pytest.ExceptionInfo[ClientError]) -> tuple[int, str]:
    response = error.value.response
    return response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"]


@pytest.mark.parametrize("size", [0, 1, 4096, 65535, 65536, 65537, 3_000_000])
def test_what_is_put_comes_back(s3: Any, bucket: str, size: int) -> None:
    body = bytes(range(256)) * (size // 256 + 1)
    body = body[:size]

    put = s3.put_object(
        Bucket=bucket, Key="k", Body=body, Metadata={"a": "b"}, ContentType="text/x"
    )
    got = s3.get_object(Bucket=bucket, Key="k")

    assert got["Body"].read() == body
    assert put["ETag"] == got["ETag"] == f'"{hashlib.md5(body).hexdigest()}"'
    assert got["Metadata"] == {"a": "b"}
    assert got["ContentType"] == "text/x"
    assert got["ContentLength"] == size
