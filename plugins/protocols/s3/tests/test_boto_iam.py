"""Users, groups, roles and policies, and temporary credentials, as boto3 sees them: three services on one endpoint."""

import json
import re
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import botocore.session
import pytest
from botocore import xform_name
from botocore.config import Config as ClientConfig
from botocore.exceptions import ClientError
from warp_s3.iam.table import IAM, STS

# The authenticator and the engine are those of other packages.
pytestmark = pytest.mark.workspace

BOB_NUMBER = "222222222222"
ALICE_NUMBER = "111111111111"


class Key(NamedTuple):
    """What signs requests."""

    access_key: str
    secret: str
    token: str | None = None


ALICE, BOB, ADMIN = (
    Key("ALICEKEY", "alice-secret"),
    Key("BOBKEY", "bob-secret"),
    Key("OPKEY", "op-secret"),
)
Connect = Callable[..., Any]


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory, run_server: Any) -> Iterator[str]:
    """A server whose keys, users and roles are kept in an engine."""
    folder = tmp_path_factory.mktemp("iam")
    with run_server(folder, object_ownership="ObjectWriter", block_public_access=False) as running:
        yield running.url


@pytest.fixture(scope="module")
def connect_to(endpoint: str) -> Connect:
    """Make boto3 clients of a service; making one costs more than asking it."""

    @cache
    def connect(service: str, key: Key = ALICE) -> Any:
        options: dict[str, Any] = {"retries": {"max_attempts": 1}}
        if service == "s3":
            options |= {"s3": {"addressing_style": "path"}, "signature_version": "s3v4"}
        return boto3.client(
            service,
            endpoint_url=endpoint,
            aws_access_key_id=key.access_key,
            aws_secret_access_key=key.secret,
            aws_session_token=key.token,
            region_name="us-east-1",
            config=ClientConfig(**options),
        )

    return connect


@pytest.fixture(scope="module")
def iam(connect_to: Connect) -> Any:
    return connect_to("iam")


_names = iter(range(1_000_000))


@pytest.fixture
def name() -> str:
    return f"name-{next(_names)}"


def refused(call: Any, **arguments: Any) -> tuple[int, str]:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    response = caught.value.response
    return response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"]


def statement(effect: str, action: Any, resource: Any = "*", **more: Any) -> dict[str, Any]:
    return {"Effect": effect, "Action": action, "Resource": resource, **more}


