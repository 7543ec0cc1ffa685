"""Configurations that are kept and told, as boto3 sees them."""

import asyncio
from typing import Any

import pytest
from botocore.exceptions import ClientError
from warp_core.notifications import DOCUMENT, unpack
from warp_s3.operations.notifications import target_of

HERE = "arn:aws:s3:::elsewhere"
QUEUE = "arn:aws:sqs:us-east-1:123456789012:queue"
TOPIC = "arn:aws:sns:us-east-1:123456789012:topic"


def code_of(call: Any, **named: Any) -> tuple[int, str]:
    with pytest.raises(ClientError) as caught:
        call(**named)
    answer = caught.value.response
    return answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"]


# Those with an id ---------------------------------------------------------------------------------

KINDS = {
    "inventory": {
        "Id": "one",
        "IsEnabled": True,
        "IncludedObjectVersions": "All",
        "Schedule": {"Frequency": "Daily"},
        "Destination": {"S3BucketDestination": {"Bucket": HERE, "Format": "CSV"}},
        "OptionalFields": ["Size", "ETag"],
    },
    "analytics": {"Id": "one", "StorageClassAnalysis": {}},
    "metrics": {"Id": "one", "Filter": {"Prefix": "a&b/"}},
    "intelligent_tiering": {
        "Id": "one",
        "Status": "Enabled",
        "Tierings": [{"AccessTier": "ARCHIVE_ACCESS", "Days": 90}],
    },
}


@pytest.mark.parametrize("kind", KINDS)
def test_configurations_are_kept_by_id(s3: Any, bucket: str, kind: str) -> None:
    def call(verb: str, **more: Any) -> Any:
        plural = "s" if verb == "list" else ""
        return getattr(s3, f"{verb}_bucket_{kind}_configuration{plural}")(Bucket=bucket, **more)

    name = "".join(word.title() for word in kind.split("_")) + "Configuration"
    said = KINDS[kind]
    missing = (404, "NoSuchConfiguration")
    get = getattr(s3, f"get_bucket_{kind}_configuration")
    delete = getattr(s3, f"delete_bucket_{kind}_configuration")
    assert code_of(get, Bucket=bucket, Id="one") == missing
    assert code_of(delete, Bucket=bucket, Id="one") == missing
    assert not call("list").get(f"{name}List")
    for n in range(105):
        call("put", Id=f"n{n:03}", **{name: {**said, "Id": f"n{n:03}"}})
    call("put", Id="one", **{name: said})

    assert call("get", Id="one")[name] == said
    page = call("list")
    assert (len(page[f"{name}List"]), page["IsTruncated"]) == (100, True)
    rest = call("list", ContinuationToken=page["NextContinuationToken"])
    assert (len(rest[f"{name}List"]), rest["IsTruncated"]) == (6, False)
    assert rest[f"{name}List"][-1] == said
    call("delete", Id="one")
    assert code_of(get, Bucket=bucket, Id="one") == missing
    put = getattr(s3, f"put_bucket_{kind}_configuration")
    assert code_of(put, Bucket=bucket, Id="two", **{name: said}) == (400, "InvalidArgument")
    assert code_of(put, Bucket=bucket, Id="a b", **{name: {**said, "Id": "a b"}}) == (
        400,
        "InvalidArgument",
    )


def test_wrong_configurations_are_refused(s3: Any, bucket: str) -> None:
    wrong = {**KINDS["inventory"], "Schedule": {"Frequency": "Hourly"}}
    refused = code_of(
        s3.put_bucket_inventory_configuration,
        Bucket=bucket,
        Id="one",
        InventoryConfiguration=wrong,
    )
    assert refused == (400, "MalformedXML")


# Websites -----------------------------------------------------------------------------------------

RULES = [
    {
        "Condition": {"KeyPrefixEquals": "docs/"},
        "Redirect": {"ReplaceKeyPrefixWith": "documents/"},
    },
    {
        "Condition": {"HttpErrorCodeReturnedEquals": "404"},
        "Redirect": {"HostName": "example.com", "Protocol": "https", "HttpRedirectCode": "302"},
    },
]


