"""What a bucket says besides its objects, and what of it can be said here as well."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple


class _Setting(NamedTuple):
    """One configuration: how it is asked for and set, and which part of the answer is given back."""

    get: str
    put: str
    given: Callable[[Mapping[str, Any]], dict[str, Any]]


def _part(name: str, given: str = "") -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    return lambda found: {given or name: found[name]} if found.get(name) else {}


def _within(given: str, *names: str) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    def pick(found: Mapping[str, Any]) -> dict[str, Any]:
        kept = {name: found[name] for name in names if found.get(name)}
        return {given: kept} if kept else {}

    return pick


SETTINGS: Final[Mapping[str, _Setting]] = {
    "tags": _Setting("get_bucket_tagging", "put_bucket_tagging", _within("Tagging", "TagSet")),
    "cors": _Setting(
        "get_bucket_cors", "put_bucket_cors", _within("CORSConfiguration", "CORSRules")
    ),
    "lifecycle": _Setting(
        "get_bucket_lifecycle_configuration",
        "put_bucket_lifecycle_configuration",
        _within("LifecycleConfiguration", "Rules"),
    ),
    "website": _Setting(
        "get_bucket_website",
        "put_bucket_website",
        _within(
            "WebsiteConfiguration",
            *("RedirectAllRequestsTo", "IndexDocument", "ErrorDocument", "RoutingRules"),
        ),
    ),
    "object lock": _Setting(
        "get_object_lock_configuration",
        "put_object_lock_configuration",
        _part("ObjectLockConfiguration"),
    ),
    "policy": _Setting("get_bucket_policy", "put_bucket_policy", _part("Policy")),
}


def copy_settings(source: Any, bucket: str, target: Any, volume: str) -> dict[str, str]:
    """Give a volume what a bucket says; returns for each configuration "copied", "none" or why not. Blocking."""
    from botocore.exceptions import ClientError

    told: dict[str, str] = {}
    for name, setting in SETTINGS.items():
        try:
            found = getattr(source, setting.get)(Bucket=bucket)
        except ClientError as error:
            missing = error.response["ResponseMetadata"]["HTTPStatusCode"] == 404
            told[name] = "none" if missing else f"not to be had: {error}"
            continue
        given = setting.given(found)
        if not given:
            told[name] = "none"
            continue
        if name == "policy":  # it names its bucket
            given["Policy"] = given["Policy"].replace(f":::{bucket}", f":::{volume}")
        try:
            getattr(target, setting.put)(Bucket=volume, **given)
        except ClientError as error:
            told[name] = f"refused: {error}"
        else:
            told[name] = "copied"
    return told