def policy(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def trust(principal: Any, action: Any = "sts:AssumeRole", **more: Any) -> str:
    return policy({"Effect": "Allow", "Principal": principal, "Action": action, **more})


ALLOW_S3 = policy(statement("Allow", "s3:*"))
DENIED = (403, "AccessDenied")
MISSING = (404, "NoSuchEntity")


def key_of(iam: Any, user: str) -> Key:
    made = iam.create_access_key(UserName=user)["AccessKey"]
    return Key(made["AccessKeyId"], made["SecretAccessKey"])


def key_of_session(answer: dict[str, Any]) -> Key:
    made = answer["Credentials"]
    return Key(made["AccessKeyId"], made["SecretAccessKey"], made["SessionToken"])


# Users --------------------------------------------------------------------------------------------


def test_a_user_is_made_told_changed_and_forgotten(iam: Any, name: str) -> None:
    made = iam.create_user(UserName=name, Path="/team/", Tags=[{"Key": "k", "Value": "v"}])["User"]

    assert made["Arn"] == f"arn:aws:iam::{ALICE_NUMBER}:user/team/{name}"
    assert made["Tags"] == [{"Key": "k", "Value": "v"}]
    assert refused(iam.create_user, UserName=name.upper()) == (409, "EntityAlreadyExists")
    assert iam.get_user(UserName=name.upper())["User"] == made
    iam.update_user(UserName=name, NewUserName=f"{name}-new", NewPath="/other/")
    assert refused(iam.get_user, UserName=name) == MISSING
    again = iam.get_user(UserName=f"{name}-new")["User"]
    assert (again["UserId"], again["Path"]) == (made["UserId"], "/other/")
    iam.delete_user(UserName=f"{name}-new")
    assert refused(iam.delete_user, UserName=name) == MISSING


def test_users_are_listed_page_by_page_below_a_path(iam: Any, name: str) -> None:
    wanted = [f"{name}-{each}" for each in ("aa", "Ab", "ac", "Ad")]
    for number, each in enumerate(reversed(wanted)):
        iam.create_user(UserName=each, Path=f"/{name}/{number}/")
    pages = iam.get_paginator("list_users")

    for size in (1, 3, 100):
        found = [
            user["UserName"]
            for page in pages.paginate(PathPrefix=f"/{name}/", PaginationConfig={"PageSize": size})
            for user in page["Users"]
        ]
        assert found == wanted
    assert iam.list_users(PathPrefix=f"/{name}/3/")["Users"][0]["UserName"] == wanted[0]


def test_an_account_is_told_as_its_root(iam: Any, connect_to: Connect) -> None:
    assert iam.get_user()["User"]["Arn"] == f"arn:aws:iam::{ALICE_NUMBER}:root"
    identity = connect_to("sts").get_caller_identity()
    assert identity["Arn"] == f"arn:aws:iam::{ALICE_NUMBER}:root"
    assert identity["Account"] == ALICE_NUMBER


def test_accounts_do_not_see_each_others_users(iam: Any, connect_to: Connect, name: str) -> None:
    iam.create_user(UserName=name)
    bob = connect_to("iam", BOB)

    assert refused(bob.get_user, UserName=name) == MISSING
    assert name not in {user["UserName"] for user in bob.list_users()["Users"]}
    bob.create_user(UserName=name)
    assert bob.get_user(UserName=name)["User"]["Arn"].split(":")[4] == BOB_NUMBER


@pytest.mark.parametrize("wrong", ["", "a/b", "a" * 65, "ä", "a b"])
def test_names_that_are_none_are_refused(iam: Any, wrong: str) -> None:
    loose = iam._client_config  # boto3 itself would refuse some of them
    assert loose is not None
    with pytest.raises(Exception, match=r"ValidationError|MissingParameter|Parameter validation"):
        iam.create_user(UserName=wrong)


# Access keys --------------------------------------------------------------------------------------


def test_access_keys_of_a_user(iam: Any, connect_to: Connect, name: str) -> None:
    assert refused(iam.create_access_key, UserName=name) == MISSING
    iam.create_user(UserName=name)
    key = key_of(iam, name)
    sts = connect_to("sts", key)

    assert sts.get_caller_identity()["Arn"].endswith(f":user/{name}")
    assert connect_to("iam", key_of(iam, name)) is not None
    assert refused(iam.create_access_key, UserName=name) == (409, "LimitExceeded")
    iam.update_access_key(UserName=name, AccessKeyId=key.access_key, Status="Inactive")
    assert refused(sts.get_caller_identity) == (403, "InvalidClientTokenId")
    assert refused(connect_to("s3", key).list_buckets) == (403, "InvalidAccessKeyId")
    iam.update_access_key(UserName=name, AccessKeyId=key.access_key, Status="Active")
    assert sts.get_caller_identity()["Account"] == ALICE_NUMBER
    found = iam.list_access_keys(UserName=name)["AccessKeyMetadata"]
    assert key.access_key in {each["AccessKeyId"] for each in found}
    assert refused(iam.delete_user, UserName=name) == (409, "DeleteConflict")
    iam.delete_access_key(UserName=name, AccessKeyId=key.access_key)
    assert refused(iam.delete_access_key, UserName=name, AccessKeyId=key.access_key) == MISSING
    assert refused(sts.get_caller_identity) == (403, "InvalidClientTokenId")


def test_access_keys_of_the_account(iam: Any, connect_to: Connect) -> None:
    made = iam.create_access_key()["AccessKey"]
    key = Key(made["AccessKeyId"], made["SecretAccessKey"])
    s3 = connect_to("s3", key)

    s3.list_buckets()
    iam.update_access_key(AccessKeyId=key.access_key, Status="Inactive")
    assert refused(s3.list_buckets) == (403, "InvalidAccessKeyId")
    listed = {
        each["AccessKeyId"]: each["Status"]
        for page in iam.get_paginator("list_access_keys").paginate(PaginationConfig={"PageSize": 1})
        for each in page["AccessKeyMetadata"]
    }
    assert listed == {"ALICEKEY": "Active", key.access_key: "Inactive"}
    iam.update_access_key(AccessKeyId=key.access_key, Status="Active")
    s3.list_buckets()
    iam.delete_access_key(AccessKeyId=key.access_key)
    assert refused(s3.list_buckets) == (403, "InvalidAccessKeyId")
    assert refused(iam.delete_access_key, AccessKeyId=key.access_key) == MISSING


def test_wrong_signatures_are_refused_in_the_protocols_words(connect_to: Connect) -> None:
    wrong = connect_to("iam", Key("ALICEKEY", "not-her-secret"))
    unknown = connect_to("sts", Key("NOBODYSKEY", "secret"))

    assert refused(wrong.list_users) == (403, "SignatureDoesNotMatch")
    assert refused(unknown.get_caller_identity) == (403, "InvalidClientTokenId")


def test_nobody_and_unknown_operations_are_refused(endpoint: str) -> None:
    import urllib.error
    import urllib.request

    for form, status, code in (
        (b"Action=ListUsers&Version=2010-05-08", 403, b"MissingAuthenticationToken"),
        (b"Action=Nonsense", 400, b"InvalidAction"),
        (b"", 400, b"InvalidAction"),
        (b"\xff\xfe", 400, b"ValidationError"),
        (b"a=1&" * 5000, 400, b"ValidationError"),
        (b"Action=" + b"x" * 300_000, 400, b"RequestEntityTooLarge"),
    ):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(urllib.request.Request(endpoint + "/", data=form), timeout=20)
        body = caught.value.read()
        assert caught.value.code == status
        assert b"<Code>" + code in body
        assert b"<RequestId>" in body


# Policies -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["user", "group", "role"])
def test_inline_policies(iam: Any, name: str, kind: str) -> None:
    noun = f"{kind.title()}Name"
    of = {noun: name}
    put, get = getattr(iam, f"put_{kind}_policy"), getattr(iam, f"get_{kind}_policy")
    listed, delete = getattr(iam, f"list_{kind}_policies"), getattr(iam, f"delete_{kind}_policy")
    assert refused(put, **of, PolicyName="p", PolicyDocument=ALLOW_S3) == MISSING
    more = {"AssumeRolePolicyDocument": trust({"AWS": "*"})} if kind == "role" else {}
    getattr(iam, f"create_{kind}")(**of, **more)

    assert refused(get, **of, PolicyName="p") == MISSING
    assert refused(delete, **of, PolicyName="p") == MISSING
    for each in ("p", "another", "p"):
        put(**of, PolicyName=each, PolicyDocument=ALLOW_S3)
    assert json.dumps(get(**of, PolicyName="p")["PolicyDocument"]) == ALLOW_S3
    assert listed(**of)["PolicyNames"] == ["another", "p"]
    assert listed(**of, MaxItems=1)["Marker"] == "another"
    assert refused(getattr(iam, f"delete_{kind}"), **of) == (409, "DeleteConflict")
    for each in ("p", "another"):
        delete(**of, PolicyName=each)
    getattr(iam, f"delete_{kind}")(**of)


def test_policies_that_are_none_are_refused(iam: Any, name: str) -> None:
    iam.create_user(UserName=name)
    good = statement("Allow", "s3:*")
    for document in (
        "{",
        "[]",
        json.dumps({"Version": "2010-10-17", "Statement": [good]}),
        json.dumps({"Version": "2012-10-17"}),
        policy({**good, "Sid": "a"}, {**good, "Sid": "a"}),
        policy({**good, "Principal": {"AWS": "*"}}),
        policy({**good, "Effect": "Perhaps"}),
        policy({**good, "Action": "everything"}),
        policy({**good, "Resource": "bucket"}),
        policy({"Effect": "Allow", "Action": "s3:*"}),
    ):
        answer = refused(
            iam.put_user_policy, UserName=name, PolicyName="p", PolicyDocument=document
        )
        assert answer == (400, "MalformedPolicyDocument"), document
    long = policy(*[good] * 100)
    answer = refused(iam.put_user_policy, UserName=name, PolicyName="p", PolicyDocument=long)
    assert answer == (409, "LimitExceeded")


def test_managed_policies_and_their_versions(iam: Any, name: str) -> None:
    arn = iam.create_policy(PolicyName=name, PolicyDocument=ALLOW_S3, Description="d")["Policy"][
        "Arn"
    ]
    iam.create_user(UserName=name)
    iam.attach_user_policy(UserName=name, PolicyArn=arn)
    iam.attach_user_policy(UserName=name, PolicyArn=arn)

    assert arn == f"arn:aws:iam::{ALICE_NUMBER}:policy/{name}"
    assert iam.get_policy(PolicyArn=arn)["Policy"]["AttachmentCount"] == 1
    assert iam.list_attached_user_policies(UserName=name)["AttachedPolicies"] == [
        {"PolicyName": name, "PolicyArn": arn}
    ]
    assert iam.list_entities_for_policy(PolicyArn=arn)["PolicyUsers"][0]["UserName"] == name
    assert refused(iam.delete_policy, PolicyArn=arn) == (409, "DeleteConflict")
    deny = policy(statement("Deny", "s3:*"))
    for _ in range(4):
        made = iam.create_policy_version(PolicyArn=arn, PolicyDocument=deny)
    assert made["PolicyVersion"]["VersionId"] == "v5"
    assert refused(iam.create_policy_version, PolicyArn=arn, PolicyDocument=deny) == (
        409,
        "LimitExceeded",
    )
    iam.set_default_policy_version(PolicyArn=arn, VersionId="v3")
    assert refused(iam.delete_policy_version, PolicyArn=arn, VersionId="v3") == (
        409,
        "DeleteConflict",
    )
    found = iam.get_policy_version(PolicyArn=arn, VersionId="v3")["PolicyVersion"]
    assert (json.dumps(found["Document"]), found["IsDefaultVersion"]) == (deny, True)
    for version in ("v1", "v2", "v4", "v5"):
        iam.delete_policy_version(PolicyArn=arn, VersionId=version)
    assert (
        iam.create_policy_version(PolicyArn=arn, PolicyDocument=deny)["PolicyVersion"]["VersionId"]
        == "v6"
    )
    iam.delete_policy_version(PolicyArn=arn, VersionId="v6")
    iam.detach_user_policy(UserName=name, PolicyArn=arn)
    assert refused(iam.detach_user_policy, UserName=name, PolicyArn=arn) == MISSING
    iam.delete_policy(PolicyArn=arn)
    assert refused(iam.get_policy, PolicyArn=arn) == MISSING
    scopes = {
        scope: {each["PolicyName"] for each in iam.list_policies(Scope=scope)["Policies"]}
        for scope in ("AWS", "Local")
    }
    assert "AmazonS3ReadOnlyAccess" in scopes["AWS"]
    assert not scopes["AWS"] & scopes["Local"]


def test_groups_have_members_and_their_policies_count(
    iam: Any, connect_to: Connect, name: str
) -> None:
    iam.create_group(GroupName=name, Path="/g/")
    iam.create_user(UserName=name)
    iam.add_user_to_group(GroupName=name, UserName=name)
    s3 = connect_to("s3", key_of(iam, name))

    assert refused(s3.list_buckets) == DENIED
    iam.attach_group_policy(
        GroupName=name, PolicyArn="arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"
    )
    s3.list_buckets()
    assert refused(s3.create_bucket, Bucket=f"b-{name}") == DENIED
    iam.update_group(GroupName=name, NewGroupName=f"{name}-new", NewPath="/h/")
    found = iam.get_group(GroupName=f"{name}-new")
    assert [user["UserName"] for user in found["Users"]] == [name]
    assert found["Group"]["Arn"].endswith(f":group/h/{name}-new")
    assert iam.list_groups_for_user(UserName=name)["Groups"] == [found["Group"]]
    assert refused(iam.delete_group, GroupName=f"{name}-new") == (409, "DeleteConflict")
    iam.remove_user_from_group(GroupName=f"{name}-new", UserName=name)
    assert refused(s3.list_buckets) == DENIED


# Who may what -------------------------------------------------------------------------------------


@pytest.fixture
def user(iam: Any, connect_to: Connect, name: str) -> Key:
    """A user of Alice's, of this test's name."""
    iam.create_user(UserName=name)
    return key_of(iam, name)


@pytest.fixture
def bucket(connect_to: Connect, name: str) -> str:
    """A bucket of Alice's with an object `k`."""
    s3 = connect_to("s3")
    s3.create_bucket(Bucket=f"b-{name}")
    s3.put_object(Bucket=f"b-{name}", Key="k", Body=b"1")
    return f"b-{name}"


def test_users_may_what_their_policies_say(
    iam: Any, connect_to: Connect, name: str, user: Key, bucket: str
) -> None:
    s3 = connect_to("s3", user)
    of_bucket, of_keys = f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"

    assert refused(s3.get_object, Bucket=bucket, Key="k") == DENIED
    for document, may in (
        (policy(statement("Allow", "s3:GetObject", of_keys)), True),
        (policy(statement("Allow", "s3:Get*", f"{of_bucket}/${{aws:username}}*")), False),
        (policy(statement("Allow", "s3:*"), statement("Deny", "s3:GetObject", of_keys)), False),
        (policy(statement("Allow", "s3:PutObject", of_keys)), False),
        (policy(statement("Allow", "*")), True),
    ):
        iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=document)
        if may:
            s3.get_object(Bucket=bucket, Key="k")
        else:
            assert refused(s3.get_object, Bucket=bucket, Key="k") == DENIED
    s3.put_object(Bucket=bucket, Key="of-user", Body=b"2")
    # What a user makes is its account's.
    s3.create_bucket(Bucket=f"u-{name}")
    connect_to("s3").delete_bucket(Bucket=f"u-{name}")


