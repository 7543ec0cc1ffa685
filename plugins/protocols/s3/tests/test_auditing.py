"""Which requests are put on record, and that the others do not notice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from warp_core.interfaces.audit import Audit, Caller
from warp_core.interfaces.auth import ANONYMOUS, Principal
from warp_s3.auditing import BYPASS, about, about_form, audited, caller_of, is_audited
from warp_s3.call import Answer, empty
from warp_s3.errors import S3Error
from warp_s3.iam.wire import Form
from warp_s3.operations import HANDLERS

ALICE = Principal("account:alice", "Alice")


class Recorder(Audit):
    def __init__(self) -> None:
        self.told: list[tuple[str, str, str, dict[str, object]]] = []

    @asynccontextmanager
    async def change(
        self, caller: Caller, what: str, of: Mapping[str, object]
    ) -> AsyncIterator[None]:
        self.told.append(("begun", caller.name, what, dict(of)))
        try:
            yield
        except Exception as error:
            self.told.append((type(error).__name__, caller.name, what, {}))
            raise
        self.told.append(("ok", caller.name, what, {}))

    async def note(
        self, caller: Caller, what: str, of: Mapping[str, object], *, error: BaseException
    ) -> None:
        self.told.append(("noted", caller.name, what, dict(of)))


def call(**headers: str) -> Any:
    body = SimpleNamespace(client=SimpleNamespace(address="10.0.0.9"))
    return SimpleNamespace(
        principal=ALICE,
        body=body,
        bucket="b",
        key=b"k\xff",
        query={"versionId": "3"},
        headers={name.replace("_", "-"): value for name, value in headers.items()},
    )


def test_whatever_says_who_may_do_what_is_on_record() -> None:
    recorded = {name for name in HANDLERS if is_audited(name)}

    assert {
        "CreateBucket",
        "DeleteBucket",
        "PutBucketPolicy",
        "DeleteBucketPolicy",
        "PutBucketAcl",
        "PutObjectAcl",
        "PutPublicAccessBlock",
        "DeletePublicAccessBlock",
        "PutBucketOwnershipControls",
        "PutObjectLockConfiguration",
        "PutObjectRetention",
        "PutObjectLegalHold",
        "PutBucketVersioning",
        "PutBucketEncryption",
        "PutBucketReplication",
    } <= recorded
    assert not {name for name in recorded if name.startswith(("Get", "List", "Head"))}
    assert not recorded & {"PutObject", "DeleteObject", "CopyObject", "CreateMultipartUpload"}
    changing = {n for n in HANDLERS if n.startswith(("PutBucket", "DeleteBucket"))}
    assert changing <= recorded


def test_what_is_not_on_record_keeps_its_handler() -> None:
    def handler(service: Any, call: Any) -> Answer:
        return empty()

    made = audited({"GetObject": handler, "PutObject": handler, "PutBucketAcl": handler})

    assert made["GetObject"] is handler
    assert made["PutObject"] is handler
    assert made["PutBucketAcl"] is not handler


@pytest.mark.parametrize("refused", [False, True])
def test_a_request_is_on_record_before_and_after(refused: bool) -> None:
    recorder = Recorder()

    def handler(service: Any, call: Any) -> Answer:
        assert [each[0] for each in recorder.told] == ["begun"]
        if refused:
            raise S3Error("MalformedPolicy")
        return empty()

    made = audited({"PutBucketPolicy": handler})["PutBucketPolicy"]
    service: Any = SimpleNamespace(audit=recorder)
    answer: Any = made(service, call(x_amz_acl="private"))
    if refused:
        with pytest.raises(S3Error):
            asyncio.run(answer)
    else:
        assert asyncio.run(answer).status == 200

    told = {"bucket": "b", "key": "k\ufffd", "version": "3", "acl": "private"}
    assert recorder.told == [
        ("begun", "account:alice", "s3:PutBucketPolicy", told),
        ("S3Error" if refused else "ok", "account:alice", "s3:PutBucketPolicy", {}),
    ]


def test_deletions_are_on_record_where_they_bypass_a_lock() -> None:
    recorder = Recorder()
    made = audited({"DeleteObject": lambda service, call: empty(204)})["DeleteObject"]
    service: Any = SimpleNamespace(audit=recorder)

    assert isinstance(made(service, call()), Answer)
    assert recorder.told == []
    bypassing: Any = made(service, call(x_amz_bypass_governance_retention="true"))
    assert asyncio.run(bypassing).status == 204
    assert recorder.told[0][3]["bypass_governance"] == "true"
    assert BYPASS == "x-amz-bypass-governance-retention"


def test_forms_tell_names_and_no_secrets() -> None:
    form = Form(
        {
            "Action": "PutUserPolicy",
            "UserName": "ada",
            "PolicyName": "p",
            "PolicyDocument": "{}",
            "Password": "sesame",
            "WebIdentityToken": "sesame",
        }
    )

    told = about_form(form)
    assert "sesame" not in str(told)
    assert (told["UserName"], told["PolicyName"]) == ("ada", "p")
    assert len(str(told["PolicyDocument_sha256"])) == 64


def test_who_nobody_knows_has_a_name_all_the_same() -> None:
    anonymous = call()
    anonymous.principal = ANONYMOUS

    assert caller_of(anonymous) == Caller("anonymous", "s3", "10.0.0.9")
    assert about(call())["bucket"] == "b"
