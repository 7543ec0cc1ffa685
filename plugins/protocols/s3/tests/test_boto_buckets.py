"""Buckets, listings, versions and settings as boto3 sees them."""

from typing import Any

import pytest
from botocore.exceptions import ClientError
from warp_core.interfaces.accounts import made_id, made_number


def code(call: Any, **arguments: Any) -> tuple[int, str]:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    response = caught.value.response
    return response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"]


def test_buckets_are_made_found_listed_and_removed(s3: Any) -> None:
    s3.create_bucket(Bucket="one.bucket")
    made = s3.create_bucket(
        Bucket="two-bucket", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
    )

    assert made["Location"] == "/two-bucket"
    assert s3.head_bucket(Bucket="one.bucket")["BucketRegion"] == "us-east-1"
    names = [one["Name"] for one in s3.list_buckets()["Buckets"]]
    assert {"one.bucket", "two-bucket"} <= set(names)
    assert s3.get_bucket_location(Bucket="one.bucket")["LocationConstraint"] is None
    s3.put_object(Bucket="one.bucket", Key="k")
    assert code(s3.delete_bucket, Bucket="one.bucket") == (409, "BucketNotEmpty")
    s3.delete_object(Bucket="one.bucket", Key="k")
    s3.delete_bucket(Bucket="one.bucket")
    assert code(s3.head_bucket, Bucket="one.bucket")[0] == 404
    assert code(s3.delete_bucket, Bucket="one.bucket") == (404, "NoSuchBucket")
    assert code(s3.list_objects_v2, Bucket="one.bucket") == (404, "NoSuchBucket")


def test_buckets_are_listed_page_by_page(s3: Any) -> None:
    for number in range(5):
        s3.create_bucket(Bucket=f"paged-{number}")

    first = s3.list_buckets(MaxBuckets=3, Prefix="paged-")
    second = s3.list_buckets(
        MaxBuckets=3, Prefix="paged-", ContinuationToken=first["ContinuationToken"]
    )

    assert [one["Name"] for one in first["Buckets"] + second["Buckets"]] == [
        f"paged-{number}" for number in range(5)
    ]
    assert "ContinuationToken" not in second


def test_bucket_names_follow_the_rules(s3: Any) -> None:
    s3.meta.events.unregister("before-parameter-build.s3", None)
    for name in ("ab", "UPPER", "a..b", "192.168.0.1", "-ab", "ab-", "a_b", "x" * 64, "xn--a"):
        try:
            s3.create_bucket(Bucket=name)
        except ClientError as error:
            assert error.response["Error"]["Code"] == "InvalidBucketName"  # noqa: PT017
        except Exception as error:
            # botocore refuses some of them itself.
            assert type(error).__name__ == "ParamValidationError"  # noqa: PT017
        else:
            pytest.fail(name)


def test_a_taken_name_says_whose_it_is(s3: Any, shared: Any, connect: Any) -> None:
    alice = connect(shared.url, _credential("ALICEKEY", "alice-secret"))
    alice.create_bucket(Bucket="alices")

    assert code(s3.create_bucket, Bucket="alices") == (409, "BucketAlreadyExists")


def test_where_a_bucket_can_be_made_twice_it_stays_as_it_is(serve: Any, connect: Any) -> None:
    here = serve(object_ownership="ObjectWriter", block_public_access=False)
    there = serve(region="eu-west-1")
    for one, wrong in ((here, "BucketAlreadyExists"), (there, "BucketAlreadyOwnedByYou")):
        s3 = connect(one.url)
        s3.create_bucket(Bucket="mine", ObjectOwnership="ObjectWriter")
        s3.put_object(Bucket="mine", Key="k")
        changed = [{"ACL": "public-read"}, {"ObjectOwnership": "BucketOwnerPreferred"}]
        changed += [{"ObjectLockEnabledForBucket": True}]
        if one is here:
            s3.create_bucket(Bucket="mine")
            s3.create_bucket(Bucket="mine", ACL="private", ObjectOwnership="ObjectWriter")
        else:
            assert code(s3.create_bucket, Bucket="mine") == (409, wrong)
            changed = [{}]
        for more in changed:
            assert code(s3.create_bucket, Bucket="mine", **more) == (409, wrong)
        assert s3.list_objects_v2(Bucket="mine")["KeyCount"] == 1