def test_a_bucket_policy_lets_in_by_name_what_no_identity_policy_allows(
    iam: Any, connect_to: Connect, name: str, user: Key, bucket: str
) -> None:
    s3, alice = connect_to("s3", user), connect_to("s3")
    arn = iam.get_user(UserName=name)["User"]["Arn"]

    def says(effect: str, principal: str) -> None:
        entry = statement(
            effect, "s3:ListBucket", f"arn:aws:s3:::{bucket}", Principal={"AWS": principal}
        )
        alice.put_bucket_policy(Bucket=bucket, Policy=policy(entry))

    says("Allow", arn)
    s3.list_objects(Bucket=bucket)
    says("Allow", ALICE_NUMBER)  # to the account: its own policies have to hand it on
    assert refused(s3.list_objects, Bucket=bucket) == DENIED
    iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=ALLOW_S3)
    s3.list_objects(Bucket=bucket)
    says("Deny", arn)
    assert refused(s3.list_objects, Bucket=bucket) == DENIED
    alice.list_objects(Bucket=bucket)
    unknown = statement("Allow", "s3:*", f"arn:aws:s3:::{bucket}", Principal={"AWS": f"{arn}-none"})
    answer = refused(alice.put_bucket_policy, Bucket=bucket, Policy=policy(unknown))
    assert answer == (400, "MalformedPolicy")


