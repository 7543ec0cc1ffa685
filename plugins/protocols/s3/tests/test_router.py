"""Routes: every operation that botocore can send is recognised."""

import botocore.session
import pytest
from hypothesis import given
from hypothesis import strategies as st
from warp_s3.errors import S3Error
from warp_s3.http import parse_head
from warp_s3.router import HOSTS_MAX, OPERATIONS, PARAMETERS_MAX, Route, Router

MODEL = botocore.session.get_session().get_service_model("s3")

# botocore's names for what the router calls otherwise: older names of the same request, requests
# told apart by a header or an `x-id`, and those of directory buckets that share another's shape.
RENAMED = {
    "CompleteMultipartUpload": "CompleteMultipartUpload",
    "CreateBucketMetadataConfiguration": "CreateBucketMetadataConfiguration",
    "GetBucketLifecycle": "GetBucketLifecycleConfiguration",
    "GetBucketNotification": "GetBucketNotificationConfiguration",
    "PutBucketLifecycle": "PutBucketLifecycleConfiguration",
    "PutBucketNotification": "PutBucketNotificationConfiguration",
    "DeleteBucketLifecycle": "DeleteBucketLifecycleConfiguration",
    "ListBucketAnalyticsConfigurations": "GetBucketAnalyticsConfiguration",
    "ListBucketIntelligentTieringConfigurations": "GetBucketIntelligentTieringConfiguration",
    "ListBucketInventoryConfigurations": "GetBucketInventoryConfiguration",
    "ListBucketMetricsConfigurations": "GetBucketMetricsConfiguration",
    "ListObjectAnnotations": "GetObjectAnnotation",
    "UpdateObjectEncryption": "PutObjectEncryption",
    "UpdateBucketMetadataAnnotationTableConfiguration": "UpdateBucketMetadataAnnotationTable",
    "UpdateBucketMetadataInventoryTableConfiguration": "UpdateBucketMetadataInventoryTable",
    "UpdateBucketMetadataJournalTableConfiguration": "UpdateBucketMetadataJournalTable",
    "ListDirectoryBuckets": "ListBuckets",
}
BY_HEADER = {"CopyObject", "UploadPartCopy"}
BY_PARAMETER = {"AbortMultipartUpload", "CompleteMultipartUpload", "ListParts", "UploadPart"}
ELSEWHERE = {"WriteGetObjectResponse"}  # has a host of its own in S3


def route(
    method: str, target: str, *fields: str, host: str = "localhost", domains: tuple[str, ...] = ()
) -> Route:
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", *fields]
    return Router(domains).route(parse_head("\r\n".join(lines).encode()))


@pytest.mark.parametrize(
    "name", sorted(set(MODEL.operation_names) - BY_HEADER - BY_PARAMETER - ELSEWHERE)
)
def test_every_operation_of_botocore_is_recognised(name: str) -> None:
    http = MODEL.operation_model(name).http
    target = http["requestUri"].replace("{Bucket}", "bucket").replace("{Key+}", "key")

    assert route(http["method"], target).operation == RENAMED.get(name, name)
    assert RENAMED.get(name, name) in OPERATIONS


@pytest.mark.parametrize(
    ("method", "target", "fields", "operation"),
    [
        ("PUT", "/b/k", ["x-amz-copy-source: /b/o"], "CopyObject"),
        ("PUT", "/b/k?partNumber=1&uploadId=u", ["x-amz-copy-source: /b/o"], "UploadPartCopy"),
        ("PUT", "/b/k?partNumber=1&uploadId=u", [], "UploadPart"),
        ("POST", "/b/k?uploadId=u", [], "CompleteMultipartUpload"),
        ("DELETE", "/b/k?uploadId=u", [], "AbortMultipartUpload"),
        ("GET", "/b/k?uploadId=u", [], "ListParts"),
        ("GET", "/b/k?partNumber=1", [], "GetObject"),
        ("GET", "/b/k?x-id=GetObject&versionId=v", [], "GetObject"),
        ("HEAD", "/b/k?versionId=v", [], "HeadObject"),
        ("GET", "/b?list-type=2&prefix=x", [], "ListObjectsV2"),
        ("GET", "/b?list-type=1", [], "ListObjects"),
        ("GET", "/?x-id=ListBuckets", [], "ListBuckets"),
        ("POST", "/b", [], "PostObject"),
        ("OPTIONS", "/b/k", [], "Preflight"),
    ],
)
def test_what_the_path_alone_does_not_say(
    method: str, target: str, fields: list[str], operation: str
) -> None:
    assert route(method, target, *fields).operation == operation


