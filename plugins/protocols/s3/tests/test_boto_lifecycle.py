"""Lifecycle configurations, as boto3 sees them."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

MIDNIGHT = datetime(2030, 1, 1, tzinfo=UTC)


def rule(**more: Any) -> dict[str, Any]:
    said = {"ID": "r", "Status": "Enabled", "Filter": {"Prefix": "p/"}, "Expiration": {"Days": 1}}
    return {name: value for name, value in (said | more).items() if value is not None}


def put(s3: Any, bucket: str, *rules: dict[str, Any], **more: Any) -> Any:
    return s3.put_bucket_lifecycle_configuration(
        Bucket=bucket, LifecycleConfiguration={"Rules": list(rules)}, **more
    )


def code_of(call: Any, *arguments: Any, **named: Any) -> tuple[int, str]:
    with pytest.raises(ClientError) as caught:
        call(*arguments, **named)
    answer = caught.value.response
    return answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"]


EVERY = [
    rule(ID="one", Filter=None, Prefix="old/", Expiration={"Days": 7}),
    rule(ID="two", Filter={"Prefix": ""}, Status="Disabled"),
    rule(ID="three", Filter={"Tag": {"Key": "k", "Value": "<v>"}}, Expiration={"Date": MIDNIGHT}),
    rule(
        ID="four",
        Filter={
            "And": {
                "Prefix": "p/",
                "Tags": [{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}],
                "ObjectSizeGreaterThan": 5,
                "ObjectSizeLessThan": 64000,
            }
        },
        Transitions=[
            {"Days": 30, "StorageClass": "STANDARD_IA"},
            {"Days": 90, "StorageClass": "GLACIER"},
        ],
        Expiration={"Days": 365},
    ),
    rule(
        ID="five",
        Expiration={"ExpiredObjectDeleteMarker": True},
        NoncurrentVersionExpiration={"NoncurrentDays": 50, "NewerNoncurrentVersions": 5},
        NoncurrentVersionTransitions=[
            {"NoncurrentDays": 30, "StorageClass": "STANDARD_IA", "NewerNoncurrentVersions": 2}
        ],
        AbortIncompleteMultipartUpload={"DaysAfterInitiation": 2},
    ),
    rule(ID="six", Filter={"ObjectSizeGreaterThan": 0}),
    rule(
        ID="seven",
        Expiration=None,
        Transitions=[{"Date": MIDNIGHT, "StorageClass": "DEEP_ARCHIVE"}],
    ),
]


def test_rules_come_back_as_they_were_said(s3: Any, bucket: str) -> None:
    put(s3, bucket, *EVERY)
    found = s3.get_bucket_lifecycle_configuration(Bucket=bucket)
    assert found["Rules"] == EVERY
    assert found["TransitionDefaultMinimumObjectSize"] == "all_storage_classes_128K"
    answer = put(s3, bucket, rule(), TransitionDefaultMinimumObjectSize="varies_by_storage_class")
    assert answer["TransitionDefaultMinimumObjectSize"] == "varies_by_storage_class"
    found = s3.get_bucket_lifecycle_configuration(Bucket=bucket)
    assert found["TransitionDefaultMinimumObjectSize"] == "varies_by_storage_class"


def test_without_rules_there_is_no_configuration(s3: Any, bucket: str) -> None:
    missing = (404, "NoSuchLifecycleConfiguration")
    assert code_of(s3.get_bucket_lifecycle_configuration, Bucket=bucket) == missing
    s3.delete_bucket_lifecycle(Bucket=bucket)
    put(s3, bucket, rule())
    s3.delete_bucket_lifecycle(Bucket=bucket)
    assert code_of(s3.get_bucket_lifecycle_configuration, Bucket=bucket) == missing


def test_a_rule_without_id_gets_one(s3: Any, bucket: str) -> None:
    put(s3, bucket, rule(ID=None), rule(ID=""))
    ids = [each["ID"] for each in s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]]
    assert len(set(ids)) == 2
    assert all(ids)


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (rule(ID="x" * 256), "InvalidArgument"),
        (rule(Status="enabled"), "MalformedXML"),
        (rule(Filter=None), "MalformedXML"),
        (rule(Prefix="p"), "MalformedXML"),
        (rule(Filter={"Prefix": "x" * 1025}), "InvalidRequest"),
        (rule(Filter={"And": {"Prefix": "p"}}), "MalformedXML"),
        (
            rule(
                Filter={"And": {"Tags": [{"Key": "k", "Value": "1"}, {"Key": "k", "Value": "2"}]}}
            ),
            "InvalidRequest",
        ),
        (rule(Filter={"Tag": {"Key": "x" * 129, "Value": "v"}}), "InvalidTag"),
        (rule(Filter={"Tag": {"Key": "k", "Value": "v" * 257}}), "InvalidTag"),
        (
            rule(Filter={"And": {"ObjectSizeGreaterThan": 10, "ObjectSizeLessThan": 10}}),
            "InvalidRequest",
        ),
        (rule(Expiration=None), "InvalidRequest"),
        (rule(Expiration={"Days": 0}), "InvalidArgument"),
        (rule(Expiration={"Days": -1}), "InvalidArgument"),
        (rule(Expiration={"Days": 1, "Date": MIDNIGHT}), "MalformedXML"),
        (rule(Expiration={"Days": 1, "ExpiredObjectDeleteMarker": True}), "MalformedXML"),
        (rule(Expiration={"Date": MIDNIGHT + timedelta(hours=1)}), "InvalidArgument"),
        (rule(Expiration={}), "MalformedXML"),
        (
            rule(
                Filter={"Tag": {"Key": "k", "Value": "v"}},
                Expiration={"ExpiredObjectDeleteMarker": True},
            ),
            "InvalidRequest",
        ),
        (
            rule(
                Filter={"Tag": {"Key": "k", "Value": "v"}},
                AbortIncompleteMultipartUpload={"DaysAfterInitiation": 1},
            ),
            "InvalidRequest",
        ),
        (rule(AbortIncompleteMultipartUpload={"DaysAfterInitiation": 0}), "InvalidArgument"),
        (rule(NoncurrentVersionExpiration={"NoncurrentDays": 0}), "InvalidArgument"),
        (rule(NoncurrentVersionExpiration={"NewerNoncurrentVersions": 1}), "MalformedXML"),
        (
            rule(NoncurrentVersionExpiration={"NoncurrentDays": 1, "NewerNoncurrentVersions": 101}),
            "InvalidArgument",
        ),
        (rule(Transitions=[{"Days": 1, "StorageClass": "STANDARD"}]), "MalformedXML"),
        (rule(Transitions=[{"Days": 29, "StorageClass": "STANDARD_IA"}]), "InvalidArgument"),
        (rule(Transitions=[{"Days": 5, "StorageClass": "GLACIER"}]), "InvalidArgument"),
        (rule(Transitions=[{"Date": MIDNIGHT, "StorageClass": "GLACIER"}]), "InvalidRequest"),
        (
            rule(
                Expiration={"Days": 50},
                Transitions=[
                    {"Days": 1, "StorageClass": "GLACIER"},
                    {"Days": 2, "StorageClass": "GLACIER"},
                ],
            ),
            "InvalidRequest",
        ),
        (
            rule(
                NoncurrentVersionTransitions=[{"NoncurrentDays": 9, "StorageClass": "GLACIER"}],
                NoncurrentVersionExpiration={"NoncurrentDays": 9},
            ),
            "InvalidArgument",
        ),
    ],
)
def test_a_wrong_rule_is_refused(s3: Any, bucket: str, said: dict[str, Any], code: str) -> None:
    assert code_of(put, s3, bucket, said) == (400, code)


def test_rules_have_ids_of_their_own(s3: Any, bucket: str) -> None:
    assert code_of(put, s3, bucket, rule(), rule()) == (400, "InvalidArgument")
    assert code_of(put, s3, bucket) == (400, "MalformedXML")
    many = [rule(ID=f"{n}", Filter={"Prefix": f"{n}"}) for n in range(1001)]
    assert code_of(put, s3, bucket, *many) == (400, "MalformedXML")


def test_many_rules_fit(s3: Any, bucket: str) -> None:
    many = [rule(ID=f"{n}", Filter={"Prefix": f"{n}/"}) for n in range(600)]
    put(s3, bucket, *many)
    assert s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"] == many


def expiry(answer: Any) -> tuple[datetime, str] | None:
    if "Expiration" not in answer:
        return None
    match = re.fullmatch(r'expiry-date="(.+)", rule-id="(.+)"', answer["Expiration"])
    assert match is not None
    date = datetime.strptime(match[1], "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=UTC)
    return date, match[2]


def test_answers_tell_when_an_object_expires(s3: Any, bucket: str) -> None:
    put(
        s3,
        bucket,
        rule(ID="late day", Expiration={"Days": 9}),
        rule(ID="two days", Expiration={"Days": 2}),
        rule(ID="off", Status="Disabled"),
        rule(ID="tagged", Filter={"Tag": {"Key": "k", "Value": "v"}}),
    )
    place = {"Bucket": bucket, "Key": "p/k"}
    made = s3.put_object(**place, Body=b"x")
    date, name = expiry(made) or (MIDNIGHT, "")

    assert name == "two%20days"
    assert (date.hour, date.minute, date.second) == (0, 0, 0)
    left = date - s3.head_object(**place)["LastModified"]
    assert timedelta(days=2) <= left <= timedelta(days=3)
    for answer in (
        s3.head_object(**place),
        s3.get_object(**place),
        s3.get_object(**place, Range="bytes=0-0"),
        s3.copy_object(**place, CopySource=place, MetadataDirective="REPLACE"),
    ):
        assert expiry(answer) == (date, name)
    assert expiry(s3.put_object(Bucket=bucket, Key="other", Body=b"x")) is None
    assert expiry(s3.head_object(Bucket=bucket, Key="other")) is None
    s3.put_object(Bucket=bucket, Key="other", Body=b"x", Tagging="k=v")
    for _ in range(2):
        assert (expiry(s3.head_object(Bucket=bucket, Key="other")) or (0, ""))[1] == "tagged"
    s3.put_object_tagging(Bucket=bucket, Key="other", Tagging={"TagSet": []})
    assert expiry(s3.head_object(Bucket=bucket, Key="other")) is None
    upload = s3.create_multipart_upload(**place)["UploadId"]
    part = s3.upload_part(**place, UploadId=upload, PartNumber=1, Body=b"x")
    done = s3.complete_multipart_upload(
        **place,
        UploadId=upload,
        MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]},
    )
    assert expiry(done) == (date, name)
    s3.delete_bucket_lifecycle(Bucket=bucket)
    assert expiry(s3.head_object(**place)) is None
    assert expiry(s3.get_object(**place)) is None


def test_what_stands_side_by_side_in_a_filter_has_to_hold_together(s3: Any, bucket: str) -> None:
    tag, other = {"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}
    said = [
        ({"Prefix": "", "Tag": tag}, {"Tag": tag}),
        ({"Prefix": "", "ObjectSizeGreaterThan": 5}, {"ObjectSizeGreaterThan": 5}),
        ({"Prefix": "p/", "Tag": tag}, {"And": {"Prefix": "p/", "Tags": [tag]}}),
        (
            {"Prefix": "p/", "Tag": tag, "And": {"Prefix": "p", "Tags": [other]}},
            {"And": {"Prefix": "p/", "Tags": [tag, other]}},
        ),
    ]
    for given, meant in said:
        put(s3, bucket, rule(Filter=given))
        [found] = s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
        assert found["Filter"] == meant
    nothing = {"Prefix": "p/", "And": {"Prefix": "q/", "Tags": [tag]}}
    assert code_of(put, s3, bucket, rule(Filter=nothing)) == (400, "MalformedXML")


def test_a_test_bed_can_do_without_minimums(serve: Any, connect: Any) -> None:
    running = serve(transition_minimums=False)
    s3 = connect(running.url)
    s3.create_bucket(Bucket="hasty")
    move = [{"Days": 1, "StorageClass": "STANDARD_IA"}]

    answer = put(s3, "hasty", rule(Expiration=None, Transitions=move))

    assert answer["TransitionDefaultMinimumObjectSize"] == "varies_by_storage_class"