@pytest.mark.parametrize("by", ["arn", "account", "acl"])
def test_across_accounts_both_have_to_allow(
    connect_to: Connect, name: str, bucket: str, by: str
) -> None:
    bob, alice = connect_to("iam", BOB), connect_to("s3")
    arn = bob.create_user(UserName=name)["User"]["Arn"]
    s3 = connect_to("s3", key_of(bob, name))

    def shared() -> None:
        if by == "acl":
            owner = connect_to("s3", BOB).list_buckets()["Owner"]["ID"]
            alice.put_bucket_acl(Bucket=bucket, GrantRead=f"id={owner}")
        else:
            principal = {"AWS": arn if by == "arn" else BOB_NUMBER}
            entry = statement(
                "Allow", "s3:ListBucket", f"arn:aws:s3:::{bucket}", Principal=principal
            )
            alice.put_bucket_policy(Bucket=bucket, Policy=policy(entry))

    bob.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=ALLOW_S3)
    assert refused(s3.list_objects, Bucket=bucket) == DENIED
    shared()
    s3.list_objects(Bucket=bucket)
    bob.delete_user_policy(UserName=name, PolicyName="p")
    assert refused(s3.list_objects, Bucket=bucket) == DENIED


def test_operations_on_users_need_permissions_as_well(
    iam: Any, connect_to: Connect, name: str, user: Key
) -> None:
    other = connect_to("iam", user)
    own = iam.get_user(UserName=name)["User"]["Arn"]

    assert refused(other.list_users) == DENIED
    assert refused(other.get_user) == DENIED
    document = policy(statement("Allow", ["iam:GetUser", "iam:CreateAccessKey"], own))
    iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=document)
    assert other.get_user()["User"]["UserName"] == name
    other.create_access_key()
    assert refused(other.get_user, UserName=f"{name}-other") == DENIED
    assert (
        refused(other.put_user_policy, UserName=name, PolicyName="q", PolicyDocument=ALLOW_S3)
        == DENIED
    )


