"""Requests signed by version 2, as boto3 makes them for old endpoints."""

import urllib.request
from typing import Any
from urllib.error import HTTPError

import pytest
from botocore.exceptions import ClientError

CONTENT = b"content" * 20_000


def test_an_old_client_works(shared: Any, connect: Any) -> None:
    old = connect(shared.url, signature_version="s3")
    old.create_bucket(Bucket="signed-by-v2")
    old.put_object(Bucket="signed-by-v2", Key="a b/ä", Body=CONTENT, Metadata={"m": "x"})
    found = old.get_object(Bucket="signed-by-v2", Key="a b/ä", ResponseContentType="x/y")
    assert (found["Metadata"], found["ContentType"]) == ({"m": "x"}, "x/y")
    assert found["Body"].read() == CONTENT
    old.put_object_tagging(
        Bucket="signed-by-v2", Key="a b/ä", Tagging={"TagSet": [{"Key": "k", "Value": "v"}]}
    )
    assert [one["Key"] for one in old.list_objects_v2(Bucket="signed-by-v2")["Contents"]] == [
        "a b/ä"
    ]
    old.delete_objects(Bucket="signed-by-v2", Delete={"Objects": [{"Key": "a b/ä"}]})
    old.delete_bucket(Bucket="signed-by-v2")


def test_an_old_presigned_url_works(shared: Any, connect: Any, bucket: str) -> None:
    old = connect(shared.url, signature_version="s3")
    named = {"Bucket": bucket, "Key": "k"}
    url = old.generate_presigned_url("put_object", Params={**named, "ACL": "private"})
    put = urllib.request.Request(url, data=b"x", method="PUT", headers={"x-amz-acl": "private"})
    put.add_header("Content-Type", "")
    with urllib.request.urlopen(put) as answer:
        assert answer.status == 200
    url = old.generate_presigned_url("get_object", Params=named)
    with urllib.request.urlopen(url) as answer:
        assert answer.read() == b"x"
    with pytest.raises(HTTPError) as caught:
        urllib.request.urlopen(url.replace("Signature=", "Signature=A"))
    assert caught.value.code == 403


def test_an_operator_can_do_without(serve: Any, connect: Any) -> None:
    old = connect(serve(signature_v2=False).url, signature_version="s3")

    with pytest.raises(ClientError, match="mechanism you have provided is not supported"):
        old.list_buckets()