@pytest.mark.parametrize(
    "said",
    [
        {"IndexDocument": {"Suffix": "index.html"}},
        {
            "IndexDocument": {"Suffix": "index.html"},
            "ErrorDocument": {"Key": "errors/404.html"},
            "RoutingRules": RULES,
        },
        {"RedirectAllRequestsTo": {"HostName": "example.com", "Protocol": "https"}},
    ],
)
def test_a_website_configuration_comes_back(s3: Any, bucket: str, said: dict[str, Any]) -> None:
    missing = (404, "NoSuchWebsiteConfiguration")
    assert code_of(s3.get_bucket_website, Bucket=bucket) == missing
    s3.put_bucket_website(Bucket=bucket, WebsiteConfiguration=said)
    found = s3.get_bucket_website(Bucket=bucket)
    assert {name: found[name] for name in said} == said
    s3.delete_bucket_website(Bucket=bucket)
    s3.delete_bucket_website(Bucket=bucket)
    assert code_of(s3.get_bucket_website, Bucket=bucket) == missing


INDEX = {"IndexDocument": {"Suffix": "index.html"}}


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ({}, "InvalidArgument"),
        ({"ErrorDocument": {"Key": "e"}}, "InvalidArgument"),
        ({"IndexDocument": {"Suffix": "a/b"}}, "InvalidArgument"),
        ({"IndexDocument": {"Suffix": ""}}, "InvalidArgument"),
        (
            {"RedirectAllRequestsTo": {"HostName": "h", "Protocol": "ftp"}},
            "InvalidRequest",
        ),
        ({**INDEX, "RedirectAllRequestsTo": {"HostName": "h"}}, "InvalidRequest"),
        (
            {
                **INDEX,
                "RoutingRules": [
                    {"Redirect": {"ReplaceKeyPrefixWith": "a", "ReplaceKeyWith": "b"}}
                ],
            },
            "InvalidRequest",
        ),
        (
            {
                **INDEX,
                "RoutingRules": [
                    {
                        "Condition": {"HttpErrorCodeReturnedEquals": "200"},
                        "Redirect": {"HostName": "h"},
                    }
                ],
            },
            "InvalidRequest",
        ),
        (
            {**INDEX, "RoutingRules": [{"Redirect": {"HttpRedirectCode": "200"}}]},
            "InvalidRequest",
        ),
        (
            {**INDEX, "RoutingRules": [{"Redirect": {"HostName": "h"}}] * 51},
            "InvalidRequest",
        ),
    ],
)
def test_a_wrong_website_is_refused(s3: Any, bucket: str, said: dict[str, Any], code: str) -> None:
    assert code_of(s3.put_bucket_website, Bucket=bucket, WebsiteConfiguration=said) == (400, code)


# Notifications ------------------------------------------------------------------------------------


def listening(arn: str = QUEUE, *events: str, **filters: str) -> dict[str, Any]:
    said: dict[str, Any] = {"QueueArn": arn, "Events": list(events or ("s3:ObjectCreated:*",))}
    if filters:
        rules = [{"Name": name, "Value": value} for name, value in filters.items()]
        said["Filter"] = {"Key": {"FilterRules": rules}}
    return said


def test_notifications_come_back_with_ids(s3: Any, bucket: str) -> None:
    assert "QueueConfigurations" not in s3.get_bucket_notification_configuration(Bucket=bucket)
    queue = {"Id": "mine", **listening(QUEUE, "s3:ObjectCreated:Put", prefix="a", suffix=".jpg")}
    topic = {"TopicArn": TOPIC, "Events": ["s3:ObjectRemoved:*"]}
    s3.put_bucket_notification_configuration(
        Bucket=bucket,
        NotificationConfiguration={
            "QueueConfigurations": [queue],
            "TopicConfigurations": [topic],
        },
    )

    found = s3.get_bucket_notification_configuration(Bucket=bucket)
    assert found["QueueConfigurations"] == [queue]
    assert found["TopicConfigurations"][0].pop("Id")
    assert found["TopicConfigurations"] == [topic]
    s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration={})
    assert "QueueConfigurations" not in s3.get_bucket_notification_configuration(Bucket=bucket)