def test_a_boundary_limits_what_policies_allow(
    iam: Any, connect_to: Connect, name: str, user: Key, bucket: str
) -> None:
    document = policy(statement("Allow", "s3:ListBucket"))
    arn = iam.create_policy(PolicyName=name, PolicyDocument=document)["Policy"]["Arn"]
    iam.put_user_permissions_boundary(UserName=name, PermissionsBoundary=arn)
    iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=ALLOW_S3)
    s3 = connect_to("s3", user)

    s3.list_objects(Bucket=bucket)
    assert refused(s3.get_object, Bucket=bucket, Key="k") == DENIED
    assert refused(iam.delete_policy, PolicyArn=arn) == (409, "DeleteConflict")
    iam.delete_user_permissions_boundary(UserName=name)
    s3.get_object(Bucket=bucket, Key="k")


def test_an_administrator_says_what_an_account_may_do(
    connect_to: Connect, name: str, bucket: str
) -> None:
    admin, bob_iam, bob = connect_to("iam", ADMIN), connect_to("iam", BOB), connect_to("s3", BOB)
    bob.create_bucket(Bucket=f"bobs-{name}")
    entries = (
        statement("Deny", "s3:ListAllMyBuckets"),
        statement("Deny", "s3:ListBucket", f"arn:aws:s3:::bobs-{name}"),
        statement("Allow", "s3:GetObject", f"arn:aws:s3:::{bucket}/*"),
        statement("Allow", "iam:GetUserPolicy", "arn:aws:iam:::user/bob"),
    )
    assert (
        refused(bob_iam.put_user_policy, UserName="bob", PolicyName="p", PolicyDocument=ALLOW_S3)
        == DENIED
    )
    assert (
        refused(bob_iam.put_user_policy, UserName="alice", PolicyName="p", PolicyDocument=ALLOW_S3)
        == MISSING
    )
    # Nor do Bob's users do it for him, whatever he allows them.
    bob_iam.create_user(UserName=name)
    bob_iam.put_user_policy(
        UserName=name, PolicyName="p", PolicyDocument=policy(statement("Allow", "*"))
    )
    helper = connect_to("iam", key_of(bob_iam, name))
    helper.list_users()
    assert (
        refused(helper.put_user_policy, UserName="bob", PolicyName="p", PolicyDocument=ALLOW_S3)
        == DENIED
    )
    arn = "arn:aws:iam::aws:policy/AmazonS3FullAccess"
    assert refused(helper.attach_user_policy, UserName="bob", PolicyArn=arn) == DENIED
    # A user of his account's name is a user.
    bob_iam.create_user(UserName="bob")
    bob_iam.put_user_policy(UserName="bob", PolicyName="p", PolicyDocument=ALLOW_S3)
    assert refused(connect_to("s3", BOB).get_object, Bucket=bucket, Key="k") == DENIED
    bob_iam.delete_user_policy(UserName="bob", PolicyName="p")
    bob_iam.delete_user(UserName="bob")
    admin.put_user_policy(UserName="bob", PolicyName="p", PolicyDocument=policy(*entries))

    try:
        assert refused(bob.list_buckets) == DENIED
        assert refused(bob.list_objects, Bucket=f"bobs-{name}") == DENIED
        bob.put_object(Bucket=f"bobs-{name}", Key="k", Body=b"own")
        assert bob.get_object(Bucket=bucket, Key="k")["Body"].read() == b"1"
        assert refused(bob.put_object, Bucket=bucket, Key="k", Body=b"2") == DENIED
        assert bob_iam.get_user_policy(UserName="bob", PolicyName="p")["PolicyName"] == "p"
        assert refused(bob_iam.delete_user_policy, UserName="bob", PolicyName="p") == DENIED
    finally:
        admin.delete_user_policy(UserName="bob", PolicyName="p")
    bob.list_buckets()


# Roles and sessions -------------------------------------------------------------------------------


@pytest.fixture
def role(iam: Any, name: str, user: Key) -> str:
    """A role that the test's user may become."""
    arn = iam.get_user(UserName=name)["User"]["Arn"]
    made: str = iam.create_role(
        RoleName=name,
        Path="/r/",
        AssumeRolePolicyDocument=trust({"AWS": arn}, ["sts:AssumeRole", "sts:TagSession"]),
        Description="d",
        MaxSessionDuration=7200,
    )["Role"]["Arn"]
    return made


