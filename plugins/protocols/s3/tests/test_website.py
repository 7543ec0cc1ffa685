"""Websites as browsers see them, set up by boto3."""

import http.client
import json
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from warp_s3.errors import S3Error
from warp_s3.website import Rule, Site, check_location

DOMAIN = "s3-website-us-east-1.localhost"
INDEX = {"IndexDocument": {"Suffix": "index.html"}}
WITH_ERRORS = {**INDEX, "ErrorDocument": {"Key": "errors/404.html"}}


class Seen(NamedTuple):
    """What a browser gets."""

    status: int
    headers: http.client.HTTPMessage
    body: str


def look(
    shared: Any, bucket: str, path: str, method: str = "GET", domain: str = DOMAIN, **headers: str
) -> Seen:
    """Ask a website, as a browser does, without following where it leads."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection = http.client.HTTPConnection("127.0.0.1", shared.port, timeout=30)
    try:
        host = f"{bucket}.{domain}" if domain else bucket
        connection.request(method, path, headers={"Host": f"{host}:{shared.port}", **named})
        answer = connection.getresponse()
        return Seen(answer.status, answer.headers, answer.read().decode())
    finally:
        connection.close()


def publish(s3: Any, bucket: str, *, listing: bool = True) -> None:
    """Let everybody read a bucket, and see what is missing."""
    block = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
    s3.put_public_access_block(
        Bucket=bucket, PublicAccessBlockConfiguration=dict.fromkeys(block, False)
    )
    what = [("s3:GetObject", f"arn:aws:s3:::{bucket}/*")]
    if listing:
        what.append(("s3:ListBucket", f"arn:aws:s3:::{bucket}"))
    statements = [
        {"Effect": "Allow", "Principal": "*", "Action": action, "Resource": resource}
        for action, resource in what
    ]
    policy = json.dumps({"Version": "2012-10-17", "Statement": statements})
    s3.put_bucket_policy(Bucket=bucket, Policy=policy)


def put(s3: Any, bucket: str, key: str, body: str = "", **more: Any) -> None:
    s3.put_object(
        Bucket=bucket, Key=key, Body=body or f"this is {key}", ContentType="text/html", **more
    )


@pytest.fixture
def site(s3: Any, bucket: str) -> str:
    """A bucket with a website, open to everybody."""
    publish(s3, bucket)
    s3.put_bucket_website(Bucket=bucket, WebsiteConfiguration=WITH_ERRORS)
    for key in ("index.html", "docs/index.html", "page", "errors/404.html", "a b+ü%"):
        put(s3, bucket, key)
    return bucket


def test_a_path_shows_its_object_or_the_index_of_its_directory(shared: Any, site: str) -> None:
    for path, key in (
        ("/", "index.html"),
        ("/?versionId=x&acl", "index.html"),
        ("/docs/", "docs/index.html"),
        ("/page", "page"),
        ("/a%20b+%C3%BC%25", "a b+ü%"),
    ):
        for domain in (DOMAIN, "s3-website.us-east-1.localhost"):
            seen = look(shared, site, path, domain=domain)
            assert (seen.status, seen.body) == (200, f"this is {key}")
            assert seen.headers["Content-Type"] == "text/html"
        seen = look(shared, site, path, "HEAD")
        assert (seen.status, seen.body) == (200, "")
        assert int(seen.headers["Content-Length"]) == len(f"this is {key}".encode())


def test_a_directory_without_its_slash_is_sent_to_it(shared: Any, site: str) -> None:
    seen = look(shared, site, "/docs")
    assert (seen.status, seen.headers["Location"], seen.body) == (302, "/docs/", "")


def test_a_signature_changes_nothing(shared: Any, s3: Any, bucket: str) -> None:
    s3.put_bucket_website(Bucket=bucket, WebsiteConfiguration=INDEX)
    put(s3, bucket, "index.html")
    for header in ("AWS4-HMAC-SHA256 nonsense", "AWS ROOTKEY:nonsense"):
        assert look(shared, bucket, "/", Authorization=header).status == 403


def test_what_is_missing_is_told_by_the_page_of_the_bucket(shared: Any, site: str) -> None:
    for header in ({}, {"Range": "bytes=1-2"}, {"If_None_Match": "*"}):
        seen = look(shared, site, "/missing", **header)
        assert (seen.status, seen.body) == (404, "this is errors/404.html")
        assert seen.headers["x-amz-error-code"] == "NoSuchKey"
    assert look(shared, site, "/missing", "HEAD").status == 404


def test_without_such_a_page_errors_are_told_as_on_aws(shared: Any, s3: Any, site: str) -> None:
    s3.put_bucket_website(Bucket=site, WebsiteConfiguration=INDEX)
    seen = look(shared, site, "/<b>")
    assert seen.status == 404
    assert seen.headers["Content-Type"].startswith("text/html")
    assert seen.headers["x-amz-error-code"] == "NoSuchKey"
    assert seen.headers["x-amz-error-detail-Key"] == "<b>"
    for line in (
        "<title>404 Not Found</title>",
        "<li>Code: NoSuchKey</li>",
        "<li>Message: The specified key does not exist.</li>",
        "<li>Key: &lt;b&gt;</li>",
        f"<li>RequestId: {seen.headers['x-amz-request-id']}</li>",
        "<li>HostId: ",
    ):
        assert line in seen.body
    head = look(shared, site, "/<b>", "HEAD")
    assert (head.status, head.body, head.headers["x-amz-error-code"]) == (404, "", "NoSuchKey")


def test_a_page_for_errors_that_is_missing_is_an_error_itself(
    shared: Any, s3: Any, site: str
) -> None:
    s3.delete_object(Bucket=site, Key="errors/404.html")
    seen = look(shared, site, "/missing")
    assert seen.status == 404
    assert "An Error Occurred While Attempting to Retrieve a Custom Error Document" in seen.body
    assert "<li>Key: missing</li>" in seen.body
    assert "<li>Key: errors/404.html</li>" in seen.body


def test_who_may_not_list_is_not_told_what_is_missing(shared: Any, s3: Any, site: str) -> None:
    publish(s3, site, listing=False)
    assert look(shared, site, "/page").status == 200
    assert look(shared, site, "/docs").status == 302
    seen = look(shared, site, "/missing")
    assert (seen.status, seen.headers["x-amz-error-code"]) == (403, "AccessDenied")
    assert seen.body == "this is errors/404.html"


def test_what_is_private_stays_so(shared: Any, s3: Any, site: str) -> None:
    s3.delete_bucket_policy(Bucket=site)
    for path in ("/", "/page", "/docs", "/missing"):
        seen = look(shared, site, path)
        assert (seen.status, seen.headers["x-amz-error-code"]) == (403, "AccessDenied")
        assert "this is" not in seen.body


def test_nothing_can_be_changed(shared: Any, site: str) -> None:
    for method in ("PUT", "POST", "DELETE", "PATCH"):
        seen = look(shared, site, "/page", method)
        assert (seen.status, seen.headers["Allow"]) == (405, "GET, HEAD, OPTIONS")
        assert "<li>Code: MethodNotAllowed</li>" in seen.body
        assert f"<li>Method: {method}</li>" in seen.body
    assert look(shared, site, "/page").body == "this is page"


def test_what_is_no_website_says_what_it_is(shared: Any, s3: Any, bucket: str) -> None:
    seen = look(shared, bucket, "/")
    assert (seen.status, seen.headers["x-amz-error-code"]) == (404, "NoSuchWebsiteConfiguration")
    assert f"<li>BucketName: {bucket}</li>" in seen.body
    assert look(shared, "nobody-s", "/").headers["x-amz-error-code"] == "NoSuchBucket"
    assert look(shared, DOMAIN, "/", domain="").headers["x-amz-error-code"] == "NoSuchBucket"
    assert look(shared, bucket, "/%C3%28").headers["x-amz-error-code"] == "InvalidURI"
    assert look(shared, bucket, f"/{'k' * 1025}").headers["x-amz-error-code"] == "KeyTooLongError"


def test_ranges_and_conditions_hold(shared: Any, s3: Any, site: str) -> None:
    seen = look(shared, site, "/page", Range="bytes=5-6")
    assert (seen.status, seen.body, seen.headers["Content-Range"]) == (206, "is", "bytes 5-6/12")
    etag = look(shared, site, "/page").headers["ETag"]
    assert look(shared, site, "/page", If_None_Match=etag).status == 304
    s3.put_bucket_website(Bucket=site, WebsiteConfiguration=INDEX)
    seen = look(shared, site, "/page", If_Match='"other"')
    assert (seen.status, "<li>Code: PreconditionFailed</li>" in seen.body) == (412, True)
    assert look(shared, site, "/page", Range="bytes=99-").status == 416


def test_all_requests_can_be_sent_elsewhere(shared: Any, s3: Any, bucket: str) -> None:
    said = {"RedirectAllRequestsTo": {"HostName": "example.com", "Protocol": "https"}}
    s3.put_bucket_website(Bucket=bucket, WebsiteConfiguration=said)
    seen = look(shared, bucket, "/a%20b?c=d")
    assert (seen.status, seen.headers["Location"]) == (301, "https://example.com/a%20b?c=d")
    said = {"RedirectAllRequestsTo": {"HostName": "example.com"}}
    s3.put_bucket_website(Bucket=bucket, WebsiteConfiguration=said)
    assert look(shared, bucket, "/").headers["Location"] == "http://example.com/"


RULES = [
    {"Condition": {"KeyPrefixEquals": "old/"}, "Redirect": {"ReplaceKeyPrefixWith": "new/"}},
    {
        "Condition": {"KeyPrefixEquals": "one/", "HttpErrorCodeReturnedEquals": "404"},
        "Redirect": {"ReplaceKeyWith": "page", "HttpRedirectCode": "307"},
    },
    {
        "Condition": {"HttpErrorCodeReturnedEquals": "404"},
        "Redirect": {"HostName": "example.com", "Protocol": "https", "ReplaceKeyPrefixWith": "#!/"},
    },
]


def test_rules_lead_elsewhere(shared: Any, s3: Any, site: str) -> None:
    said = {**WITH_ERRORS, "RoutingRules": RULES}
    s3.put_bucket_website(Bucket=site, WebsiteConfiguration=said)
    here = f"http://{site}.{DOMAIN}:{shared.port}"
    for path, status, location in (
        ("/old/a%20b", 301, f"{here}/new/a%20b"),
        ("/old/", 301, f"{here}/new/"),
        ("/one/two", 307, f"{here}/page"),
        ("/two", 301, "https://example.com/#!/two"),
        ("/page", 200, None),
        ("/docs", 302, "/docs/"),
    ):
        seen = look(shared, site, path)
        assert (path, seen.status, seen.headers["Location"]) == (path, status, location)


def test_an_object_can_say_where_its_page_is(shared: Any, s3: Any, site: str) -> None:
    where = "https://example.com/other"
    put(s3, site, "put", WebsiteRedirectLocation=where)
    upload = s3.create_multipart_upload(Bucket=site, Key="parts", WebsiteRedirectLocation=where)
    named = {"Bucket": site, "Key": "parts", "UploadId": upload["UploadId"]}
    part = s3.upload_part(**named, PartNumber=1, Body=b"part")
    s3.complete_multipart_upload(
        **named, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    )
    source = {"Bucket": site, "Key": "put"}
    s3.copy_object(Bucket=site, Key="copy", CopySource=source)
    s3.copy_object(
        Bucket=site, Key="sent", CopySource=f"{site}/page", WebsiteRedirectLocation=where
    )

    for key in ("put", "parts", "sent"):
        seen = look(shared, site, f"/{key}")
        assert (seen.status, seen.headers["Location"], seen.body) == (301, where, "")
        assert s3.head_object(Bucket=site, Key=key)["WebsiteRedirectLocation"] == where
    assert look(shared, site, "/copy").body == "this is put"  # as on AWS it is not copied
    s3.copy_object(
        Bucket=site, Key="copy", CopySource=f"{site}/copy", WebsiteRedirectLocation=where
    )
    assert look(shared, site, "/copy").status == 301
    s3.delete_bucket_policy(Bucket=site)
    assert look(shared, site, "/put").status == 403


def test_another_kind_of_place_is_refused(s3: Any, bucket: str) -> None:
    with pytest.raises(s3.exceptions.ClientError, match="InvalidRedirectLocation"):
        put(s3, bucket, "key", WebsiteRedirectLocation="page")
    with pytest.raises(s3.exceptions.ClientError, match="MetadataTooLarge"):
        put(s3, bucket, "key", WebsiteRedirectLocation="/" * 2049)


def test_pages_of_other_origins_may_read_what_the_bucket_lets_them(
    shared: Any, s3: Any, site: str
) -> None:
    rule = {"AllowedOrigins": ["https://a.example"], "AllowedMethods": ["GET"]}
    s3.put_bucket_cors(Bucket=site, CORSConfiguration={"CORSRules": [rule]})
    name = "Access-Control-Allow-Origin"
    for path in ("/", "/missing"):
        seen = look(shared, site, path, Origin="https://a.example")
        assert seen.headers[name] == "https://a.example"
        assert look(shared, site, path, Origin="https://b.example").headers[name] is None
    asked = {"Access_Control_Request_Method": "GET"}
    seen = look(shared, site, "/", "OPTIONS", Origin="https://a.example", **asked)
    assert (seen.status, seen.headers[name]) == (200, "https://a.example")
    seen = look(shared, site, "/", "OPTIONS", Origin="https://b.example", **asked)
    assert (seen.status, "<li>Code: AccessForbidden</li>" in seen.body) == (403, True)


def test_a_bucket_of_a_hosts_name_is_its_website(serve: Any, connect: Any) -> None:
    running = serve(website_domains=("web.test",), website_hosts=("www.example.com",))
    s3 = connect(running.url)
    s3.create_bucket(Bucket="www.example.com")
    s3.put_bucket_website(Bucket="www.example.com", WebsiteConfiguration=INDEX)
    publish(s3, "www.example.com")
    put(s3, "www.example.com", "index.html")

    assert look(running, "WWW.example.com", "/", domain="").body == "this is index.html"
    assert look(running, "www.example.com", "/", domain="web.test").body == "this is index.html"


texts = st.text(max_size=8)


@given(prefix=texts, rest=texts, new=texts)
def test_a_replaced_prefix_keeps_what_follows_it(prefix: str, rest: str, new: str) -> None:
    plain = Rule(prefix=prefix).location(rest, "http", "h")
    replaced = Rule(prefix=prefix, key_prefix=new).location(prefix + rest, "http", "h")
    assert replaced.endswith(plain.removeprefix("http://h/"))
    assert replaced.isascii()
    assert "\n" not in replaced


@given(st.lists(st.tuples(texts, st.sampled_from([0, 403, 404])), max_size=6), texts)
def test_the_first_rule_that_fits_counts(rules: list[tuple[str, int]], key: str) -> None:
    made = tuple(Rule(prefix=prefix, error=error) for prefix, error in rules)
    for error in (0, 403, 404):
        fitting = [rule for rule in made if rule.error == error and key.startswith(rule.prefix)]
        assert Site(rules=made).rule(key, error) == (fitting[0] if fitting else None)


def test_a_place_is_checked() -> None:
    check_location("/" * 2048)
    for wrong in ("", "ftp://h/", "//h"[2:]):
        with pytest.raises(S3Error):
            check_location(wrong)