@pytest.mark.parametrize(
    ("target", "bucket", "key"),
    [
        ("/", "", b""),
        ("/b", "b", b""),
        ("/b/", "b", b""),
        ("/b/k", "b", b"k"),
        ("/b//k", "b", b"/k"),
        ("/b/a/./../c", "b", b"a/./../c"),
        ("/b/a%2Fb%20c+d", "b", b"a/b c+d"),
        ("/b/%C3%A9", "b", "é".encode()),
        ("/b/%00", "b", b"\0"),
        ("/%62/k", "b", b"k"),
    ],
)
def test_paths_name_bucket_and_key(target: str, bucket: str, key: bytes) -> None:
    found = route("GET", target)

    assert (found.bucket, found.key) == (bucket, key)


@pytest.mark.parametrize(
    ("host", "bucket", "key"),
    [
        ("s3.example", "b", b"k"),
        ("s3.example:9000", "b", b"k"),
        ("mine.s3.example", "mine", b"b/k"),
        ("My.Bucket.S3.Example:9000", "my.bucket", b"b/k"),
        ("mine.s3.example.evil", "b", b"k"),
        ("s3.example.", "b", b"k"),
        ("[::1]:9000", "b", b"k"),
        ("[::1]", "b", b"k"),
        ("127.0.0.1:9000", "b", b"k"),
    ],
)
def test_hosts_below_a_domain_are_buckets(host: str, bucket: str, key: bytes) -> None:
    found = route("GET", "/b/k", host=host, domains=("s3.example",))

    assert (found.bucket, found.key) == (bucket, key)


def test_hosts_are_remembered_within_a_limit() -> None:
    router = Router(["s3.example"])
    for number in range(HOSTS_MAX + 10):
        head = b"GET / HTTP/1.1\r\nHost: b%d.s3.example" % number
        assert router.route(parse_head(head)).bucket == f"b{number}"
    assert len(router._hosts) <= HOSTS_MAX


@pytest.mark.parametrize(
    ("method", "target", "code"),
    [
        ("PATCH", "/b/k", "MethodNotAllowed"),
        ("PUT", "/", "MethodNotAllowed"),
        ("POST", "/b/k", "MethodNotAllowed"),
        ("GET", "/b/k?uploads", "MethodNotAllowed"),
        ("PUT", "/b/k?versions", "MethodNotAllowed"),
        ("DELETE", "/b/k?acl", "MethodNotAllowed"),
        ("GET", "/b/%", "InvalidURI"),
        ("GET", "/b/%zz", "InvalidURI"),
        ("GET", "/b/%ff", "InvalidURI"),
        ("GET", "/b?prefix=%f", "InvalidURI"),
        ("GET", "/b/" + "k" * 1025, "KeyTooLongError"),
        ("GET", "/b/" + "%C3%A9" * 513, "KeyTooLongError"),
        ("GET", "/b?" + "a&" * PARAMETERS_MAX, "InvalidArgument"),
    ],
)
def test_what_means_nothing_is_refused(method: str, target: str, code: str) -> None:
    with pytest.raises(S3Error) as caught:
        route(method, target)

    assert caught.value.code == code


def test_queries_are_decoded_and_the_first_of_equal_names_wins() -> None:
    query = route("GET", "/b?prefix=a%2Fb+c&prefix=d&delimiter=&marker&&=x").query

    assert query == {"prefix": "a/b c", "delimiter": "", "marker": ""}


@given(
    st.sampled_from(["GET", "PUT", "POST", "DELETE", "HEAD", "OPTIONS", "TRACE"]),
    st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=60),
)
def test_any_target_gets_a_route_or_an_answer(method: str, target: str) -> None:
    try:
        found = route(method, "/" + target)
    except S3Error as error:
        code = error.code
    else:
        code = "" if found.operation in OPERATIONS else "unknown"
    assert code in {"", "MethodNotAllowed", "InvalidURI", "InvalidArgument"}
