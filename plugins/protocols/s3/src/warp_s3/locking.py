"""Object lock as requests and answers say it: modes, moments, legal holds."""

import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from warp_core.views.objects import Attributes, LockMode, VolumeInfo, VolumeLock

from warp_s3 import xml_output
from warp_s3.errors import S3Error
from warp_s3.xml_input import parse

if TYPE_CHECKING:
    from warp_s3.call import Call
    from warp_s3.service import Service

MODE: Final = "x-amz-object-lock-mode"
UNTIL: Final = "x-amz-object-lock-retain-until-date"
HOLD: Final = "x-amz-object-lock-legal-hold"
BYPASS: Final = "x-amz-bypass-governance-retention"
HEADERS: Final = frozenset({MODE, UNTIL, HOLD})

_MODES: Final[Mapping[str, LockMode]] = {"GOVERNANCE": "GOVERNANCE", "COMPLIANCE": "COMPLIANCE"}
_DAYS_MAX: Final = 36_500
_YEARS_MAX: Final = 100
_MOMENT: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:T(\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?(Z|[+-]\d\d:?\d\d)?)?"
)


def asked_in(headers: Mapping[str, str]) -> tuple[LockMode, int, bool | None]:
    """Read mode, nanosecond of the end, and legal hold from the headers of a write.

    Raises:
        S3Error: `InvalidArgument`.
    """
    mode, text, hold = headers.get(MODE), headers.get(UNTIL), headers.get(HOLD)
    if (mode is None) != (text is None):
        raise S3Error(
            "InvalidArgument", f"{UNTIL} and {MODE} must both be supplied", details=_named(MODE)
        )
    held = None
    if hold is not None:
        if hold not in {"ON", "OFF"}:
            raise S3Error(
                "InvalidArgument",
                "Legal Hold must be either of 'ON' or 'OFF'",
                details=_named(HOLD, hold),
            )
        held = hold == "ON"
    if mode is None or text is None:
        return "", 0, held
    if mode not in _MODES:
        raise S3Error("InvalidArgument", "Unknown wormMode directive.", details=_named(MODE, mode))
    until_ns = moment(text)
    if until_ns is None:
        raise S3Error(
            "InvalidArgument",
            "The retain until date must be provided in ISO 8601 format",
            details=_named(UNTIL, text),
        )
    return _MODES[mode], until_ns, held


def check_lockable(volume: VolumeInfo) -> None:
    """Check that objects of a bucket can be locked.

    Raises:
        S3Error: `InvalidRequest`.
    """
    if volume.lock is None:
        raise S3Error("InvalidRequest", "Bucket is missing Object Lock Configuration")


async def demand_lockable(service: "Service", call: "Call", attributes: Attributes) -> None:
    """Check what a write asks for of object lock, before its body is read.

    Raises:
        S3Error: `InvalidRequest` or `InvalidArgument`.
    """
    if not attributes.retain_mode and attributes.legal_hold is None:
        return
    check_lockable(await service.objects.volume(call.bucket))
    if attributes.retain_mode and attributes.retain_until_ns <= time.time_ns():
        raise S3Error("InvalidArgument", "The retain until date must be in the future!")


async def bypasses(
    service: "Service", call: "Call", bucket: str, key: bytes, version: str = ""
) -> bool:
    """Say whether a request ends retention in mode GOVERNANCE: it asks for it, and its sender may."""
    if call.headers.get(BYPASS, "").lower() != "true":
        return False
    return await service.access.may_bypass(call, bucket, key, version)


