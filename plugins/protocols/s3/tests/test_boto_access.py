"""Who may do what, as boto3 sees it: several accounts and nobody, ACLs, ownership, public access block, policies."""

import contextlib
import json
import urllib.request
from typing import Any

import boto3
import pytest
from botocore import UNSIGNED
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config as ClientConfig
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from warp_core.interfaces.accounts import made_id, made_number
from warp_s3 import router
from warp_s3.access.rules import OPEN, RULES
from warp_s3.operations import HANDLERS

DENIED = (403, "AccessDenied")
ALICE_ID, BOB_ID = made_id("account:alice"), made_id("account:bob")


def code(call: Any, **arguments: Any) -> tuple[int, str]:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    response = caught.value.response
    return response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"]


@pytest.fixture
def open_server(serve: Any) -> Any:
    """A server whose buckets have ACLs, and nothing blocked, unless they say otherwise."""
    return serve(object_ownership="ObjectWriter", block_public_access=False)


@pytest.fixture
def people(open_server: Any, connect: Any) -> tuple[Any, Any, Any]:
    """Alice, Bob and nobody; Alice has the bucket `alices`."""
    made = clients(open_server.url, connect)
    made[0].create_bucket(Bucket="alices")
    return made


def clients(url: str, connect: Any) -> tuple[Any, Any, Any]:
    from botocore.client import BaseClient

    options: dict[str, Any] = {"s3": {"addressing_style": "path"}, "retries": {"max_attempts": 1}}
    nobody: BaseClient = boto3.client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        config=ClientConfig(signature_version=UNSIGNED, **options),
    )
    return connect(url, ALICE), connect(url, BOB), nobody


class _Key:
    def __init__(self, access_key: str, secret: str) -> None:
        self.access_key, self.secret = access_key, secret


ALICE, BOB = _Key("ALICEKEY", "alice-secret"), _Key("BOBKEY", "bob-secret")


