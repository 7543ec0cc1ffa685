"""Replication configurations, and what objects say of their copies."""

from typing import Any

import pytest
from botocore.exceptions import ClientError

TARGET = {"Bucket": "arn:aws:s3:::there"}
OFF = {"Status": "Disabled"}
NEW = {
    "ID": "one",
    "Status": "Enabled",
    "Priority": 1,
    "Filter": {"Prefix": "a/"},
    "DeleteMarkerReplication": OFF,
    "Destination": TARGET,
}
OLD = {"ID": "one", "Status": "Enabled", "Prefix": "a/", "Destination": TARGET}
TAGGED = {
    **NEW,
    "Filter": {"And": {"Prefix": "b/", "Tags": [{"Key": "t", "Value": "v"}]}},
    "ExistingObjectReplication": {"Status": "Enabled"},
    "SourceSelectionCriteria": {"SseKmsEncryptedObjects": {"Status": "Enabled"}},
    "Destination": {**TARGET, "StorageClass": "STANDARD_IA"},
}


def put(s3: Any, bucket: str, *rules: dict[str, Any]) -> None:
    said = {"Role": "arn:aws:iam::123456789012:role/r", "Rules": list(rules)}
    s3.put_bucket_replication(Bucket=bucket, ReplicationConfiguration=said)


@pytest.fixture
def versioned(s3: Any, bucket: str) -> str:
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    return bucket


def without(rule: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in rule.items() if key != name}


def test_a_configuration_comes_back_as_it_was_said(s3: Any, versioned: str) -> None:
    for rules in ([NEW], [OLD], [TAGGED], [NEW, {**TAGGED, "ID": "two", "Priority": 2}]):
        put(s3, versioned, *rules)
        found = s3.get_bucket_replication(Bucket=versioned)["ReplicationConfiguration"]
        assert found["Rules"] == rules
    s3.delete_bucket_replication(Bucket=versioned)
    s3.delete_bucket_replication(Bucket=versioned)
    with pytest.raises(ClientError, match="ReplicationConfigurationNotFoundError"):
        s3.get_bucket_replication(Bucket=versioned)


def test_a_bucket_without_versions_has_none(s3: Any, bucket: str) -> None:
    with pytest.raises(ClientError, match="Versioning must be 'Enabled'"):
        put(s3, bucket, NEW)


@pytest.mark.parametrize(
    ("rules", "code"),
    [
        ([], "MalformedXML"),
        ([without(NEW, "Priority")], "InvalidRequest"),
        ([without(NEW, "DeleteMarkerReplication")], "InvalidRequest"),
        ([{**TAGGED, "DeleteMarkerReplication": {"Status": "Enabled"}}], "InvalidRequest"),
        ([{**NEW, "Destination": {"Bucket": "there"}}], "InvalidArgument"),
        ([without(OLD, "Prefix")], "MalformedXML"),
        ([{**NEW, "Prefix": "a/"}], "MalformedXML"),
        ([NEW, NEW], "InvalidRequest"),
        ([NEW, {**NEW, "ID": "two"}], "InvalidRequest"),
        ([NEW, {**OLD, "ID": "two"}], "InvalidRequest"),
        ([{**NEW, "Status": "enabled"}], "MalformedXML"),
        ([{**NEW, "Destination": {**TARGET, "StorageClass": "COLD"}}], "MalformedXML"),
        (
            [
                {
                    **NEW,
                    "Destination": {**TARGET, "AccessControlTranslation": {"Owner": "Destination"}},
                }
            ],
            "NotImplemented",
        ),
    ],
)
def test_what_is_wrong_or_not_there_is_refused(
    s3: Any, versioned: str, rules: list[dict[str, Any]], code: str
) -> None:
    with pytest.raises(ClientError) as caught:
        put(s3, versioned, *rules)
    assert caught.value.response["Error"]["Code"] == code


def test_what_a_rule_names_is_pending_however_it_was_written(s3: Any, versioned: str) -> None:
    s3.put_object(Bucket=versioned, Key="a/before", Body=b"1")
    put(s3, versioned, NEW, {**TAGGED, "ID": "two", "Priority": 2})
    s3.put_object(Bucket=versioned, Key="a/put", Body=b"1")
    s3.put_object(Bucket=versioned, Key="a/large", Body=bytes(100_000))
    s3.copy_object(Bucket=versioned, Key="a/copy", CopySource=f"{versioned}/a/before")
    begun = s3.create_multipart_upload(Bucket=versioned, Key="a/parts")
    named = {"Bucket": versioned, "Key": "a/parts", "UploadId": begun["UploadId"]}
    part = s3.upload_part(**named, PartNumber=1, Body=b"1")
    parts = [{"PartNumber": 1, "ETag": part["ETag"]}]
    s3.complete_multipart_upload(**named, MultipartUpload={"Parts": parts})
    s3.put_object(Bucket=versioned, Key="b/tagged", Body=b"1", Tagging="t=v")
    s3.put_object(Bucket=versioned, Key="b/plain", Body=b"1")

    def status(key: str) -> str | None:
        return s3.head_object(Bucket=versioned, Key=key).get("ReplicationStatus")

    for key in ("a/put", "a/large", "a/copy", "a/parts", "b/tagged"):
        assert (key, status(key)) == (key, "PENDING")
    assert status("a/before") is None
    assert status("b/plain") is None
