"""Sums with limits: who may add to them, and what is being added.

A *pool* is one volume, all volumes of an account, or a user's or group's files in a volume. The home of a volume is the only
one that changes it, so pools live in its memory. A change is admitted before its commit, and what it adds is reserved until the
commit is over, so that two cannot get past together. Writers of content whose size is known, and files that grow in place, reserve
when they begin.

```
 writer begins ──▶ claim ─┐
 change is ready ──▶ admit: held + reserved + growth ≤ limit, growth reserved, the claim's part given back
 commit is over  ──▶ done: held moves, the reservation ends
```

What takes nothing more is never refused: deletes, also where they leave a marker, folds of what was admitted when it was written,
and what the namespace does for itself.
"""

from __future__ import annotations

from typing import NamedTuple

from warp_core.errors import QuotaExceeded
from warp_core.interfaces.quotas import NO_QUOTA
from warp_core.metrics import Gauge, Metrics
from warp_core.namespace.rows import VolumeRow
from warp_core.namespace.usage import Usage


class Amount(NamedTuple):
    """What counts towards limits."""

    objects: int = 0
    bytes: int = 0


def amount_of(usage: Usage) -> Amount:
    """Return what a volume's counters are worth: every version, marker, upload and part counts, and what snapshots alone keep."""
    return Amount(
        usage.objects + usage.versions + usage.uploads,
        usage.bytes + usage.version_bytes + usage.part_bytes + usage.snapshot_bytes,
    )


class Gauges:
    """Metrics of pools."""

    def __init__(self, metrics: Metrics) -> None:
        labels = ("of",)
        self._bytes = metrics.gauges("warp_quota_held_bytes", "Held of a quota", labels=labels)
        self._objects = metrics.gauges("warp_quota_held_objects", "Held of a quota", labels=labels)
        self._bytes_max = metrics.gauges("warp_quota_bytes", "Its hard limit", labels=labels)
        self._objects_max = metrics.gauges("warp_quota_objects", "Its hard limit", labels=labels)
        self._soft = metrics.gauges(
            "warp_quota_soft_passed", "1 while more than a soft limit is held", labels=labels
        )
        self._refused = metrics.gauges(
            "warp_quota_refusals", "Changes that were refused since the start", labels=labels
        )

    def add(self, pool: Pool) -> None:
        """Show a pool, as it is whenever somebody looks."""
        of = pool.volume or pool.name
        for family, read in (
            (self._bytes, lambda: pool.bytes),
            (self._objects, lambda: pool.objects),
            (self._bytes_max, lambda: _or_infinite(pool.quota.bytes)),
            (self._objects_max, lambda: _or_infinite(pool.quota.objects)),
            (self._soft, lambda: bool(pool.over_since_ns)),
            (self._refused, lambda: pool.refused),
        ):
            family.adopt(Gauge(read), of)

    def drop(self, pool: Pool) -> None:
        """Forget a pool that has no limits any more."""
        of = pool.volume or pool.name
        for family in (
            self._bytes,
            self._objects,
            self._bytes_max,
            self._objects_max,
            self._soft,
            self._refused,
        ):
            family.drop(of)


def _or_infinite(limit: int | None) -> float:
    return float("inf") if limit is None else limit


