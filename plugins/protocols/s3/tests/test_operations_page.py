"""The page about operations says what is so."""

import re
from pathlib import Path

import botocore.session
import pytest
from botocore import xform_name
from warp_s3.operations import HANDLERS

ROOT = Path(__file__).resolve().parents[4]
PAGE = ROOT / "docs/guides/s3-operations.md"
ROW = re.compile(r"\| (\w+) \| (yes|partly|no) \| (.*) \|")
KINDS = ("Analytics", "IntelligentTiering", "Inventory", "Metrics")

pytestmark = pytest.mark.workspace

# Names of the client to those of the server's table, where they differ.
CALLED = {
    "DeleteBucketLifecycle": "DeleteBucketLifecycleConfiguration",
    "GetBucketLifecycle": "GetBucketLifecycleConfiguration",
    "PutBucketLifecycle": "PutBucketLifecycleConfiguration",
    "GetBucketNotification": "GetBucketNotificationConfiguration",
    "PutBucketNotification": "PutBucketNotificationConfiguration",
    **{f"ListBucket{kind}Configurations": f"GetBucket{kind}Configuration" for kind in KINDS},
}

# Tested by another name: test_boto_configurations.py makes these of their parts, the rest is no method of the client.
OTHERWISE = {
    *(f"{verb}Bucket{kind}Configuration" for kind in KINDS for verb in ("Get", "Put", "Delete")),
    *(f"ListBucket{kind}Configurations" for kind in KINDS),
    *CALLED,
    "PostObject",
    "Preflight",
}


def rows() -> dict[str, tuple[str, str]]:
    """Return what the page says, by operation."""
    return {
        match[1]: (match[2], match[3])
        for line in PAGE.read_text().splitlines()
        if (match := ROW.fullmatch(line))
    }


def test_the_page_has_every_operation_of_the_client() -> None:
    known = botocore.session.get_session().get_service_model("s3").operation_names
    assert sorted(rows()) == sorted({*known, "PostObject", "Preflight"})


def test_what_the_page_promises_is_there_and_what_it_denies_is_not() -> None:
    there = {name for name, (state, _) in rows().items() if state != "no"}
    assert there == {name for name in rows() if CALLED.get(name, name) in HANDLERS}


def test_whatever_is_not_whole_says_why() -> None:
    assert [name for name, (state, why) in rows().items() if state != "yes" and not why] == []


def test_every_operation_is_tested_by_a_client() -> None:
    folders = (ROOT / "plugins/protocols/s3/tests", ROOT / "integration")
    text = "".join(
        path.read_text()
        for folder in folders
        for path in folder.rglob("*.py")
        if path != Path(__file__)
    )
    untested = [
        name
        for name, (state, _) in rows().items()
        if state != "no" and name not in OTHERWISE and f"{xform_name(name)}" not in text
    ]
    assert untested == []
