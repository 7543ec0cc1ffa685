"""Requests of the engine, built; pure."""

from __future__ import annotations

from collections.abc import Iterable

from warp_etcd.batch import Plan
from warp_etcd.layout import Layout, pack_entry, pack_head, pack_row
from warp_etcd.wire import etcd_pb2 as pb

LOG_PAGE = 500  # log entries in one answer


def get(key: bytes, *, serializable: bool = False, revision: int = 0) -> pb.RangeRequest:
    """Ask for one key."""
    return pb.RangeRequest(key=key, revision=revision, serializable=serializable)


def scan(
    start: bytes,
    end: bytes,
    *,
    limit: int,
    serializable: bool = False,
    revision: int = 0,
    keys_only: bool = False,
) -> pb.RangeRequest:
    """Ask for the first `limit` keys of [start, end)."""
    return pb.RangeRequest(
        key=start,
        range_end=end,
        limit=limit,
        revision=revision,
        serializable=serializable,
        keys_only=keys_only,
    )


def entries_after(layout: Layout, version: int) -> pb.RangeRequest:
    """Ask for the log behind a version."""
    return scan(layout.entry(version + 1), layout.log_end, limit=LOG_PAGE)


def read(*ranges: pb.RangeRequest) -> pb.TxnRequest:
    """Ask for several things at one moment."""
    return pb.TxnRequest(success=[pb.RequestOp(request_range=range_) for range_ in ranges])


def catch_up(layout: Layout, version: int, wanted: Iterable[bytes]) -> pb.TxnRequest:
    """Ask for the head, the log behind a version, and rows."""
    return read(
        get(layout.head), entries_after(layout, version), *(get(layout.row(key)) for key in wanted)
    )


def append(layout: Layout, plan: Plan, *, before: int, guard: int, cut: int) -> pb.TxnRequest:
    """Apply a batch if the head is still that of `guard`, else tell what came instead.

    With a `cut`, log entries up to that version are dropped.
    """
    success = [
        pb.RequestOp(request_put=pb.PutRequest(key=layout.head, value=pack_head(plan.last))),
        pb.RequestOp(
            request_put=pb.PutRequest(
                key=layout.entry(plan.last), value=pack_entry(before, tuple(plan.commits))
            )
        ),
    ]
    if cut:
        dropped = pb.DeleteRangeRequest(key=layout.entries, range_end=layout.entry(cut + 1))
        success.append(pb.RequestOp(request_delete_range=dropped))
    for key, (version, value) in plan.rows.items():
        if value is None:
            delete = pb.DeleteRangeRequest(key=layout.row(key))
            success.append(pb.RequestOp(request_delete_range=delete))
        else:
            put = pb.PutRequest(key=layout.row(key), value=pack_row(version, value))
            success.append(pb.RequestOp(request_put=put))
    unchanged = pb.Compare(
        result=pb.Compare.EQUAL, target=pb.Compare.MOD, key=layout.head, mod_revision=guard
    )
    return pb.TxnRequest(
        compare=[unchanged],
        success=success,
        failure=[
            pb.RequestOp(request_range=get(layout.head)),
            pb.RequestOp(request_range=entries_after(layout, before)),
        ],
    )


def watch(layout: Layout, revision: int) -> pb.WatchRequest:
    """Ask for every change of rows and log from a revision on."""
    return pb.WatchRequest(
        create_request=pb.WatchCreateRequest(
            key=layout.rows, range_end=layout.log_end, start_revision=revision
        )
    )
