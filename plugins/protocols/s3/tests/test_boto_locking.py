"""Object lock, as boto3 sees it."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError


def soon(hours: float = 24.0) -> datetime:
    return (datetime.now(UTC) + timedelta(hours=hours)).replace(microsecond=0)


def failing(call: Any, **arguments: Any) -> tuple[int, str]:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    answer = caught.value.response
    return answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"]


def rule(mode: str, **period: int) -> dict[str, Any]:
    return {
        "ObjectLockEnabled": "Enabled",
        "Rule": {"DefaultRetention": {"Mode": mode, **period}},
    }


@pytest.fixture
def locked(s3: Any, request: pytest.FixtureRequest) -> str:
    name = f"locked-{abs(hash(request.node.name)):x}"
    s3.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    return name


def put(s3: Any, bucket: str, **more: Any) -> str:
    version: str = s3.put_object(Bucket=bucket, Key="k", Body=b"abc", **more)["VersionId"]
    return version


# Buckets ------------------------------------------------------------------------------------------


def test_a_locked_bucket_has_versioning_for_good(s3: Any, locked: str) -> None:
    assert s3.get_bucket_versioning(Bucket=locked)["Status"] == "Enabled"
    found = s3.get_object_lock_configuration(Bucket=locked)["ObjectLockConfiguration"]
    assert found == {"ObjectLockEnabled": "Enabled"}
    suspended = {"Status": "Suspended"}
    refused = failing(s3.put_bucket_versioning, Bucket=locked, VersioningConfiguration=suspended)
    assert refused == (409, "InvalidBucketState")
    s3.put_bucket_versioning(Bucket=locked, VersioningConfiguration={"Status": "Enabled"})


@pytest.mark.parametrize("said", [rule("GOVERNANCE", Days=1), rule("COMPLIANCE", Years=1)])
def test_a_configuration_comes_back(s3: Any, locked: str, said: dict[str, Any]) -> None:
    s3.put_object_lock_configuration(Bucket=locked, ObjectLockConfiguration=said)
    found = s3.get_object_lock_configuration(Bucket=locked)["ObjectLockConfiguration"]
    assert found == said


def test_without_object_lock_there_is_no_configuration(s3: Any, bucket: str) -> None:
    assert failing(s3.get_object_lock_configuration, Bucket=bucket) == (
        404,
        "ObjectLockConfigurationNotFoundError",
    )
    said = rule("GOVERNANCE", Days=1)
    refused = failing(s3.put_object_lock_configuration, Bucket=bucket, ObjectLockConfiguration=said)
    assert refused == (409, "InvalidBucketState")
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    s3.put_object_lock_configuration(Bucket=bucket, ObjectLockConfiguration=said)
    assert put(s3, bucket)
    assert s3.head_object(Bucket=bucket, Key="k")["ObjectLockMode"] == "GOVERNANCE"
    assert failing(s3.get_object_lock_configuration, Bucket="no-such-bucket") == (
        404,
        "NoSuchBucket",
    )


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (rule("GOVERNANCE", Days=0), "InvalidRetentionPeriod"),
        (rule("GOVERNANCE", Years=-1), "InvalidRetentionPeriod"),
        (rule("GOVERNANCE", Days=36_501), "InvalidRetentionPeriod"),
        (rule("GOVERNANCE", Years=101), "InvalidRetentionPeriod"),
        (rule("GOVERNANCE", Days=1, Years=1), "MalformedXML"),
        (rule("GOVERNANCE"), "MalformedXML"),
        (rule("abc", Days=1), "MalformedXML"),
        (rule("governance", Days=1), "MalformedXML"),
        (rule("GOVERNANCE", Days=1) | {"ObjectLockEnabled": "Disabled"}, "MalformedXML"),
    ],
)
def test_a_wrong_configuration_is_refused(
    s3: Any, locked: str, said: dict[str, Any], code: str
) -> None:
    refused = failing(s3.put_object_lock_configuration, Bucket=locked, ObjectLockConfiguration=said)
    assert refused == (400, code)


# Retention ----------------------------------------------------------------------------------------


def test_retention_is_set_and_told(s3: Any, locked: str) -> None:
    version = put(s3, locked)
    until = soon()
    said = {"Mode": "GOVERNANCE", "RetainUntilDate": until}
    assert failing(s3.get_object_retention, Bucket=locked, Key="k") == (
        404,
        "NoSuchObjectLockConfiguration",
    )
    s3.put_object_retention(Bucket=locked, Key="k", Retention=said)
    assert s3.get_object_retention(Bucket=locked, Key="k", VersionId=version)["Retention"] == said
    head = s3.head_object(Bucket=locked, Key="k")
    assert (head["ObjectLockMode"], head["ObjectLockRetainUntilDate"]) == ("GOVERNANCE", until)
    assert "ObjectLockLegalHoldStatus" not in head


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ({"Mode": "governance", "RetainUntilDate": soon()}, "MalformedXML"),
        ({"Mode": "abc", "RetainUntilDate": soon()}, "MalformedXML"),
        ({"Mode": "GOVERNANCE"}, "MalformedXML"),
        ({"RetainUntilDate": soon()}, "MalformedXML"),
        ({"Mode": "GOVERNANCE", "RetainUntilDate": soon(-1)}, "InvalidArgument"),
    ],
)
def test_wrong_retention_is_refused(s3: Any, locked: str, said: dict[str, Any], code: str) -> None:
    put(s3, locked)
    refused = failing(s3.put_object_retention, Bucket=locked, Key="k", Retention=said)
    assert refused == (400, code)


def test_in_a_bucket_without_object_lock_nothing_is_locked(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"abc")
    invalid = (400, "InvalidRequest")
    retention = {"Mode": "GOVERNANCE", "RetainUntilDate": soon()}
    hold = {"Status": "ON"}
    place = {"Bucket": bucket, "Key": "k"}
    assert failing(s3.put_object_retention, **place, Retention=retention) == invalid
    assert failing(s3.get_object_retention, **place) == invalid
    assert failing(s3.put_object_legal_hold, **place, LegalHold=hold) == invalid
    assert failing(s3.get_object_legal_hold, **place) == invalid
    assert failing(s3.put_object, **place, ObjectLockLegalHoldStatus="ON") == invalid
    assert (
        failing(
            s3.create_multipart_upload,
            **place,
            ObjectLockMode="COMPLIANCE",
            ObjectLockRetainUntilDate=soon(),
        )
        == invalid
    )


def test_retention_grows_for_all_and_shrinks_for_who_bypasses(s3: Any, locked: str) -> None:
    place = {"Bucket": locked, "Key": "k"}
    put(s3, locked, ObjectLockMode="GOVERNANCE", ObjectLockRetainUntilDate=soon(48))
    longer = {"Mode": "GOVERNANCE", "RetainUntilDate": soon(72)}
    shorter = {"Mode": "GOVERNANCE", "RetainUntilDate": soon(24)}
    stronger = {"Mode": "COMPLIANCE", "RetainUntilDate": soon(72)}
    denied = (403, "AccessDenied")

    s3.put_object_retention(**place, Retention=longer)
    assert failing(s3.put_object_retention, **place, Retention=shorter) == denied
    assert failing(s3.put_object_retention, **place, Retention=stronger) == denied
    s3.put_object_retention(**place, Retention=shorter, BypassGovernanceRetention=True)
    s3.put_object_retention(**place, Retention=stronger, BypassGovernanceRetention=True)
    for said in (shorter, longer, {}):
        for bypass in (False, True):
            refused = failing(
                s3.put_object_retention,
                **place,
                Retention=said,
                BypassGovernanceRetention=bypass,
            )
            assert refused == denied


def test_a_retained_version_is_deleted_only_by_who_bypasses(s3: Any, locked: str) -> None:
    place = {"Bucket": locked, "Key": "k"}
    weak = put(s3, locked, ObjectLockMode="GOVERNANCE", ObjectLockRetainUntilDate=soon())
    denied = (403, "AccessDenied")
    marker = s3.delete_object(**place)

    assert marker["DeleteMarker"]
    assert failing(s3.delete_object, **place, VersionId=weak) == denied
    answer = s3.delete_objects(
        Bucket=locked,
        Delete={"Objects": [{"Key": "k", "VersionId": weak}, {"Key": "other"}]},
    )
    assert [error["Code"] for error in answer["Errors"]] == ["AccessDenied"]
    assert [each["Key"] for each in answer["Deleted"]] == ["other"]
    s3.delete_object(**place, VersionId=weak, BypassGovernanceRetention=True)
    s3.delete_object(**place, VersionId=marker["VersionId"])
    again = put(s3, locked, ObjectLockMode="GOVERNANCE", ObjectLockRetainUntilDate=soon())
    answer = s3.delete_objects(
        Bucket=locked,
        Delete={"Objects": [{"Key": "k", "VersionId": again}]},
        BypassGovernanceRetention=True,
    )
    assert "Errors" not in answer


def test_compliance_and_legal_holds_know_no_bypass(s3: Any, locked: str) -> None:
    place = {"Bucket": locked, "Key": "k"}
    strong = put(s3, locked, ObjectLockMode="COMPLIANCE", ObjectLockRetainUntilDate=soon())
    held = put(s3, locked, ObjectLockLegalHoldStatus="ON")
    for version in (strong, held):
        for bypass in (False, True):
            refused = failing(
                s3.delete_object, **place, VersionId=version, BypassGovernanceRetention=bypass
            )
            assert refused == (403, "AccessDenied")
    assert failing(s3.delete_bucket, Bucket=locked) == (409, "BucketNotEmpty")
    s3.put_object_legal_hold(**place, VersionId=held, LegalHold={"Status": "OFF"})
    s3.delete_object(**place, VersionId=held)


def test_a_bucket_gives_retention_to_what_has_none(s3: Any, locked: str) -> None:
    s3.put_object_lock_configuration(
        Bucket=locked, ObjectLockConfiguration=rule("COMPLIANCE", Days=2)
    )
    put(s3, locked)
    upload = s3.create_multipart_upload(Bucket=locked, Key="m")["UploadId"]
    part = s3.upload_part(Bucket=locked, Key="m", UploadId=upload, PartNumber=1, Body=b"x")
    s3.complete_multipart_upload(
        Bucket=locked,
        Key="m",
        UploadId=upload,
        MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]},
    )
    s3.copy_object(Bucket=locked, Key="c", CopySource={"Bucket": locked, "Key": "k"})
    s3.put_object(
        Bucket=locked,
        Key="own",
        ObjectLockMode="GOVERNANCE",
        ObjectLockRetainUntilDate=soon(1),
    )

    for key in ("k", "m", "c"):
        head = s3.head_object(Bucket=locked, Key=key)
        left = head["ObjectLockRetainUntilDate"] - datetime.now(UTC)
        assert head["ObjectLockMode"] == "COMPLIANCE"
        assert timedelta(days=2, minutes=-5) < left <= timedelta(days=2)
    assert s3.head_object(Bucket=locked, Key="own")["ObjectLockMode"] == "GOVERNANCE"


def test_uploads_and_copies_take_locks_of_their_own(s3: Any, locked: str) -> None:
    lock = {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": soon()}
    upload = s3.create_multipart_upload(
        Bucket=locked, Key="k", ObjectLockLegalHoldStatus="ON", **lock
    )["UploadId"]
    part = s3.upload_part(Bucket=locked, Key="k", UploadId=upload, PartNumber=1, Body=b"x")
    made = s3.complete_multipart_upload(
        Bucket=locked,
        Key="k",
        UploadId=upload,
        MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]},
    )
    s3.copy_object(Bucket=locked, Key="c", CopySource={"Bucket": locked, "Key": "k"})
    s3.copy_object(Bucket=locked, Key="l", CopySource={"Bucket": locked, "Key": "k"}, **lock)

    head = s3.head_object(Bucket=locked, Key="k", VersionId=made["VersionId"])
    assert (head["ObjectLockMode"], head["ObjectLockLegalHoldStatus"]) == ("GOVERNANCE", "ON")
    assert "ObjectLockMode" not in s3.head_object(Bucket=locked, Key="c")
    assert s3.head_object(Bucket=locked, Key="l")["ObjectLockMode"] == "GOVERNANCE"
    assert failing(s3.delete_object, Bucket=locked, Key="k", VersionId=made["VersionId"]) == (
        403,
        "AccessDenied",
    )


@pytest.mark.parametrize(
    "said",
    [
        {"ObjectLockMode": "GOVERNANCE"},
        {"ObjectLockRetainUntilDate": soon()},
        {"ObjectLockMode": "abc", "ObjectLockRetainUntilDate": soon()},
        {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": soon(-1)},
        {"ObjectLockLegalHoldStatus": "abc"},
    ],
)
def test_wrong_lock_headers_are_refused(s3: Any, locked: str, said: dict[str, Any]) -> None:
    refused = failing(s3.put_object, Bucket=locked, Key="k", Body=b"", **said)
    assert refused == (400, "InvalidArgument")


# Legal hold ---------------------------------------------------------------------------------------


def test_a_legal_hold_is_put_and_told(s3: Any, locked: str) -> None:
    place = {"Bucket": locked, "Key": "k"}
    put(s3, locked)
    assert failing(s3.get_object_legal_hold, **place) == (404, "NoSuchObjectLockConfiguration")
    for status in ("ON", "OFF"):
        s3.put_object_legal_hold(**place, LegalHold={"Status": status})
        assert s3.get_object_legal_hold(**place)["LegalHold"] == {"Status": status}
        assert s3.head_object(**place)["ObjectLockLegalHoldStatus"] == status
    refused = failing(s3.put_object_legal_hold, **place, LegalHold={"Status": "abc"})
    assert refused == (400, "MalformedXML")
    refused = failing(
        s3.put_object_legal_hold, Bucket=locked, Key="missing", LegalHold={"Status": "ON"}
    )
    assert refused == (404, "NoSuchKey")


# Who may ------------------------------------------------------------------------------------------


def test_bypassing_takes_a_permission_of_its_own(shared: Any, connect: Any) -> None:
    alice = connect(shared.url, shared.alice)
    bob = connect(shared.url, shared.bob)
    name = f"locked-by-alice-{id(shared):x}"
    alice.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    place = {"Bucket": name, "Key": "k"}
    lock = {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": soon()}
    version = put(alice, name, **lock)

    def allow(*actions: str) -> None:
        policy = {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Principal": {"CanonicalUser": bob.list_buckets()["Owner"]["ID"]},
                    "Action": list(actions),
                    "Resource": [f"arn:aws:s3:::{name}", f"arn:aws:s3:::{name}/*"],
                }
            ],
        }
        alice.put_bucket_policy(Bucket=name, Policy=json.dumps(policy))

    denied = (403, "AccessDenied")
    named = {**place, "VersionId": version, "BypassGovernanceRetention": True}
    allow("s3:DeleteObjectVersion", "s3:PutObject")
    assert failing(bob.delete_object, **named) == denied
    assert failing(bob.put_object, **place, **lock) == denied
    assert failing(bob.put_object, **place, ObjectLockLegalHoldStatus="ON") == denied
    allow("s3:DeleteObjectVersion", "s3:BypassGovernanceRetention")
    bob.delete_object(**named)


def test_a_policy_bounds_the_days_of_retention(shared: Any, connect: Any) -> None:
    alice = connect(shared.url, shared.alice)
    name = f"bounded-by-alice-{id(shared):x}"
    alice.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    alice.put_bucket_policy(
        Bucket=name,
        Policy=json.dumps(
            {
                "Version": "2012-10-17",
                "Statement": [
                    {
                        "Effect": "Deny",
                        "Principal": "*",
                        "Action": ["s3:PutObjectRetention"],
                        "Resource": f"arn:aws:s3:::{name}/*",
                        "Condition": {
                            "NumericGreaterThan": {"s3:object-lock-remaining-retention-days": "10"}
                        },
                    }
                ],
            }
        ),
    )
    put(alice, name)
    much = {"Mode": "GOVERNANCE", "RetainUntilDate": soon(24 * 20)}
    little = {"Mode": "GOVERNANCE", "RetainUntilDate": soon(24 * 5)}

    refused = failing(alice.put_object_retention, Bucket=name, Key="k", Retention=much)
    assert refused == (403, "AccessDenied")
    lock = {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": soon(24 * 20)}
    assert failing(alice.put_object, Bucket=name, Key="k", **lock) == (403, "AccessDenied")
    alice.put_object_retention(Bucket=name, Key="k", Retention=little)