class Pool:
    """One sum with limits. `held` is what is committed, `reserved` what is being added."""

    __slots__ = (
        "bytes",
        "gauges",
        "name",
        "objects",
        "over_since_ns",
        "owner",
        "quota",
        "refused",
        "reserved_bytes",
        "reserved_objects",
        "row",
        "volume",
        "whole",
    )

    def __init__(self, name: str, row: bytes, volume: str = "") -> None:
        self.name = name  # "volume photos", "account:ada"
        self.row = row  # where it is kept since when the soft limit is passed
        self.volume = volume  # of a volume's pool: its name
        self.owner = ""  # of a user's or group's within a volume: "photos uid:1000"
        self.quota = NO_QUOTA
        self.objects = self.bytes = 0
        self.reserved_objects = self.reserved_bytes = 0
        self.over_since_ns = 0  # 0: below the soft limits
        self.refused = 0  # changes
        self.gauges: Gauges | None = None
        self.whole = False  # of an account's: all its volumes are in it

    def demand(self, objects: int, bytes: int, now_ns: int) -> None:
        """Raise if there is no room; what is not positive is not looked at.

        Raises:
            QuotaExceeded
        """
        quota = self.quota
        for what, more, held, hard, soft in (
            ("objects", objects, self.objects + self.reserved_objects, quota.objects, quota.soft_objects),
            ("bytes", bytes, self.bytes + self.reserved_bytes, quota.bytes, quota.soft_bytes),
        ):  # fmt: skip
            if more <= 0:
                continue
            if hard is not None and held + more > hard:
                self.refused += 1
                raise QuotaExceeded(
                    f"{self.name} holds {held} {what}, {more} more > its quota of {hard}"
                )
            if soft is not None and held + more > soft and self.graceless(now_ns):
                self.refused += 1
                raise QuotaExceeded(
                    f"{self.name} holds {held} {what}, {more} more > its soft quota of {soft}, and its"
                    f" grace time of {quota.grace_s:g} s is over"
                )

    def graceless(self, now_ns: int) -> bool:
        """Say whether soft limits are hard by now."""
        grace = self.quota.grace_s
        return (
            grace is not None
            and self.over_since_ns > 0
            and now_ns >= self.over_since_ns + int(grace * 1e9)
        )

    @property
    def above_soft(self) -> bool:
        """Say whether it holds more than a soft limit."""
        quota = self.quota
        return (quota.soft_bytes is not None and self.bytes > quota.soft_bytes) or (
            quota.soft_objects is not None and self.objects > quota.soft_objects
        )

    def room(self) -> int | None:
        """Return the bytes that may still be added; None without a limit."""
        quota = self.quota
        return (
            None if quota.bytes is None else max(0, quota.bytes - self.bytes - self.reserved_bytes)
        )


class Tracked:
    """A volume as its pools know it. `pools` is empty where no limit applies; then nothing is counted."""

    __slots__ = ("counted", "missed", "number", "owner", "pools", "row", "stale", "version")

    def __init__(self, number: int) -> None:
        self.number = number
        self.owner = ""
        self.row: VolumeRow | None = None  # as of the last look
        self.pools: tuple[Pool, ...] = ()
        self.counted = Amount()  # as the counters say at `version`, and every commit since
        self.version = -1  # -1: not read
        self.stale = False  # a commit's outcome is unknown: the counters are to be read again
        self.missed: list[tuple[int, int, int]] | None = None  # commits while they are read

    def move(self, objects: int, bytes: int, version: int) -> None:
        """Take in a commit that is over."""
        if self.missed is not None:
            self.missed.append((objects, bytes, version))
        elif version > self.version >= 0:
            self.counted = Amount(self.counted.objects + objects, self.counted.bytes + bytes)
            for pool in self.pools:
                pool.objects += objects
                pool.bytes += bytes


class Claim:
    """What somebody has reserved. It ends with `release`; a change that is told of it (`credit`) uses it up first."""

    __slots__ = ("bytes", "objects", "pools")

    def __init__(self, pools: tuple[Pool, ...] = ()) -> None:
        self.pools = pools
        self.objects = 0
        self.bytes = 0

    def move(self, objects: int, bytes: int) -> None:
        """Change what is reserved, without a question."""
        self.objects += objects
        self.bytes += bytes
        for pool in self.pools:
            pool.reserved_objects += objects
            pool.reserved_bytes += bytes

    def release(self) -> None:
        """Give back what is left; harmless when repeated."""
        if self.objects or self.bytes:
            self.move(-self.objects, -self.bytes)

    def absorb(self, other: Claim) -> None:
        """Take over what another one has reserved."""
        if other.pools == self.pools:
            self.objects += other.objects
            self.bytes += other.bytes
            other.objects = other.bytes = 0
        else:
            other.release()


class Admission:
    """Changes of several volumes that one commit makes: admitted together, or not at all."""

    __slots__ = ("_claims", "_credits", "_moves")

    def __init__(self) -> None:
        self._claims: list[Claim] = []
        self._credits: list[tuple[Claim, int, int]] = []
        self._moves: list[tuple[Tracked, int, int]] = []

    def undo(self) -> None:
        """The commit is not made: give back what was reserved, and claims what they had."""
        for claim in self._claims:
            claim.release()
        for credit, objects, bytes in self._credits:
            credit.move(objects, bytes)
        self._claims, self._credits, self._moves = [], [], []

    def done(self, version: int) -> None:
        """The commit was made."""
        for tracked, objects, bytes in self._moves:
            tracked.move(objects, bytes, version)
        for claim in self._claims:
            claim.release()

    def unknown(self) -> None:
        """Nobody can tell whether the commit was made: the counters will be read again."""
        for tracked, _, _ in self._moves:
            tracked.stale = True
        for claim in self._claims:
            claim.release()
