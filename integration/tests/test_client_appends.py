"""Clients append to one log at once by conditional writes: nothing is lost, nothing is there twice."""

from __future__ import annotations

from functools import partial
from itertools import chain
from pathlib import Path

import pytest
from warp_integration.appenders import APPENDERS, COUNTER, LOG, Appender, append, count, together
from warp_integration.clients import s3_client
from warp_integration.server import WarpServer

pytestmark = [pytest.mark.workspace, pytest.mark.usefixtures("warp_serve")]

WRITERS = {"awscli": (2, 1), "s3cmd": (3, 1)}  # a process for each call: fewer writers and records
MANY = (4, 8)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name in WRITERS)) for name in APPENDERS],
)
def test_writers_that_append_at_once_lose_nothing(
    tmp_path: Path, server: WarpServer, name: str
) -> None:
    writers, records = WRITERS.get(name, MANY)
    bucket = f"appends-{name}"
    s3 = s3_client(server.s3)
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key=COUNTER, Body=b"0")
    kind = APPENDERS[name]
    wanted = [[b"writer %d, record %d" % (w, r) for r in range(records)] for w in range(writers)]

    def make(number: int) -> Appender:
        return kind(server.s3, bucket, tmp_path / f"{number}")

    together(make, [partial(append, records=mine) for mine in wanted])
    if kind.swaps:
        together(make, [partial(count, times=records)] * writers)

    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=LOG)
    keys = [found["Key"] for page in pages for found in page["Contents"]]
    assert keys == [f"{LOG}{number:08d}" for number in range(writers * records)]
    reader = make(writers)
    told = [reader.read(key)[0] for key in keys]
    assert sorted(told) == sorted(chain.from_iterable(wanted))
    for mine in wanted:  # each writer's records are in its order
        assert [record for record in told if record in mine] == mine
    if kind.swaps:
        assert int(reader.read(COUNTER)[0]) == writers * records
    reader.close()
    s3.close()