def policy(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def allow(action: Any, resource: Any, **more: Any) -> dict[str, Any]:
    base = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": action}
    names = [resource] if isinstance(resource, str) else resource
    return {**base, "Resource": [f"arn:aws:s3:::{name}" for name in names], **more}


# Everything asks ----------------------------------------------------------------------------------


def test_every_operation_has_a_rule_or_is_open() -> None:
    assert RULES.keys() | OPEN == router.OPERATIONS
    assert HANDLERS.keys() <= RULES.keys() | OPEN


def _requests() -> list[tuple[str, str, str, dict[str, str]]]:
    """Give a request for each operation on `alices`: name, method, path with query, headers."""
    found = []
    for (level, method), name in router._PLAIN.items():
        path = ("/", "/alices", "/alices/k")[level]
        found.append((name, method, path, {}))
    for (level, method, parameter), name in router._SUBRESOURCES.items():
        path = ("/", "/alices", "/alices/k")[level] + f"?{parameter}"
        found.append((name, method, path, {}))
    copies = {"x-amz-copy-source": "/bobs/k"}
    found.append(("CopyObject", "PUT", "/alices/k", copies))
    found.append(("UploadPartCopy", "PUT", "/alices/k?partNumber=1&uploadId=1", copies))
    found.append(("ListObjectsV2", "GET", "/alices?list-type=2", {}))
    return found


def _send(url: str, key: _Key | None, method: str, path: str, headers: dict[str, str]) -> int:
    import http.client

    delete = b"<Delete><Object><Key>k</Key></Object></Delete>" if path.endswith("?delete") else b""
    request = AWSRequest(method=method, url=url + path, headers=headers, data=delete)
    if key is not None:
        S3SigV4Auth(Credentials(key.access_key, key.secret), "s3", "us-east-1").add_auth(request)
    connection = http.client.HTTPConnection(url.removeprefix("http://"))
    connection.request(method, path, body=delete, headers=dict(request.headers))
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return 403 if delete and b"<Code>AccessDenied</Code>" in body else answer.status


@pytest.mark.parametrize("key", [BOB, None], ids=["a stranger", "nobody"])
def test_no_operation_lets_strangers_in(serve: Any, connect: Any, key: _Key | None) -> None:
    running = serve()
    alice, bob, _ = clients(running.url, connect)
    alice.create_bucket(Bucket="alices")
    alice.put_object(Bucket="alices", Key="k", Body=b"secret")
    bob.create_bucket(Bucket="bobs")
    bob.put_object(Bucket="bobs", Key="k")
    let_in = {
        (name, path)
        for name, method, path, headers in _requests()
        if _send(running.url, key, method, path, headers) != 403
        and name not in {*OPEN, "ListBuckets", "PostObject"}  # a form says who it is from
    }

    # Making a bucket that is there is refused in another way.
    assert let_in == ({("CreateBucket", "/alices")} if key else set())
    assert alice.get_object(Bucket="alices", Key="k")["Body"].read() == b"secret"


def test_the_requests_of_that_test_are_all_operations() -> None:
    assert {name for name, _, _, _ in _requests()} == router.OPERATIONS


# ACLs ---------------------------------------------------------------------------------------------


def test_canned_acls_of_objects(people: Any) -> None:
    alice, bob, nobody = people
    for acl, for_bob, for_nobody in (
        ("private", False, False),
        ("public-read", True, True),
        ("authenticated-read", True, False),
    ):
        alice.put_object(Bucket="alices", Key="k", Body=b"1", ACL=acl)
        for client, allowed in ((bob, for_bob), (nobody, for_nobody), (alice, True)):
            if allowed:
                assert client.get_object(Bucket="alices", Key="k")["Body"].read() == b"1"
            else:
                assert code(client.get_object, Bucket="alices", Key="k") == DENIED
        assert code(nobody.put_object, Bucket="alices", Key="k", Body=b"2") == DENIED


def test_acls_of_buckets(people: Any) -> None:
    alice, bob, nobody = people
    assert code(bob.list_objects_v2, Bucket="alices") == DENIED
    alice.put_bucket_acl(Bucket="alices", ACL="public-read")
    assert nobody.list_objects_v2(Bucket="alices")["KeyCount"] == 0
    assert code(bob.put_object, Bucket="alices", Key="k") == DENIED
    alice.put_bucket_acl(Bucket="alices", ACL="public-read-write")
    bob.put_object(Bucket="alices", Key="bobs", Body=b"1")
    nobody.put_object(Bucket="alices", Key="nobodys", Body=b"1")
    assert code(bob.get_bucket_versioning, Bucket="alices") == DENIED

    # What others wrote is theirs.
    assert code(alice.get_object, Bucket="alices", Key="bobs") == DENIED
    owners = alice.list_objects(Bucket="alices")["Contents"]
    assert owners[0]["Owner"] == {"ID": BOB_ID, "DisplayName": "Bob"}
    alice.delete_object(Bucket="alices", Key="bobs")


def test_an_acl_is_told_as_it_was_said(people: Any) -> None:
    alice, bob, _ = people
    alice.put_object(Bucket="alices", Key="k")
    shown = alice.get_object_acl(Bucket="alices", Key="k")
    assert shown["Owner"] == {"ID": ALICE_ID, "DisplayName": "Alice"}
    assert [grant["Permission"] for grant in shown["Grants"]] == ["FULL_CONTROL"]
    grants = [
        {"Grantee": {"Type": "CanonicalUser", "ID": BOB_ID}, "Permission": permission}
        for permission in ("READ", "READ_ACP")
    ]
    alice.put_object_acl(
        Bucket="alices", Key="k", AccessControlPolicy={"Owner": shown["Owner"], "Grants": grants}
    )

    assert bob.get_object_acl(Bucket="alices", Key="k")["Grants"] == [
        {
            "Grantee": {"Type": "CanonicalUser", "ID": BOB_ID, "DisplayName": "Bob"},
            "Permission": permission,
        }
        for permission in ("READ", "READ_ACP")
    ]
    assert code(bob.put_object_acl, Bucket="alices", Key="k", ACL="private") == DENIED


def test_grants_in_headers(people: Any) -> None:
    alice, bob, _ = people
    alice.put_object(
        Bucket="alices", Key="k", GrantFullControl=f'id="{ALICE_ID}"', GrantRead=f"id={BOB_ID}"
    )
    bob.head_object(Bucket="alices", Key="k")
    alice.create_bucket(Bucket="another", GrantWrite=f"id={BOB_ID}")
    bob.put_object(Bucket="another", Key="k", ACL="bucket-owner-full-control")
    alice.get_object(Bucket="another", Key="k")
    wrong = code(alice.put_object, Bucket="alices", Key="k", GrantRead="id=nobody-knows")
    assert wrong == (400, "InvalidArgument")
    wrong = code(alice.put_object, Bucket="alices", Key="k", GrantRead="emailAddress=x@y.org")
    assert wrong == (400, "UnresolvableGrantByEmailAddress")
    both = code(alice.put_object, Bucket="alices", Key="k", ACL="private", GrantRead=f"id={BOB_ID}")
    assert both == (400, "InvalidRequest")


def test_acls_belong_to_versions_copies_and_uploads(people: Any) -> None:
    alice, bob, _ = people
    alice.put_bucket_versioning(Bucket="alices", VersioningConfiguration={"Status": "Enabled"})
    one = alice.put_object(Bucket="alices", Key="k", Body=b"1", ACL="public-read")["VersionId"]
    alice.put_object(Bucket="alices", Key="k", Body=b"2")
    assert code(bob.get_object, Bucket="alices", Key="k") == DENIED
    assert bob.get_object(Bucket="alices", Key="k", VersionId=one)["Body"].read() == b"1"
    alice.put_object_acl(Bucket="alices", Key="k", VersionId=one, ACL="private")
    assert code(bob.get_object, Bucket="alices", Key="k", VersionId=one) == DENIED

    # A copy gets none of its source's ACL.
    alice.put_object(Bucket="alices", Key="open", Body=b"3", ACL="public-read")
    alice.copy_object(Bucket="alices", Key="copy", CopySource="alices/open")
    assert code(bob.get_object, Bucket="alices", Key="copy") == DENIED
    bob.create_bucket(Bucket="bobs")
    bob.copy_object(Bucket="bobs", Key="copy", CopySource="alices/open")
    assert code(bob.copy_object, Bucket="bobs", Key="c", CopySource="alices/k") == DENIED

    upload = alice.create_multipart_upload(Bucket="alices", Key="m", ACL="public-read")["UploadId"]
    part = alice.upload_part(Bucket="alices", Key="m", UploadId=upload, PartNumber=1, Body=b"4")
    alice.complete_multipart_upload(
        Bucket="alices",
        Key="m",
        UploadId=upload,
        MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]},
    )
    assert bob.get_object(Bucket="alices", Key="m")["Body"].read() == b"4"