def _credential(access_key: str, secret: str) -> Any:
    from types import SimpleNamespace

    return SimpleNamespace(access_key=access_key, secret=secret)


def test_others_see_nothing_of_a_bucket(shared: Any, connect: Any) -> None:
    alice = connect(shared.url, _credential("ALICEKEY", "alice-secret"))
    bob = connect(shared.url, _credential("BOBKEY", "bob-secret"))
    alice.create_bucket(Bucket="private")
    alice.put_object(Bucket="private", Key="k", Body=b"x")
    bob.create_bucket(Bucket="bobs")

    denied = (403, "AccessDenied")
    assert code(bob.get_object, Bucket="private", Key="k") == denied
    assert code(bob.put_object, Bucket="private", Key="k", Body=b"y") == denied
    assert code(bob.list_objects_v2, Bucket="private") == denied
    assert code(bob.delete_bucket, Bucket="private") == denied
    assert code(bob.copy_object, Bucket="bobs", Key="k", CopySource="private/k") == denied
    assert "private" not in [one["Name"] for one in bob.list_buckets()["Buckets"]]
    assert alice.get_object(Bucket="private", Key="k")["Body"].read() == b"x"


def test_unknown_keys_and_wrong_secrets_are_told_apart(shared: Any, connect: Any) -> None:
    unknown = connect(shared.url, _credential("NOBODY", "x"))
    wrong = connect(shared.url, _credential("ROOTKEY", "wrong"))

    assert code(unknown.list_buckets) == (403, "InvalidAccessKeyId")
    assert code(wrong.list_buckets) == (403, "SignatureDoesNotMatch")


