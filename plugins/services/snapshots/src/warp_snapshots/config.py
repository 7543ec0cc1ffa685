"""Options of the snapshot service."""

from __future__ import annotations

from typing import Annotated

import msgspec
from warp_core.config.types import Between, Duration
from warp_core.errors import InvalidArgument
from warp_core.snapshot_policy import KEEP_MAX, Policy, check

Count = Annotated[int, msgspec.Meta(ge=0, le=KEEP_MAX)]


class Declared(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[[services.snapshots.volume]]`: how many snapshots of each kind a volume keeps."""

    name: str
    hourly: Count = 0
    daily: Count = 0
    weekly: Count = 0
    monthly: Count = 0

    def __post_init__(self) -> None:
        check(self.policy())

    def policy(self) -> Policy:
        """Return it as the volume's document has it."""
        return Policy(
            hourly=self.hourly,
            daily=self.daily,
            weekly=self.weekly,
            monthly=self.monthly,
            declared=True,
        )


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[services.snapshots]`."""

    # What a policy means by an hour. Anything but 60 minutes is for tests: a day is 24 of them.
    hour: Annotated[Duration, Between("1s", "1h")] = Duration(3600.0)
    # Policies that this file declares: commands do not change them.
    volume: tuple[Declared, ...] = ()

    def __post_init__(self) -> None:
        names = [each.name for each in self.volume]
        for name in names:
            if names.count(name) > 1:
                raise InvalidArgument(f"volume: {name!r} is declared twice")
