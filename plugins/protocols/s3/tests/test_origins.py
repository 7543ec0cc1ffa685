"""What the change feed learns of a request, in a bucket with notifications and in one without."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from warp_core.namespace import feed
from warp_core.namespace.rows import Event

pytestmark = pytest.mark.workspace

QUEUE = "arn:aws:sqs:us-east-1:123456789012:queue"


def events(running: Any, bucket: str) -> list[Event]:
    async def read() -> list[Event]:
        return (await feed.read(running.objects._namespace, bucket, feed.START)).events

    return asyncio.run_coroutine_threadsafe(read(), running.loop).result(20)


@pytest.mark.parametrize("told", [True, False])
def test_the_feed_knows_who_asked_where_somebody_wants_to_know(
    running_namespace: Any, connect: Any, told: bool
) -> None:
    s3 = connect(running_namespace.url)
    s3.create_bucket(Bucket="origins")
    if told:
        said = {"QueueConfigurations": [{"QueueArn": QUEUE, "Events": ["s3:ObjectCreated:*"]}]}
        s3.put_bucket_notification_configuration(Bucket="origins", NotificationConfiguration=said)
    place = {"Bucket": "origins", "Key": "a"}
    answers = [
        s3.put_object(**place, Body=b"small"),
        s3.put_object(**place, Body=b"x" * 100_000),
        s3.copy_object(Bucket="origins", Key="b", CopySource="origins/a"),
        s3.put_object_tagging(**place, Tagging={"TagSet": [{"Key": "k", "Value": "v"}]}),
        s3.delete_object_tagging(**place),
    ]
    upload = s3.create_multipart_upload(**place)["UploadId"]
    part = s3.upload_part(**place, UploadId=upload, PartNumber=1, Body=b"part")
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    answers += [
        s3.complete_multipart_upload(**place, UploadId=upload, MultipartUpload=parts),
        s3.delete_object(**place),
        s3.delete_objects(Bucket="origins", Delete={"Objects": [{"Key": "b"}]}),
    ]
    found = events(running_namespace, "origins")

    verbs = ["put", "put", "copy", "tags", "untags", "complete", "delete", "delete"]
    assert [each.verb for each in found] == verbs
    if not told:
        assert {each.origin for each in found} == {None}
        return
    origins = [each.origin for each in found]
    requests = [each["ResponseMetadata"]["RequestId"] for each in answers]
    assert [each.request for each in origins if each is not None] == requests
    assert {(each.actor, each.address) for each in origins if each is not None} == {
        ("account:root", "127.0.0.1")
    }
    assert [each.via for each in origins if each is not None and each.via] == ["copy"]