def test_what_is_missing_is_told_to_those_who_may_list(people: Any) -> None:
    alice, bob, nobody = people
    assert code(alice.get_object, Bucket="alices", Key="no") == (404, "NoSuchKey")
    assert code(bob.get_object, Bucket="alices", Key="no") == DENIED
    alice.put_bucket_acl(Bucket="alices", ACL="public-read")
    assert code(nobody.get_object, Bucket="alices", Key="no") == (404, "NoSuchKey")
    alice.put_bucket_acl(Bucket="alices", ACL="private")
    alice.put_bucket_policy(Bucket="alices", Policy=policy(allow("s3:GetObject", "alices/*")))
    assert code(bob.get_object, Bucket="alices", Key="no") == DENIED


def test_a_copy_reads_its_source_as_whoever_asks(people: Any) -> None:
    alice, bob, _ = people
    alice.put_object(Bucket="alices", Key="k")
    bob.create_bucket(Bucket="bobs")

    def copied(key: str, **more: Any) -> tuple[int, str]:
        return code(bob.copy_object, Bucket="bobs", Key="c", CopySource=f"alices/{key}", **more)

    assert copied("k") == DENIED
    assert copied("missing") == DENIED
    alice.put_bucket_policy(Bucket="alices", Policy=policy(allow("s3:GetObject", "alices/*")))
    bob.copy_object(Bucket="bobs", Key="c", CopySource="alices/k")
    assert copied("missing") == DENIED
    assert copied("k", ExpectedSourceBucketOwner="000000000000") == DENIED
    upload = bob.create_multipart_upload(Bucket="bobs", Key="m")["UploadId"]
    part = {"Bucket": "bobs", "Key": "m", "UploadId": upload, "PartNumber": 1}
    bob.upload_part_copy(**part, CopySource="alices/k")
    assert code(bob.upload_part_copy, **part, CopySource="alices/missing") == DENIED
    alice.put_bucket_acl(Bucket="alices", ACL="public-read")
    assert copied("missing") == (404, "NoSuchKey")