def test_an_expected_owner_is_checked(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", ExpectedBucketOwner=made_number("account:root"))

    assert code(s3.get_object, Bucket=bucket, Key="k", ExpectedBucketOwner="123456789012") == (
        403,
        "AccessDenied",
    )


KEYS = ["a", "a-b", "b/1", "b/2", "b/c/3", "d", "z/", "é/x"]


@pytest.fixture
def filled(s3: Any, bucket: str) -> str:
    for key in KEYS:
        s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    return bucket


def names(page: dict[str, Any]) -> list[str]:
    return [one["Key"] for one in page.get("Contents", [])] + [
        one["Prefix"] for one in page.get("CommonPrefixes", [])
    ]


@pytest.mark.parametrize("operation", ["list_objects", "list_objects_v2"])
@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_listings_are_complete_in_any_page_size(
    s3: Any, filled: str, operation: str, size: int
) -> None:
    pages = s3.get_paginator(operation).paginate(Bucket=filled, PaginationConfig={"PageSize": size})
    rolled = s3.get_paginator(operation).paginate(
        Bucket=filled, Delimiter="/", PaginationConfig={"PageSize": size}
    )

    assert [name for page in pages for name in names(page)] == KEYS
    assert sorted(name for page in rolled for name in names(page)) == sorted(
        ["a", "a-b", "b/", "d", "é/", "z/"]
    )


def test_listings_take_prefix_start_and_any_delimiter(s3: Any, filled: str) -> None:
    def listed(**arguments: Any) -> list[str]:
        return names(s3.list_objects_v2(Bucket=filled, **arguments))

    assert listed(Prefix="b/") == ["b/1", "b/2", "b/c/3"]
    assert listed(Prefix="b/", Delimiter="/") == ["b/1", "b/2", "b/c/"]
    assert listed(StartAfter="b/2") == ["b/c/3", "d", "z/", "é/x"]
    assert listed(Delimiter="-") == ["a", "b/1", "b/2", "b/c/3", "d", "z/", "é/x", "a-"]
    assert listed(Prefix="none") == []
    assert listed(MaxKeys=0) == []
    assert names(s3.list_objects(Bucket=filled, Marker="d")) == ["z/", "é/x"]


def test_listings_say_what_they_were_asked(s3: Any, filled: str) -> None:
    page = s3.list_objects_v2(
        Bucket=filled, Prefix="b", Delimiter="/", MaxKeys=5000, FetchOwner=True
    )

    assert (page["Prefix"], page["Delimiter"], page["MaxKeys"]) == ("b", "/", 1000)
    entry = s3.list_objects_v2(Bucket=filled, FetchOwner=True)["Contents"][0]
    assert entry["Owner"] == {"ID": made_id("account:root"), "DisplayName": "root"}
    assert entry["StorageClass"] == "STANDARD"
    assert entry["LastModified"] == s3.head_object(Bucket=filled, Key="a")["LastModified"]
    assert "Owner" not in s3.list_objects_v2(Bucket=filled)["Contents"][0]
    assert "Owner" in s3.list_objects(Bucket=filled)["Contents"][0]


@pytest.mark.parametrize(
    "arguments",
    [{"ContinuationToken": "nonsense"}, {"ContinuationToken": ""}, {"EncodingType": "base9"}],
)
def test_nonsense_in_a_listing_is_refused(s3: Any, bucket: str, arguments: dict[str, Any]) -> None:
    assert code(s3.list_objects_v2, Bucket=bucket, **arguments) == (400, "InvalidArgument")


def test_versions_are_kept_once_asked_for(s3: Any, bucket: str) -> None:
    at = {"Bucket": bucket, "Key": "k"}
    assert "Status" not in s3.get_bucket_versioning(Bucket=bucket)
    s3.put_object(**at, Body=b"0")
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"

    first = s3.put_object(**at, Body=b"1")["VersionId"]
    second = s3.put_object(**at, Body=b"2")["VersionId"]
    marker = s3.delete_object(**at)

    assert marker["DeleteMarker"] is True
    assert code(s3.get_object, **at) == (404, "NoSuchKey")
    assert code(s3.get_object, **at, VersionId=marker["VersionId"]) == (405, "MethodNotAllowed")
    assert s3.get_object(**at, VersionId=first)["Body"].read() == b"1"
    assert s3.get_object(**at, VersionId="null")["VersionId"] == "null"
    listed = s3.list_object_versions(Bucket=bucket)
    assert [one["VersionId"] for one in listed["Versions"]] == [second, first, "null"]
    assert [one["IsLatest"] for one in listed["DeleteMarkers"]] == [True]
    removed = s3.delete_object(**at, VersionId=marker["VersionId"])
    assert (removed["DeleteMarker"], removed["VersionId"]) == (True, marker["VersionId"])
    assert s3.get_object(**at)["Body"].read() == b"2"
    assert code(s3.get_object, **at, VersionId="0" * 32) == (404, "NoSuchVersion")
    s3.delete_object(**at, VersionId="0" * 32)
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})
    s3.put_object(**at, Body=b"3")
    assert s3.get_object(**at, VersionId="null")["Body"].read() == b"3"
    assert s3.get_object(**at, VersionId=second)["Body"].read() == b"2"


@pytest.mark.parametrize("size", [1, 2, 1000])
def test_version_listings_are_complete_in_any_page_size(s3: Any, bucket: str, size: int) -> None:
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    wanted = []
    for key in ("a", "b/1", "c"):
        made = [s3.put_object(Bucket=bucket, Key=key)["VersionId"] for _ in range(3)]
        wanted += [(key, version) for version in reversed(made)]

    pages = s3.get_paginator("list_object_versions").paginate(
        Bucket=bucket, PaginationConfig={"PageSize": size}
    )

    assert [
        (one["Key"], one["VersionId"]) for page in pages for one in page.get("Versions", [])
    ] == wanted


def test_versions_are_deleted_by_the_thousand(s3: Any, bucket: str) -> None:
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    version = s3.put_object(Bucket=bucket, Key="k")["VersionId"]

    marked = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "k"}]})["Deleted"][0]
    gone = s3.delete_objects(
        Bucket=bucket,
        Delete={
            "Objects": [
                {"Key": "k", "VersionId": marked["DeleteMarkerVersionId"]},
                {"Key": "k", "VersionId": version},
            ]
        },
    )["Deleted"]

    assert marked["DeleteMarker"] is True
    assert gone[0]["DeleteMarker"] is True
    assert "DeleteMarker" not in gone[1]
    assert "Versions" not in s3.list_object_versions(Bucket=bucket)


