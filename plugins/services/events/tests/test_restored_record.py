"""Records of restoring are as AWS writes them."""

from __future__ import annotations

import json

import pytest
from warp_core.namespace.rows import Event
from warp_core.views.origin import Origin
from warp_events.records import Bucket, Identity, name_of, record_of

RULE = Origin(via="lifecycle")


@pytest.mark.parametrize(
    ("verb", "origin", "name"),
    [
        ("restore", None, "ObjectRestore:Post"),
        ("restored", RULE, "ObjectRestore:Completed"),
        ("unrestored", RULE, "ObjectRestore:Delete"),
    ],
)
def test_restoring_has_names(verb: str, origin: Origin | None, name: str) -> None:
    assert name_of(Event(verb, 1, b"k", origin=origin)) == name


def test_what_was_restored_says_until_when() -> None:
    event = Event("restored", 1, b"k", origin=RULE, restored=("GLACIER", 1_800_000_000 * 10**9))
    bucket = Bucket("b", Identity("me"), "arn:aws:s3:::b")

    def written(event: Event) -> dict[str, object]:
        found: dict[str, object] = json.loads(
            record_of(
                event, name_of(event), cursor=b"1", configuration="c", bucket=bucket, region="r"
            )
        )
        return found

    assert written(event)["glacierEventData"] == {
        "restoreEventData": {
            "lifecycleRestorationExpiryTime": "2027-01-15T08:00:00.000Z",
            "lifecycleRestoreStorageClass": "GLACIER",
        }
    }
    assert written(event)["eventName"] == "ObjectRestore:Completed"
    assert "glacierEventData" not in written(Event("restore", 1, b"k"))