@pytest.mark.parametrize(
    "said",
    [
        [listening("no-arn")],
        [listening(TOPIC)],
        [listening("arn:aws:sqs:us-east-1:123456789012:nowhere")],
        [listening("arn:aws:sqs:us-east-1:123456789012:away")],
        [listening(QUEUE, "s3:ObjectCreated:Never")],
        [listening(prefix="a"), listening(prefix="ab")],
        [listening(), listening(QUEUE, "s3:ObjectCreated:Put")],
        [listening(infix="a")],
        [
            {"Id": "same", **listening(prefix="a")},
            {"Id": "same", **listening(prefix="b")},
        ],
    ],
)
def test_wrong_notifications_are_refused(s3: Any, bucket: str, said: list[dict[str, Any]]) -> None:
    refused = code_of(
        s3.put_bucket_notification_configuration,
        Bucket=bucket,
        NotificationConfiguration={"QueueConfigurations": said},
    )
    assert refused == (400, "InvalidArgument")


def test_notifications_that_no_key_fits_twice_are_taken(s3: Any, bucket: str) -> None:
    s3.put_bucket_notification_configuration(
        Bucket=bucket,
        NotificationConfiguration={
            "QueueConfigurations": [
                listening(prefix="a/"),
                listening(prefix="b/"),
                listening(QUEUE, "s3:ObjectRemoved:*"),
            ]
        },
    )


def test_every_target_gets_a_test_event_first(s3: Any, bucket: str, shared: Any) -> None:
    said = {
        "QueueConfigurations": [listening(prefix="a/"), listening(prefix="b/")],
        "TopicConfigurations": [{"TopicArn": TOPIC, "Events": ["s3:ObjectRemoved:*"]}],
    }
    answer = s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration=said)

    for name in ("queue", "topic"):
        tests = [each for each in shared.sinks[name].taken if each["Bucket"] == bucket]
        assert len(tests) == 1
        assert tests[0]["Event"] == "s3:TestEvent"
        assert tests[0]["RequestId"] == answer["ResponseMetadata"]["RequestId"]


def test_a_target_that_is_away_is_taken_unvalidated_where_the_client_says_so(
    s3: Any, bucket: str
) -> None:
    away = "arn:aws:sqs:us-east-1:123456789012:away"
    s3.put_bucket_notification_configuration(
        Bucket=bucket,
        NotificationConfiguration={"QueueConfigurations": [listening(away)]},
        SkipDestinationValidation=True,
    )

    found = s3.get_bucket_notification_configuration(Bucket=bucket)
    assert found["QueueConfigurations"][0]["QueueArn"] == away


def test_event_bridge_is_refused_since_nothing_would_come(s3: Any, bucket: str) -> None:
    assert code_of(
        s3.put_bucket_notification_configuration,
        Bucket=bucket,
        NotificationConfiguration={"EventBridgeConfiguration": {}},
    ) == (501, "NotImplemented")


@pytest.mark.parametrize(
    ("arn", "tag", "name"),
    [
        (QUEUE, "QueueConfiguration", "queue"),
        (QUEUE, "TopicConfiguration", None),
        ("arn:minio:sqs::queue:webhook", "QueueConfiguration", "queue"),
        ("arn:aws:lambda:eu-west-1:1:function:f", "CloudFunctionConfiguration", "f"),
        ("arn:aws:lambda:eu-west-1:1:function:f:prod", "CloudFunctionConfiguration", "f"),
        ("arn:aws:lambda:eu-west-1:1:layer:f", "CloudFunctionConfiguration", None),
        ("arn:aws-cn:sns:::t", "TopicConfiguration", "t"),
        ("arn:aws:sqs", "QueueConfiguration", None),
    ],
)
def test_an_arn_means_the_target_that_it_ends_with(arn: str, tag: str, name: str | None) -> None:
    assert target_of(arn, tag) == name


def test_a_target_that_stays_is_dated_once(s3: Any, bucket: str, shared: Any) -> None:
    def dates() -> dict[str, int]:
        found = asyncio.run_coroutine_threadsafe(shared.objects.volume(bucket), shared.loop)
        document = found.result(10).documents[DOCUMENT]
        return {rule.target: rule.since_ns for rule in unpack(document).rules}

    queue, topic = [listening()], [{"TopicArn": TOPIC, "Events": ["s3:ObjectRemoved:*"]}]
    s3.put_bucket_notification_configuration(
        Bucket=bucket, NotificationConfiguration={"QueueConfigurations": queue}
    )
    first = dates()
    s3.put_bucket_notification_configuration(
        Bucket=bucket,
        NotificationConfiguration={"QueueConfigurations": queue, "TopicConfigurations": topic},
    )

    assert dates()["queue"] == first["queue"] < dates()["topic"]