def test_buckets_have_tags(s3: Any, bucket: str) -> None:
    assert code(s3.get_bucket_tagging, Bucket=bucket) == (404, "NoSuchTagSet")
    tags = [{"Key": f"k{number}", "Value": "é"} for number in range(50)]

    s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": tags})

    assert s3.get_bucket_tagging(Bucket=bucket)["TagSet"] == tags
    s3.delete_bucket_tagging(Bucket=bucket)
    assert code(s3.get_bucket_tagging, Bucket=bucket) == (404, "NoSuchTagSet")


@pytest.mark.parametrize(
    ("operation", "answer"),
    [
        ("get_bucket_cors", (404, "NoSuchCORSConfiguration")),
        ("get_bucket_encryption", (404, "ServerSideEncryptionConfigurationNotFoundError")),
        ("get_bucket_lifecycle_configuration", (404, "NoSuchLifecycleConfiguration")),
        ("get_bucket_policy", (404, "NoSuchBucketPolicy")),
        ("get_bucket_replication", (404, "ReplicationConfigurationNotFoundError")),
        ("get_bucket_website", (404, "NoSuchWebsiteConfiguration")),
        ("get_object_lock_configuration", (404, "ObjectLockConfigurationNotFoundError")),
    ],
)
def test_settings_that_are_not_set_say_so(
    s3: Any, bucket: str, operation: str, answer: tuple[int, str]
) -> None:
    assert code(getattr(s3, operation), Bucket=bucket) == answer


def test_settings_with_a_fixed_state_tell_it(s3: Any, bucket: str) -> None:
    assert s3.get_bucket_request_payment(Bucket=bucket)["Payer"] == "BucketOwner"
    ownership = s3.get_bucket_ownership_controls(Bucket=bucket)["OwnershipControls"]["Rules"]
    assert ownership == [{"ObjectOwnership": "BucketOwnerEnforced"}]
    assert "LoggingEnabled" not in s3.get_bucket_logging(Bucket=bucket)
    assert "Status" not in s3.get_bucket_accelerate_configuration(Bucket=bucket)
    s3.get_bucket_notification_configuration(Bucket=bucket)
    assert s3.get_bucket_acl(Bucket=bucket)["Owner"]["ID"] == made_id("account:root")
    s3.put_bucket_acl(Bucket=bucket, ACL="private")
    acl = s3.get_bucket_acl(Bucket=bucket)
    s3.put_bucket_acl(
        Bucket=bucket, AccessControlPolicy={"Owner": acl["Owner"], "Grants": acl["Grants"]}
    )


def test_acceleration_is_kept(s3: Any, bucket: str) -> None:
    for status in ("Enabled", "Suspended"):
        s3.put_bucket_accelerate_configuration(
            Bucket=bucket, AccelerateConfiguration={"Status": status}
        )
        assert s3.get_bucket_accelerate_configuration(Bucket=bucket)["Status"] == status


def test_changing_what_cannot_be_changed_is_refused(s3: Any, bucket: str) -> None:
    assert code(s3.put_bucket_policy, Bucket=bucket, Policy="{}") == (400, "MalformedPolicy")
    assert code(s3.put_bucket_acl, Bucket=bucket, ACL="public-read") == (
        400,
        "AccessControlListNotSupported",
    )
    assert code(
        s3.put_bucket_versioning,
        Bucket=bucket,
        VersioningConfiguration={"Status": "Enabled", "MFADelete": "Enabled"},
    ) == (501, "NotImplemented")
    s3.delete_bucket_policy(Bucket=bucket)
    s3.delete_bucket_cors(Bucket=bucket)
    s3.delete_bucket_replication(Bucket=bucket)


def test_bucket_names_work_as_hosts(serve: Any) -> None:
    import http.client

    running = serve(domains=("s3.example",))
    connection = http.client.HTTPConnection("127.0.0.1", running.port)
    connection.request("GET", "/k", headers={"Host": "mine.s3.example"})
    answer = connection.getresponse()

    assert answer.status == 404
    assert b"<BucketName>mine</BucketName>" in answer.read()
    connection.close()