def test_a_role_is_told_and_changed(iam: Any, name: str, role: str) -> None:
    assert role == f"arn:aws:iam::{ALICE_NUMBER}:role/r/{name}"
    found = iam.get_role(RoleName=name.upper())["Role"]
    assert (found["Description"], found["MaxSessionDuration"]) == ("d", 7200)
    iam.update_role(RoleName=name, Description="other", MaxSessionDuration=43200)
    found = iam.get_role(RoleName=name)["Role"]
    assert (found["Description"], found["MaxSessionDuration"]) == ("other", 43200)
    iam.tag_role(RoleName=name, Tags=[{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}])
    iam.untag_role(RoleName=name, TagKeys=["A"])
    assert iam.list_role_tags(RoleName=name)["Tags"] == [{"Key": "b", "Value": "2"}]
    assert name in {each["RoleName"] for each in iam.list_roles(PathPrefix="/r/")["Roles"]}
    answer = refused(iam.create_role, RoleName=f"{name}-2", AssumeRolePolicyDocument=ALLOW_S3)
    assert answer == (400, "MalformedPolicyDocument")
    unknown = trust({"AWS": f"arn:aws:iam::{ALICE_NUMBER}:user/nobody"})
    answer = refused(iam.update_assume_role_policy, RoleName=name, PolicyDocument=unknown)
    assert answer == (400, "MalformedPolicyDocument")


def test_who_becomes_a_role_may_what_the_role_may(
    iam: Any, connect_to: Connect, name: str, user: Key, role: str, bucket: str
) -> None:
    answer = connect_to("sts", user).assume_role(RoleArn=role, RoleSessionName="session")
    key = key_of_session(answer)
    s3 = connect_to("s3", key)

    arn = f"arn:aws:sts::{ALICE_NUMBER}:assumed-role/{name}/session"
    assert answer["AssumedRoleUser"]["Arn"] == arn
    assert connect_to("sts", key).get_caller_identity()["Arn"] == arn
    assert refused(s3.get_object, Bucket=bucket, Key="k") == DENIED
    iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=ALLOW_S3)
    s3.get_object(Bucket=bucket, Key="k")
    url = s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k"})
    import urllib.request

    assert urllib.request.urlopen(url, timeout=20).read() == b"1"
    s3.create_bucket(Bucket=f"r-{name}")
    connect_to("s3").delete_bucket(Bucket=f"r-{name}")
    # The token is a part of the credentials, and so is each of its characters.
    assert (
        refused(connect_to("s3", key._replace(token=None)).list_buckets)[1] == "InvalidAccessKeyId"
    )
    assert refused(connect_to("s3", key._replace(token=key.token[:-4] + "AAAA")).list_buckets) == (
        400,
        "InvalidToken",
    )  # type: ignore[index]
    assert refused(connect_to("s3", key._replace(secret="x" * 40)).list_buckets) == (
        403,
        "SignatureDoesNotMatch",
    )
    assert refused(connect_to("s3", ALICE._replace(token=key.token)).list_buckets) == DENIED
    iam.delete_role_policy(RoleName=name, PolicyName="p")
    iam.delete_role(RoleName=name)
    assert refused(s3.list_buckets) == (403, "InvalidAccessKeyId")


def test_who_is_not_trusted_becomes_nothing(
    iam: Any, connect_to: Connect, name: str, role: str
) -> None:
    iam.create_user(UserName=f"{name}-other")
    iam.put_user_policy(
        UserName=f"{name}-other", PolicyName="p", PolicyDocument=policy(statement("Allow", "*"))
    )
    other = connect_to("sts", key_of(iam, f"{name}-other"))

    assert refused(other.assume_role, RoleArn=role, RoleSessionName="session") == DENIED
    assert refused(other.assume_role, RoleArn=f"{role}-none", RoleSessionName="session") == DENIED
    assert (
        refused(connect_to("sts", BOB).assume_role, RoleArn=role, RoleSessionName="session")
        == DENIED
    )
    for document, may in (
        (trust({"AWS": ALICE_NUMBER}), True),  # and its own policy allows it
        (trust({"AWS": "*"}, Condition={"StringEquals": {"sts:ExternalId": "id-1"}}), False),
        (trust({"AWS": BOB_NUMBER}), False),
    ):
        iam.update_assume_role_policy(RoleName=name, PolicyDocument=document)
        if may:
            other.assume_role(RoleArn=role, RoleSessionName="session")
        else:
            assert refused(other.assume_role, RoleArn=role, RoleSessionName="session") == DENIED
    iam.delete_user_policy(UserName=f"{name}-other", PolicyName="p")
    iam.update_assume_role_policy(RoleName=name, PolicyDocument=trust({"AWS": ALICE_NUMBER}))
    assert refused(other.assume_role, RoleArn=role, RoleSessionName="session") == DENIED


