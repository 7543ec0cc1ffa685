"""Limits of what somebody may hold."""

from __future__ import annotations

from typing import Final

import msgspec

from warp_core.errors import InvalidArgument

LIMIT_MAX: Final = 2**62  # bytes or objects: sums of two stay within 64 bits
GRACE_MAX_S: Final = 10 * 366 * 24 * 3600.0


class Quota(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a volume, or all volumes of an account together, may hold; None: no limit. 0 lets nothing in.

    Soft limits are told and may be passed, with `grace_s` only for so long.
    """

    bytes: int | None = None
    objects: int | None = None
    soft_bytes: int | None = None
    soft_objects: int | None = None
    grace_s: float | None = None


NO_QUOTA: Final = Quota()


def check_quota(quota: Quota) -> None:
    """Check limits that somebody asks for.

    Raises:
        InvalidArgument
    """
    for name in ("bytes", "objects", "soft_bytes", "soft_objects"):
        limit = getattr(quota, name)
        if limit is not None and not 0 <= limit <= LIMIT_MAX:
            raise InvalidArgument(f"{name} = {limit}: 0 to {LIMIT_MAX} are allowed")
    for hard, soft, name in (
        (quota.bytes, quota.soft_bytes, "bytes"),
        (quota.objects, quota.soft_objects, "objects"),
    ):
        if hard is not None and soft is not None and soft > hard:
            raise InvalidArgument(f"soft_{name} = {soft} > {name} = {hard}: it would never be told")
    if quota.grace_s is not None and not 0 <= quota.grace_s <= GRACE_MAX_S:
        raise InvalidArgument(f"grace = {quota.grace_s} s: 0 to {GRACE_MAX_S} s are allowed")
    if quota.grace_s is not None and quota.soft_bytes is None and quota.soft_objects is None:
        raise InvalidArgument("a grace time needs a soft limit, after which it begins")
