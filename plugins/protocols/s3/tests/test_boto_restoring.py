"""RestoreObject as boto3 sees it; AWS's documentation of GLACIER and DEEP_ARCHIVE is the measure."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from warp_core.views.objects import Objects

pytestmark = pytest.mark.workspace

DATA = b"frozen " * 50_000
DAYS = {"Days": 2, "GlacierJobParameters": {"Tier": "Standard"}}


class Icy:
    """A server whose classes GLACIER and DEEP_ARCHIVE are archives, on a store of their own."""

    def __init__(self, serving: Any, folder: Any) -> None:
        self.namespace: Any = None
        self.running = serving(folder, self.view)

    @asynccontextmanager
    async def view(self) -> AsyncIterator[Objects]:
        from warp_core.containers import Containers, StoreSlot
        from warp_core.containers.policy import Place
        from warp_core.lifecycle import DAY_NS
        from warp_core.namespace.namespace import Namespace
        from warp_core.namespace.objects import NamespaceObjects
        from warp_fixed.chunker import Fixed
        from warp_meta_memory.engine import Memory as MemoryMeta
        from warp_store_memory import Memory as MemoryStore

        classes = ["GLACIER", "DEEP_ARCHIVE"]
        async with MemoryMeta() as meta, MemoryStore() as near, MemoryStore() as far:
            slots = [StoreSlot("near", near), StoreSlot("far", far)]
            places = [Place(name, (slots[1],)) for name in classes]
            async with Containers(
                slots, codec=lambda name: Fixed(8 << 20), places=places
            ) as containers:
                self.namespace = Namespace(meta, containers, placed=classes, archives=classes)
                self.namespace.restores_day_ns = DAY_NS
                yield NamespaceObjects(self.namespace)

    def work(self, bucket: str) -> list[str]:
        """Do what is due in a bucket."""
        from warp_core.namespace import archives

        async def due() -> list[str]:
            volume = await self.namespace.volumes.get(bucket)
            return [
                await archives.do(self.namespace, bucket, task, None)
                for task in await archives.due(self.namespace, volume, 100)
            ]

        return asyncio.run_coroutine_threadsafe(due(), self.running.loop).result(30)


@pytest.fixture(scope="module")
def icy(serving: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Icy]:
    made = Icy(serving, tmp_path_factory.mktemp("icy"))
    yield made
    made.running.stop()


@pytest.fixture
def s3(icy: Icy, connect: Callable[..., Any]) -> Any:
    return connect(icy.running.url)


@pytest.fixture
def bucket(s3: Any, request: pytest.FixtureRequest) -> str:
    name = f"bucket-{abs(hash(request.node.name)):x}"
    s3.create_bucket(Bucket=name)
    return name


def refused(call: Callable[..., Any], **arguments: Any) -> tuple[int, str, dict[str, Any]]:
    from botocore.exceptions import ClientError

    with pytest.raises(ClientError) as caught:
        call(**arguments)
    answer = caught.value.response
    return answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"], answer["Error"]


def status(answer: Any) -> int:
    found: int = answer["ResponseMetadata"]["HTTPStatusCode"]
    return found


def test_an_archived_object_is_described_and_not_read(s3: Any, bucket: str) -> None:
    place = {"Bucket": bucket, "Key": "k"}
    s3.put_object(**place, Body=DATA, StorageClass="GLACIER")

    head = s3.head_object(**place)
    assert head["StorageClass"] == "GLACIER"
    assert "Restore" not in head
    assert head["ContentLength"] == len(DATA)
    assert refused(s3.get_object, **place)[:2] == (403, "InvalidObjectState")
    assert refused(s3.get_object, **place)[2]["StorageClass"] == "GLACIER"
    assert refused(s3.get_object, **place, Range="bytes=0-9")[1] == "InvalidObjectState"
    copy = {"Bucket": bucket, "Key": "copy", "CopySource": place}
    assert refused(s3.copy_object, **copy)[:2] == (403, "InvalidObjectState")
    warmer = refused(s3.copy_object, **{**copy, "Key": "k"}, StorageClass="STANDARD")
    assert warmer[1] == "InvalidObjectState"
    upload = s3.create_multipart_upload(Bucket=bucket, Key="parts")["UploadId"]
    part = refused(s3.upload_part_copy, **{**copy, "Key": "parts"}, PartNumber=1, UploadId=upload)
    assert part[1] == "InvalidObjectState"
    attributes = s3.get_object_attributes(**place, ObjectAttributes=["StorageClass", "ObjectSize"])
    assert (attributes["StorageClass"], attributes["ObjectSize"]) == ("GLACIER", len(DATA))


def test_restoring_answers_202_then_409_then_200(icy: Icy, s3: Any, bucket: str) -> None:
    place = {"Bucket": bucket, "Key": "k"}
    etag = s3.put_object(**place, Body=DATA, StorageClass="DEEP_ARCHIVE")["ETag"]

    assert status(s3.restore_object(**place, RestoreRequest=DAYS)) == 202
    assert s3.head_object(**place)["Restore"] == 'ongoing-request="true"'
    again = refused(s3.restore_object, **place, RestoreRequest=DAYS)
    assert again[:2] == (409, "RestoreAlreadyInProgress")
    assert refused(s3.get_object, **place)[1] == "InvalidObjectState"
    assert icy.work(bucket) == ["restored"]

    found = s3.get_object(**place)
    assert found["Body"].read() == DATA
    assert (found["ETag"], found["StorageClass"]) == (etag, "DEEP_ARCHIVE")
    first = s3.head_object(**place)["Restore"]
    assert first.startswith('ongoing-request="false", expiry-date="')
    assert first.endswith(' 00:00:00 GMT"')
    longer = {"Days": 9, "GlacierJobParameters": {"Tier": "Bulk"}}
    assert status(s3.restore_object(**place, RestoreRequest=longer)) == 200
    assert s3.head_object(**place)["Restore"] != first
    s3.copy_object(Bucket=bucket, Key="warm", CopySource=place, StorageClass="STANDARD")
    assert s3.get_object(Bucket=bucket, Key="warm")["Body"].read() == DATA


def test_listings_tell_what_was_restored_where_that_is_asked_for(
    icy: Icy, s3: Any, bucket: str
) -> None:
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    for key in ("asked", "done", "frozen"):
        s3.put_object(Bucket=bucket, Key=key, Body=DATA, StorageClass="GLACIER")
    s3.put_object(Bucket=bucket, Key="warm", Body=DATA)
    s3.restore_object(Bucket=bucket, Key="done", RestoreRequest=DAYS)
    icy.work(bucket)
    s3.restore_object(Bucket=bucket, Key="asked", RestoreRequest=DAYS)
    wanted = {"OptionalObjectAttributes": ["RestoreStatus"]}

    for listing, rows in (
        (s3.list_objects_v2(Bucket=bucket, **wanted), "Contents"),
        (s3.list_objects(Bucket=bucket, **wanted), "Contents"),
        (s3.list_object_versions(Bucket=bucket, **wanted), "Versions"),
    ):
        told = {row["Key"]: row.get("RestoreStatus") for row in listing[rows]}
        assert told["asked"] == {"IsRestoreInProgress": True}
        assert told["done"]["IsRestoreInProgress"] is False
        assert told["done"]["RestoreExpiryDate"].hour == 0
        assert told["frozen"] is None
        assert told["warm"] is None
    plain = s3.list_objects_v2(Bucket=bucket)["Contents"]
    assert all("RestoreStatus" not in row for row in plain)


def test_a_named_version_is_restored(icy: Icy, s3: Any, bucket: str) -> None:
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    place = {"Bucket": bucket, "Key": "k"}
    old = s3.put_object(**place, Body=DATA, StorageClass="GLACIER")["VersionId"]
    marker = s3.delete_object(**place)["VersionId"]

    assert refused(s3.restore_object, **place, RestoreRequest=DAYS)[0] == 405
    assert refused(s3.restore_object, **place, VersionId=marker, RestoreRequest=DAYS)[0] == 405
    s3.restore_object(**place, VersionId=old, RestoreRequest=DAYS)
    icy.work(bucket)
    assert s3.get_object(**place, VersionId=old)["Body"].read() == DATA


def test_what_cannot_be_restored_is_refused_in_aws_words(s3: Any, bucket: str) -> None:
    warm, cold = {"Bucket": bucket, "Key": "w"}, {"Bucket": bucket, "Key": "c"}
    s3.put_object(**warm, Body=DATA)
    s3.put_object(**cold, Body=DATA, StorageClass="DEEP_ARCHIVE")

    def answer(place: dict[str, str], **request: Any) -> tuple[int, str]:
        return refused(s3.restore_object, **place, RestoreRequest=request)[:2]

    assert answer(warm, Days=1) == (403, "InvalidObjectState")
    assert answer({"Bucket": bucket, "Key": "none"}, Days=1) == (404, "NoSuchKey")
    assert answer(cold, Days=0) == (400, "InvalidArgument")
    assert answer(cold) == (400, "MalformedXML")
    assert answer(cold, Days=1, Tier="Quick") == (400, "MalformedXML")
    assert answer(cold, Days=1, Tier="Expedited") == (400, "InvalidArgument")
    query = {
        "ExpressionType": "SQL",
        "Expression": "select * from object",
        "InputSerialization": {"CSV": {}},
        "OutputSerialization": {"CSV": {}},
    }
    assert answer(cold, Type="SELECT", SelectParameters=query) == (501, "NotImplemented")
    elsewhere = {"S3": {"BucketName": bucket, "Prefix": "out/"}}
    assert answer(cold, Days=1, OutputLocation=elsewhere) == (501, "NotImplemented")


def test_object_lock_and_restoring_do_not_know_each_other(icy: Icy, s3: Any) -> None:
    name = "locked-and-frozen"
    s3.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    place = {"Bucket": name, "Key": "k"}
    put = s3.put_object(**place, Body=DATA, StorageClass="GLACIER", ObjectLockLegalHoldStatus="ON")
    s3.restore_object(**place, RestoreRequest=DAYS)
    icy.work(name)

    gone = refused(s3.delete_object, **place, VersionId=put["VersionId"])
    assert gone[:2] == (403, "AccessDenied")
    assert s3.get_object(**place)["Body"].read() == DATA


def test_a_listing_is_asked_for_nothing_else(s3: Any, bucket: str) -> None:
    from botocore.exceptions import ClientError

    with pytest.raises(ClientError, match="InvalidArgument"):
        s3.list_objects_v2(Bucket=bucket, OptionalObjectAttributes=["Color"])