def moment(text: str) -> int | None:
    """Read a moment of ISO 8601, nanoseconds since 1970; None if it is none."""
    match = _MOMENT.fullmatch(text.strip())
    if match is None:
        return None
    year, month, day, hour, minute, second, fraction, zone = match.groups()
    try:
        date = datetime(int(year), int(month), int(day), tzinfo=UTC)
        at = date.replace(hour=int(hour or 0), minute=int(minute or 0), second=int(second or 0))
    except ValueError:
        return None
    if zone not in (None, "Z"):
        sign = -1 if zone[0] == "-" else 1
        digits = zone[1:].replace(":", "")
        at -= sign * timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    nanoseconds = int((fraction or "0").ljust(9, "0"))
    return int((at - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()) * 10**9 + nanoseconds


def lock_headers(attributes: Attributes) -> list[tuple[str, str]]:
    """Write an object's lock as headers of GET and HEAD."""
    headers: list[tuple[str, str]] = []
    if attributes.retain_mode:
        headers.append((MODE, attributes.retain_mode))
        headers.append((UNTIL, xml_output.iso_time(attributes.retain_until_ns)))
    if attributes.legal_hold is not None:
        headers.append((HOLD, "ON" if attributes.legal_hold else "OFF"))
    return headers


def read_configuration(body: bytes) -> VolumeLock:
    """Read an ObjectLockConfiguration document.

    Raises:
        S3Error: `MalformedXML` or `InvalidRetentionPeriod`.
    """
    document = parse(body, "ObjectLockConfiguration")
    rules = document.findall("Rule")
    if document.findtext("ObjectLockEnabled") != "Enabled" or len(rules) > 1:
        raise S3Error("MalformedXML")
    if not rules:
        return VolumeLock()
    default = rules[0].find("DefaultRetention")
    if default is None:
        raise S3Error("MalformedXML")
    mode = _MODES.get(default.findtext("Mode", ""))
    days, years = default.findtext("Days"), default.findtext("Years")
    if mode is None or (days is None) == (years is None):
        raise S3Error("MalformedXML")
    if days is not None:
        return VolumeLock(mode, days=_period(days, _DAYS_MAX, "days"))
    return VolumeLock(mode, years=_period(years or "", _YEARS_MAX, "years"))


def write_configuration(lock: VolumeLock) -> bytes:
    """Write an ObjectLockConfiguration document."""
    rule = ""
    if lock.mode:
        period = f"<Days>{lock.days}</Days>" if lock.days else f"<Years>{lock.years}</Years>"
        rule = f"<Rule><DefaultRetention><Mode>{lock.mode}</Mode>{period}</DefaultRetention></Rule>"
    return xml_output.document(
        "ObjectLockConfiguration", f"<ObjectLockEnabled>Enabled</ObjectLockEnabled>{rule}"
    )


def read_retention(body: bytes) -> tuple[LockMode, int]:
    """Read a Retention document: mode and nanosecond of the end; an empty one ends retention.

    Raises:
        S3Error: `MalformedXML`.
    """
    document = parse(body, "Retention")
    if not len(document):
        return "", 0
    mode = _MODES.get(document.findtext("Mode", ""))
    until_ns = moment(document.findtext("RetainUntilDate", ""))
    if mode is None or until_ns is None:
        raise S3Error("MalformedXML")
    return mode, until_ns


def write_retention(mode: str, until_ns: int) -> bytes:
    """Write a Retention document."""
    return xml_output.document(
        "Retention",
        f"<Mode>{mode}</Mode><RetainUntilDate>{xml_output.iso_time(until_ns)}</RetainUntilDate>",
    )


def read_hold(body: bytes) -> bool:
    """Read a LegalHold document.

    Raises:
        S3Error: `MalformedXML`.
    """
    status = parse(body, "LegalHold").findtext("Status")
    if status not in {"ON", "OFF"}:
        raise S3Error("MalformedXML")
    return status == "ON"


def write_hold(held: bool) -> bytes:
    """Write a LegalHold document."""
    return xml_output.document("LegalHold", f"<Status>{'ON' if held else 'OFF'}</Status>")


def _period(text: str, most: int, unit: str) -> int:
    text = text.strip()
    if not re.fullmatch(r"[+-]?[0-9]{1,9}", text):
        raise S3Error("MalformedXML")
    number = int(text)
    if number < 1:
        raise S3Error(
            "InvalidRetentionPeriod", "Default retention period must be a positive integer value."
        )
    if number > most:
        raise S3Error(
            "InvalidRetentionPeriod", f"Default retention period too large: at most {most} {unit}."
        )
    return number


def _named(name: str, value: str = "") -> dict[str, str]:
    return {"ArgumentName": name, "ArgumentValue": value}