def test_session_policies_and_tags_narrow_a_session(
    iam: Any, connect_to: Connect, name: str, user: Key, role: str, bucket: str
) -> None:
    iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=ALLOW_S3)
    sts = connect_to("sts", user)
    narrow = policy(statement("Allow", "s3:GetObject", f"arn:aws:s3:::{bucket}/*"))
    session = {"RoleArn": role, "RoleSessionName": "session"}

    s3 = connect_to("s3", key_of_session(sts.assume_role(**session, Policy=narrow)))
    s3.get_object(Bucket=bucket, Key="k")
    assert refused(s3.list_objects, Bucket=bucket) == DENIED
    arn = "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"
    s3 = connect_to("s3", key_of_session(sts.assume_role(**session, PolicyArns=[{"arn": arn}])))
    s3.list_objects(Bucket=bucket)
    assert refused(s3.put_object, Bucket=bucket, Key="k", Body=b"2") == DENIED
    tagged = policy(
        statement("Allow", "s3:GetObject", f"arn:aws:s3:::{bucket}/${{aws:PrincipalTag/key}}")
    )
    iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=tagged)
    for value, may in (("k", True), ("other", False)):
        tags = [{"Key": "key", "Value": value}]
        s3 = connect_to("s3", key_of_session(sts.assume_role(**session, Tags=tags)))
        if may:
            s3.get_object(Bucket=bucket, Key="k")
        else:
            assert refused(s3.get_object, Bucket=bucket, Key="k") == DENIED
    assert refused(sts.assume_role, **session, Policy="{") == (400, "MalformedPolicyDocument")
    assert refused(sts.assume_role, **session, DurationSeconds=7201) == (400, "ValidationError")


def test_a_bucket_policy_that_names_a_session_is_not_narrowed(
    iam: Any, connect_to: Connect, name: str, user: Key, role: str, bucket: str
) -> None:
    nothing = policy(statement("Allow", "s3:ListAllMyBuckets"))
    answer = connect_to("sts", user).assume_role(
        RoleArn=role, RoleSessionName="session", Policy=nothing
    )
    s3 = connect_to("s3", key_of_session(answer))

    for principal, may in ((role, False), (answer["AssumedRoleUser"]["Arn"], True)):
        entry = statement(
            "Allow", "s3:GetObject", f"arn:aws:s3:::{bucket}/*", Principal={"AWS": principal}
        )
        connect_to("s3").put_bucket_policy(Bucket=bucket, Policy=policy(entry))
        if may:
            s3.get_object(Bucket=bucket, Key="k")
        else:
            assert refused(s3.get_object, Bucket=bucket, Key="k") == DENIED


def test_session_tokens_of_users_and_accounts(
    iam: Any, connect_to: Connect, name: str, user: Key, bucket: str
) -> None:
    document = policy(
        statement("Allow", "s3:*"),
        statement("Deny", "s3:*", Condition={"BoolIfExists": {"sts:authentication": "false"}}),
    )
    iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=document)
    key = key_of_session(connect_to("sts", user).get_session_token(DurationSeconds=900))

    assert refused(connect_to("s3", user).get_object, Bucket=bucket, Key="k") == DENIED
    connect_to("s3", key).get_object(Bucket=bucket, Key="k")
    assert connect_to("sts", key).get_caller_identity()["Arn"].endswith(f":user/{name}")
    assert refused(connect_to("sts", key).get_session_token) == DENIED
    made = iam.create_access_key()["AccessKey"]
    parent = Key(made["AccessKeyId"], made["SecretAccessKey"])
    of_account = key_of_session(connect_to("sts", parent).get_session_token())
    connect_to("s3", of_account).put_object(Bucket=bucket, Key="k", Body=b"3")
    iam.delete_access_key(AccessKeyId=parent.access_key)
    assert refused(connect_to("s3", of_account).list_buckets) == (403, "InvalidAccessKeyId")


def test_a_session_ends(connect_to: Connect, user: Key, monkeypatch: pytest.MonkeyPatch) -> None:
    from warp_s3.iam import service

    past = time.time() - 3600
    with monkeypatch.context() as patch:
        patch.setattr(service.QueryService, "now_s", lambda self: int(past))
        key = key_of_session(connect_to("sts", user).get_session_token(DurationSeconds=900))

    assert refused(connect_to("s3", key).list_buckets) == (400, "ExpiredToken")
    assert refused(connect_to("sts", key).get_caller_identity) == (403, "ExpiredToken")


def test_providers_of_identities(iam: Any, name: str) -> None:
    url = f"https://{name}.example.com/realm"
    arn = iam.create_open_id_connect_provider(
        Url=url, ClientIDList=["app"], ThumbprintList=["a" * 40]
    )["OpenIDConnectProviderArn"]

    assert arn == f"arn:aws:iam::{ALICE_NUMBER}:oidc-provider/{name}.example.com/realm"
    assert refused(iam.create_open_id_connect_provider, Url=url) == (409, "EntityAlreadyExists")
    iam.add_client_id_to_open_id_connect_provider(OpenIDConnectProviderArn=arn, ClientID="other")
    found = iam.get_open_id_connect_provider(OpenIDConnectProviderArn=arn)
    assert (found["Url"], found["ClientIDList"]) == (url, ["app", "other"])
    assert {"Arn": arn} in iam.list_open_id_connect_providers()["OpenIDConnectProviderList"]
    iam.delete_open_id_connect_provider(OpenIDConnectProviderArn=arn)
    assert refused(iam.get_open_id_connect_provider, OpenIDConnectProviderArn=arn) == MISSING