# Ownership and public access block ----------------------------------------------------------------


def test_where_ownership_is_enforced_acls_are_off(people: Any) -> None:
    alice, bob, _ = people
    alice.put_object(Bucket="alices", Key="k", ACL="public-read")
    bob.get_object(Bucket="alices", Key="k")
    controls = {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
    alice.put_bucket_ownership_controls(Bucket="alices", OwnershipControls=controls)

    assert code(bob.get_object, Bucket="alices", Key="k") == DENIED
    refused = (400, "AccessControlListNotSupported")
    assert code(alice.put_object, Bucket="alices", Key="k", ACL="public-read") == refused
    assert code(alice.put_object_acl, Bucket="alices", Key="k", ACL="public-read") == refused
    assert code(alice.put_bucket_acl, Bucket="alices", ACL="public-read") == refused
    alice.put_object(Bucket="alices", Key="k", ACL="bucket-owner-full-control")
    alice.delete_bucket_ownership_controls(Bucket="alices")
    missing = (404, "OwnershipControlsNotFoundError")
    assert code(alice.get_bucket_ownership_controls, Bucket="alices") == missing


def test_a_bucket_owner_prefers_what_is_given_to_it(people: Any) -> None:
    alice, bob, _ = people
    alice.create_bucket(
        Bucket="preferring", ObjectOwnership="BucketOwnerPreferred", ACL="public-read-write"
    )
    bob.put_object(Bucket="preferring", Key="given", ACL="bucket-owner-full-control")
    bob.put_object(Bucket="preferring", Key="kept")

    assert alice.get_object_acl(Bucket="preferring", Key="given")["Owner"]["ID"] == ALICE_ID
    assert bob.get_object_acl(Bucket="preferring", Key="kept")["Owner"]["ID"] == BOB_ID


def test_new_buckets_are_as_at_aws(serve: Any, connect: Any) -> None:
    alice, bob, _ = clients(serve().url, connect)
    alice.create_bucket(Bucket="alices")
    wrong = code(alice.create_bucket, Bucket="x-open", ACL="public-read")
    assert wrong == (400, "InvalidBucketAclWithObjectOwnership")
    block = alice.get_public_access_block(Bucket="alices")["PublicAccessBlockConfiguration"]
    assert all(block.values())
    open_to_all = policy(allow("s3:GetObject", "alices/*"))
    assert code(alice.put_bucket_policy, Bucket="alices", Policy=open_to_all) == DENIED
    alice.delete_public_access_block(Bucket="alices")
    gone = (404, "NoSuchPublicAccessBlockConfiguration")
    assert code(alice.get_public_access_block, Bucket="alices") == gone
    alice.put_bucket_policy(Bucket="alices", Policy=open_to_all)
    alice.put_object(Bucket="alices", Key="k")
    bob.get_object(Bucket="alices", Key="k")
    assert alice.get_bucket_policy_status(Bucket="alices")["PolicyStatus"]["IsPublic"]


def test_public_access_block_takes_away_what_is_public(people: Any) -> None:
    alice, bob, nobody = people
    alice.put_bucket_acl(Bucket="alices", ACL="public-read")
    alice.put_object(Bucket="alices", Key="k", ACL="public-read")

    def block(**what: bool) -> None:
        alice.put_public_access_block(Bucket="alices", PublicAccessBlockConfiguration=what)

    block(BlockPublicAcls=True)
    assert code(alice.put_object_acl, Bucket="alices", Key="k", ACL="public-read") == DENIED
    assert code(alice.put_object, Bucket="alices", Key="k", ACL="authenticated-read") == DENIED
    nobody.get_object(Bucket="alices", Key="k")
    block(IgnorePublicAcls=True)
    assert code(nobody.get_object, Bucket="alices", Key="k") == DENIED
    assert code(bob.list_objects, Bucket="alices") == DENIED
    alice.put_bucket_policy(Bucket="alices", Policy=policy(allow("s3:GetObject", "alices/*")))
    bob.get_object(Bucket="alices", Key="k")
    block(RestrictPublicBuckets=True)
    alice.delete_object(Bucket="alices", Key="k")
    alice.put_object(Bucket="alices", Key="k")
    assert code(bob.get_object, Bucket="alices", Key="k") == DENIED
    alice.get_object(Bucket="alices", Key="k")


# Policies -----------------------------------------------------------------------------------------


def test_a_policy_is_given_back_as_it_was_set(people: Any) -> None:
    alice, bob, _ = people
    text = policy(allow("s3:ListBucket", "alices"))
    alice.put_bucket_policy(Bucket="alices", Policy=text)
    assert alice.get_bucket_policy(Bucket="alices")["Policy"] == text
    assert bob.list_objects_v2(Bucket="alices")["KeyCount"] == 0
    assert code(bob.get_bucket_policy, Bucket="alices") == DENIED
    alice.delete_bucket_policy(Bucket="alices")
    assert code(bob.list_objects_v2, Bucket="alices") == DENIED
    assert code(alice.get_bucket_policy, Bucket="alices") == (404, "NoSuchBucketPolicy")
    wrong = code(alice.put_bucket_policy, Bucket="alices", Policy=policy(allow("s3:X", "other")))
    assert wrong == (400, "MalformedPolicy")


def test_deny_holds_for_the_owner_too_but_not_for_its_policy(people: Any) -> None:
    alice, _, _ = people
    alice.put_object(Bucket="alices", Key="k")
    deny = {**allow("s3:*", ["alices", "alices/*"]), "Effect": "Deny"}
    alice.put_bucket_policy(Bucket="alices", Policy=policy(deny))
    assert code(alice.get_object, Bucket="alices", Key="k") == DENIED
    assert code(alice.list_objects, Bucket="alices") == DENIED
    alice.delete_bucket_policy(Bucket="alices")
    alice.get_object(Bucket="alices", Key="k")


def test_principals_are_accounts_of_this_server(people: Any) -> None:
    alice, bob, nobody = people
    alice.put_object(Bucket="alices", Key="k")
    for name in (
        {"AWS": made_number("account:bob")},
        {"AWS": f"arn:aws:iam::{made_number('account:bob')}:root"},
        {"AWS": f"arn:aws:iam::{made_number('account:bob')}:user/bob"},
        {"CanonicalUser": BOB_ID},
    ):
        alice.put_bucket_policy(
            Bucket="alices", Policy=policy(allow("s3:GetObject", "alices/*", Principal=name))
        )
        bob.get_object(Bucket="alices", Key="k")
        assert code(nobody.get_object, Bucket="alices", Key="k") == DENIED
    stranger = allow("s3:GetObject", "alices/*", Principal={"AWS": "000000000000"})
    wrong = code(alice.put_bucket_policy, Bucket="alices", Policy=policy(stranger))
    assert wrong == (400, "MalformedPolicy")


def test_conditions_on_tags_prefixes_headers_and_addresses(people: Any) -> None:
    alice, bob, _ = people
    alice.put_object(Bucket="alices", Key="open", Tagging="security=public")
    alice.put_object(Bucket="alices", Key="shut", Tagging="security=private")
    tagged = {"StringEquals": {"s3:ExistingObjectTag/security": "public"}}
    listing = {
        "StringEquals": {"s3:prefix": "open"},
        "NumericLessThanEquals": {"s3:max-keys": "10"},
    }
    writing = {
        "StringEquals": {"s3:RequestObjectTag/by": "bob"},
        "Bool": {"aws:SecureTransport": "false"},
    }
    encrypted = {"Null": {"s3:x-amz-server-side-encryption": "true"}}
    alice.put_bucket_policy(
        Bucket="alices",
        Policy=policy(
            allow("s3:GetObject", "alices/*", Condition=tagged),
            allow("s3:ListBucket", "alices", Condition=listing),
            allow(["s3:PutObject", "s3:PutObjectTagging"], "alices/in/*", Condition=writing),
            {**allow("s3:PutObject", "alices/must/*", Condition=encrypted), "Effect": "Deny"},
            allow(
                "s3:GetObject",
                "alices/near/*",
                Condition={"IpAddress": {"aws:SourceIp": "127.0.0.1"}},
            ),
            allow(
                "s3:GetObject",
                "alices/far/*",
                Condition={"IpAddress": {"aws:SourceIp": "192.0.2.0/24"}},
            ),
        ),
    )

    bob.get_object(Bucket="alices", Key="open")
    assert code(bob.get_object, Bucket="alices", Key="shut") == DENIED
    bob.list_objects_v2(Bucket="alices", Prefix="open", MaxKeys=10)
    assert code(bob.list_objects_v2, Bucket="alices", Prefix="open", MaxKeys=11) == DENIED
    assert code(bob.list_objects_v2, Bucket="alices", Prefix="shut", MaxKeys=1) == DENIED
    bob.put_object(Bucket="alices", Key="in/1", Tagging="by=bob")
    assert code(bob.put_object, Bucket="alices", Key="in/1", Tagging="by=eve") == DENIED
    assert code(alice.put_object, Bucket="alices", Key="must/1") == DENIED
    alice.put_object(Bucket="alices", Key="near/1")
    alice.put_object(Bucket="alices", Key="far/1")
    bob.get_object(Bucket="alices", Key="near/1")
    assert code(bob.get_object, Bucket="alices", Key="far/1") == DENIED


def test_each_key_of_a_delete_is_judged(people: Any) -> None:
    alice, bob, _ = people
    for key in ("a", "b"):
        alice.put_object(Bucket="alices", Key=key)
    alice.put_bucket_policy(Bucket="alices", Policy=policy(allow("s3:DeleteObject", "alices/a")))
    told = bob.delete_objects(Bucket="alices", Delete={"Objects": [{"Key": "a"}, {"Key": "b"}]})

    assert [one["Key"] for one in told["Deleted"]] == ["a"]
    assert [(one["Key"], one["Code"]) for one in told["Errors"]] == [("b", "AccessDenied")]


def test_where_requesters_pay_others_have_to_say_so(people: Any) -> None:
    alice, bob, nobody = people
    alice.put_object(Bucket="alices", Key="k", ACL="public-read")
    payer = {"Payer": "Requester"}
    alice.put_bucket_request_payment(Bucket="alices", RequestPaymentConfiguration=payer)

    assert alice.get_bucket_request_payment(Bucket="alices")["Payer"] == "Requester"
    alice.get_object(Bucket="alices", Key="k")
    assert code(bob.get_object, Bucket="alices", Key="k") == DENIED
    bob.get_object(Bucket="alices", Key="k", RequestPayer="requester")
    assert code(nobody.get_object, Bucket="alices", Key="k", RequestPayer="requester") == DENIED


def test_only_the_owner_handles_a_policy(people: Any) -> None:
    alice, bob, _ = people
    alice.put_bucket_policy(
        Bucket="alices",
        Policy=policy(allow(["s3:PutBucketPolicy", "s3:GetBucketPolicy"], "alices")),
    )
    assert code(bob.get_bucket_policy, Bucket="alices") == (405, "MethodNotAllowed")
    mine = policy(allow("s3:*", "alices"))
    assert code(bob.put_bucket_policy, Bucket="alices", Policy=mine) == (405, "MethodNotAllowed")


def test_a_snapshot_is_the_owners_and_a_deny_holds_there(people: Any) -> None:
    alice, bob, nobody = people
    # The view of these tests has no snapshots: a bucket of such a name stands for one.
    alice.create_bucket(Bucket="alices.snap-s")
    for key in ("open", "denied"):
        alice.put_object(Bucket="alices", Key=key, ACL="public-read")
        alice.put_object(Bucket="alices.snap-s", Key=key)
    allowed = allow("s3:GetObject", "alices/*")
    denied = {**allow("s3:GetObject", "alices/denied"), "Effect": "Deny"}
    alice.put_bucket_policy(Bucket="alices", Policy=policy(allowed, denied))
    alice.put_bucket_acl(Bucket="alices", ACL="public-read")

    bob.get_object(Bucket="alices", Key="open")
    alice.get_object(Bucket="alices.snap-s", Key="open")
    assert code(alice.get_object, Bucket="alices.snap-s", Key="denied") == DENIED
    for client in (bob, nobody):
        assert code(client.get_object, Bucket="alices.snap-s", Key="open") == DENIED
        assert code(client.list_objects, Bucket="alices.snap-s") == DENIED


@pytest.mark.workspace
def test_an_owner_is_let_in_at_once_while_nothing_else_is_said(
    running_namespace: Any, connect: Any
) -> None:
    alice, bob, _ = clients(running_namespace.url, connect)
    alice.create_bucket(Bucket="alices")
    access = running_namespace.server.service.access
    found: list[bool] = []
    asked = access.enter_now
    access.enter_now = lambda call: found.append(asked(call)) or found[-1]

    def at_once(client: Any) -> bool:
        found.clear()
        with contextlib.suppress(ClientError):
            client.put_object(Bucket="alices", Key="k")
        return found[-1]

    at_once(alice)
    assert at_once(alice)
    assert not at_once(bob)
    deny = {**allow("s3:PutObject", "alices/*"), "Effect": "Deny"}
    alice.put_bucket_policy(Bucket="alices", Policy=policy(deny))
    assert not at_once(alice)
    alice.delete_bucket_policy(Bucket="alices")
    at_once(alice)
    assert at_once(alice)


def test_settings_outlive_a_restart_of_their_readers(open_server: Any, people: Any) -> None:
    alice, bob, _ = people
    alice.put_object(Bucket="alices", Key="k")
    alice.put_bucket_policy(Bucket="alices", Policy=policy(allow("s3:GetObject", "alices/*")))
    open_server.server.service.access._memory._known.clear()

    bob.get_object(Bucket="alices", Key="k")


def test_a_grant_to_the_bucket_owner_is_no_more_than_a_write(people: Any) -> None:
    alice, bob, _ = people
    alice.put_bucket_policy(Bucket="alices", Policy=policy(allow("s3:PutObject", "alices/*")))

    bob.put_object(Bucket="alices", Key="granted", GrantFullControl=f"id={ALICE_ID}")
    bob.put_object(Bucket="alices", Key="canned", ACL="bucket-owner-full-control")

    for more in ({"ACL": "public-read"}, {"GrantRead": f"id={made_id('account:root')}"}):
        assert code(bob.put_object, Bucket="alices", Key="k", **more) == DENIED
    alice.get_object(Bucket="alices", Key="granted")
    alice.get_object(Bucket="alices", Key="canned")


def test_whom_an_acl_lets_write_it_lets_tag_what_is_written(people: Any) -> None:
    alice, bob, _ = people
    assert code(bob.put_object, Bucket="alices", Key="k", Tagging="a=b") == DENIED
    alice.put_bucket_acl(Bucket="alices", ACL="public-read-write")

    bob.put_object(Bucket="alices", Key="k", Tagging="a=b")

    assert bob.get_object_tagging(Bucket="alices", Key="k")["TagSet"] == [
        {"Key": "a", "Value": "b"}
    ]
    deny = {**allow("s3:PutObjectTagging", "alices/*"), "Effect": "Deny"}
    alice.put_bucket_policy(Bucket="alices", Policy=policy(deny))
    assert code(bob.put_object, Bucket="alices", Key="k", Tagging="a=b") == DENIED


def test_a_bucket_is_public_by_its_acl_too(people: Any) -> None:
    alice, _, _ = people

    def public() -> bool:
        status = alice.get_bucket_policy_status(Bucket="alices")["PolicyStatus"]
        return bool(status["IsPublic"])

    assert not public()
    alice.put_bucket_acl(Bucket="alices", ACL="authenticated-read")
    assert public()
    alice.put_public_access_block(
        Bucket="alices", PublicAccessBlockConfiguration={"IgnorePublicAcls": True}
    )
    assert not public()


def test_groups_stand_before_the_owner(people: Any) -> None:
    alice, _, _ = people
    alice.put_bucket_acl(Bucket="alices", ACL="public-read-write")

    grants = alice.get_bucket_acl(Bucket="alices")["Grants"]

    assert [one["Permission"] for one in grants] == ["READ", "WRITE", "FULL_CONTROL"]


def test_a_tenant_before_a_buckets_name_is_nobody(people: Any, open_server: Any) -> None:
    alice, _, _ = people
    alice.put_object(Bucket="alices", Key="k", Body=b"x", ACL="public-read")

    for name in ("%3Aalices", "tenant%3Aalices", "tenant:alices"):
        with urllib.request.urlopen(f"{open_server.url}/{name}/k") as answer:
            assert answer.read() == b"x"


def test_what_nobody_wrote_is_the_bucket_owners(people: Any) -> None:
    alice, bob, nobody = people
    alice.put_bucket_acl(Bucket="alices", ACL="public-read-write")

    nobody.put_object(Bucket="alices", Key="plain", Body=b"x")
    nobody.put_object(Bucket="alices", Key="public", ACL="public-read")

    for key in ("plain", "public"):
        assert alice.get_object_acl(Bucket="alices", Key=key)["Owner"]["ID"] == ALICE_ID
        alice.get_object_tagging(Bucket="alices", Key=key)
    for other in (bob, nobody):
        assert code(other.get_object, Bucket="alices", Key="plain") == DENIED
        other.get_object(Bucket="alices", Key="public")


# Files --------------------------------------------------------------------------------------------


def test_what_a_file_keeps_to_itself_is_not_read_by_key(
    open_server: Any, people: tuple[Any, Any, Any]
) -> None:
    alice, bob, nobody = people
    alice.put_object(Bucket="alices", Key="a", Body=b"x", ACL="public-read")
    alice.put_bucket_policy(
        Bucket="alices",
        Policy=policy(
            allow(["s3:GetObject", "s3:PutObject", "s3:ListBucket"], ["alices", "alices/*"])
        ),
    )
    asked: list[tuple[bytes, str, bool]] = []

    async def readable(volume: str, key: bytes, caller: Any, *, version: str = "") -> bool:
        asked.append((key, caller.name, caller.superuser))
        return False

    assert bob.get_object(Bucket="alices", Key="a")["Body"].read() == b"x"
    open_server.objects.readable = readable

    for reader in (bob, nobody):
        assert code(reader.get_object, Bucket="alices", Key="a") == DENIED
        assert (
            code(reader.get_object_attributes, Bucket="alices", Key="a", ObjectAttributes=["ETag"])
            == DENIED
        )
    bob.create_bucket(Bucket="bobs")
    source = {"Bucket": "alices", "Key": "a"}
    assert code(bob.copy_object, Bucket="bobs", Key="b", CopySource=source) == DENIED
    assert {name for _, name, _ in asked} == {"account:bob", "anonymous"}
    assert not any(superuser for _, _, superuser in asked)
    asked.clear()
    assert alice.get_object(Bucket="alices", Key="a")["Body"].read() == b"x"
    assert bob.list_objects_v2(Bucket="alices")["KeyCount"] == 1
    assert not asked
