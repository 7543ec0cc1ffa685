"""The service: a pass is bounded, and says when nothing is left to do."""

from __future__ import annotations

from unittest.mock import Mock

from warp_core.interfaces.services import ServiceContext
from warp_core.metrics import Metrics
from warp_skeleton.config import Config
from warp_skeleton.service import Skeleton


async def test_with_nothing_to_do_a_pass_is_idle() -> None:
    context = ServiceContext(namespace=Mock(), containers=Mock(), metrics=Metrics())

    report = await Skeleton(Config(), context).work(context)

    assert report.idle
    assert not any(report.counts.values())