@pytest.mark.parametrize("kind", ["user", "group", "role"])
def test_managed_policies_are_attached_to_each_kind(iam: Any, name: str, kind: str) -> None:
    of = {f"{kind.title()}Name": name}
    more = {"AssumeRolePolicyDocument": trust({"AWS": "*"})} if kind == "role" else {}
    first, second = (
        f"arn:aws:iam::aws:policy/AmazonS3{each}Access" for each in ("Full", "ReadOnly")
    )
    attach, detach = getattr(iam, f"attach_{kind}_policy"), getattr(iam, f"detach_{kind}_policy")
    listed = getattr(iam, f"list_attached_{kind}_policies")
    assert refused(attach, **of, PolicyArn=first) == MISSING
    getattr(iam, f"create_{kind}")(**of, **more)

    for arn in (second, first, second):
        attach(**of, PolicyArn=arn)
    assert [each["PolicyArn"] for each in listed(**of)["AttachedPolicies"]] == [first, second]
    assert refused(getattr(iam, f"delete_{kind}"), **of) == (409, "DeleteConflict")
    detach(**of, PolicyArn=first)
    assert refused(detach, **of, PolicyArn=first) == MISSING
    assert refused(attach, **of, PolicyArn="arn:aws:iam::aws:policy/Nothing") == MISSING
    assert [each["PolicyArn"] for each in listed(**of)["AttachedPolicies"]] == [second]


def test_tags_of_each_kind(iam: Any, name: str) -> None:
    iam.create_user(UserName=name)
    iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust({"AWS": "*"}))
    arn = iam.create_policy(PolicyName=name, PolicyDocument=ALLOW_S3)["Policy"]["Arn"]
    url = f"https://{name}.example.com"
    provider = iam.create_open_id_connect_provider(Url=url)["OpenIDConnectProviderArn"]
    for noun, of in (
        ("user", {"UserName": name}),
        ("role", {"RoleName": name}),
        ("policy", {"PolicyArn": arn}),
        ("open_id_connect_provider", {"OpenIDConnectProviderArn": provider}),
    ):
        tag = getattr(iam, f"tag_{noun}")
        listed = getattr(iam, f"list_{noun}_tags")
        tag(**of, Tags=[{"Key": "a", "Value": "1"}, {"Key": "b", "Value": ""}])
        tag(**of, Tags=[{"Key": "A", "Value": "2"}])
        getattr(iam, f"untag_{noun}")(**of, TagKeys=["b"])

        assert listed(**of)["Tags"] == [{"Key": "A", "Value": "2"}]
        wrong = [{"Key": "x", "Value": ""}, {"Key": "X", "Value": ""}]
        assert refused(tag, **of, Tags=wrong) == (400, "InvalidInput")
        many = [{"Key": str(number), "Value": ""} for number in range(50)]
        assert refused(tag, **of, Tags=many) == (409, "LimitExceeded")


def test_an_account_has_an_alias(iam: Any) -> None:
    iam.create_account_alias(AccountAlias="alices-lab")
    assert iam.list_account_aliases()["AccountAliases"] == ["alices-lab"]
    assert refused(iam.delete_account_alias, AccountAlias="other") == MISSING
    iam.delete_account_alias(AccountAlias="alices-lab")
    assert iam.list_account_aliases()["AccountAliases"] == []


# Every operation ----------------------------------------------------------------------------------

VALUES = {
    "AssumeRolePolicyDocument": trust({"AWS": "*"}),
    "OpenIDConnectProviderArn": f"arn:aws:iam::{ALICE_NUMBER}:oidc-provider/none.example.com",
    "PermissionsBoundary": "arn:aws:iam::aws:policy/AmazonS3FullAccess",
    "PolicyArn": f"arn:aws:iam::{ALICE_NUMBER}:policy/none",
    "PolicyDocument": ALLOW_S3,
    "RoleArn": f"arn:aws:iam::{ALICE_NUMBER}:role/none",
    "Status": "Active",
    "Tags": [{"Key": "a", "Value": "1"}],
    "ThumbprintList": ["a" * 40],
    "Url": "https://none-of-these.example.com",
    "VersionId": "v1",
}


@pytest.mark.parametrize(
    ("service", "action"), [*(("iam", a) for a in IAM), *(("sts", a) for a in STS)]
)
def test_every_operation_answers_a_real_client(
    connect_to: Connect, service: str, action: str
) -> None:
    client = connect_to(service, BOB)
    shape = client.meta.service_model.operation_model(action).input_shape
    arguments: dict[str, Any] = {}
    for member in shape.required_members if shape is not None else ():
        inner = shape.members[member]
        listed = ["a"] if inner.type_name == "list" else f"none-{action}"
        arguments[member] = VALUES.get(member, listed)

    try:
        answer = getattr(client, xform_name(action))(**arguments)
    except ClientError as error:
        answer = error.response
    told = answer.get("Error", {"Code": "ValidationError", "Message": "none"})
    assert told["Code"] in {
        "NoSuchEntity",
        "ValidationError",
        "AccessDenied",
        "InvalidIdentityToken",
    }
    assert told["Message"]
    assert len(answer["ResponseMetadata"]["RequestId"]) == 36


def test_the_guide_lists_every_operation() -> None:
    guide = Path(__file__).resolve().parents[4] / "docs" / "guides" / "identities.md"
    told = set(re.findall(r"`([A-Z][A-Za-z]+)`", guide.read_text().partition("## Operations")[2]))

    assert IAM.keys() | STS.keys() <= told
    assert not told & _not_there()


def _not_there() -> set[str]:
    """Return what the services have at AWS and not here."""
    session = botocore.session.get_session()
    return {
        name
        for service, known in (("iam", IAM), ("sts", STS))
        for name in session.get_service_model(service).operation_names
        if name not in known
    }
