"""What a cluster must be for WARP, found out when the engine starts: version, limits, space."""

from __future__ import annotations

import re

from warp_core.errors import TooLarge, Unavailable, Unsupported, WarpError
from warp_core.interfaces.consistency import COMMIT_MAX, KEY_MAX, WRITES_MAX

from warp_etcd import messages
from warp_etcd.batch import Room
from warp_etcd.client import RANGE, STATUS, TXN, Client
from warp_etcd.layout import Layout
from warp_etcd.wire import etcd_pb2 as pb

OPERATIONS_OWN = 3  # of a batch: head, log entry, cut
OPERATIONS_LEAST = WRITES_MAX + OPERATIONS_OWN
OPERATIONS_TRIED = (2048, 1024, 512, 256, 128, OPERATIONS_LEAST)  # etcd's default is 128
# The largest commit, its keys once more in the log, and what lies around each.
REQUEST_LEAST = COMMIT_MAX + WRITES_MAX * (KEY_MAX + 128)
BATCH_SIZE = 1 << 20  # bytes: etcd's default limit of a request is 1.5 MiB


async def check(client: Client, layout: Layout, *, until: float) -> Room:
    """Wait for the cluster, and return what fits into a batch.

    Args:
        client: Of the cluster.
        layout: Where WARP's rows are.
        until: When to give up waiting, by the client's clock.

    Raises:
        Unsupported: A release that loses data, or limits too low for WARP; the message says what to do.
        Unavailable: It does not answer.
    """
    await client.call(RANGE, messages.get(layout.head), until=until)
    for status in await client.each(STATUS, pb.StatusRequest()):
        if not isinstance(status, WarpError):
            refuse_release(status.version)
    operations = await _operations(client, layout)
    await _request_size(client, layout)
    return Room(operations - OPERATIONS_OWN, BATCH_SIZE)


def refuse_release(version: str) -> None:
    """Raise for a release that upstream warns of."""
    match = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    found = tuple(map(int, match.groups())) if match else (0, 0, 0)
    if found < (3, 4, 22) or (3, 5, 0) <= found < (3, 5, 6):
        raise Unsupported(
            f"etcd {version} can lose data when it is killed: use 3.4.22 or later of 3.4, or 3.5.6 or later"
        )


async def _operations(client: Client, layout: Layout) -> int:
    """Return how many operations a transaction may have, as far as WARP would use them."""
    for count in OPERATIONS_TRIED:
        one = messages.get(layout.head, serializable=True)
        one.keys_only = True
        try:
            await client.call(TXN, messages.read(*[one] * count))
        except TooLarge:
            continue
        return count
    raise Unsupported(
        f"etcd at {client.where} takes fewer than {OPERATIONS_LEAST} operations in a transaction:"
        " start its members with --max-txn-ops=128 or more"
    )


async def _request_size(client: Client, layout: Layout) -> None:
    """See that the largest commit would be taken, by one whose condition never holds."""
    never = pb.Compare(
        result=pb.Compare.EQUAL, target=pb.Compare.MOD, key=layout.head, mod_revision=-1
    )
    put = pb.PutRequest(key=layout.head, value=bytes(REQUEST_LEAST))
    request = pb.TxnRequest(compare=[never], success=[pb.RequestOp(request_put=put)])
    try:
        await client.call(TXN, request)
    except TooLarge as error:
        raise Unsupported(
            f"etcd at {client.where} takes no requests of {REQUEST_LEAST} bytes: start its members with"
            " --max-request-bytes=1572864 or more"
        ) from error


async def space(client: Client) -> tuple[int, int, bool]:
    """Return the bytes of the fullest member's database, of them in use, and whether etcd has stopped to take more."""
    sizes = [
        (status.db_size, status.db_size_in_use, any("NOSPACE" in text for text in status.errors))
        for status in await client.each(STATUS, pb.StatusRequest())
        if not isinstance(status, WarpError)
    ]
    if not sizes:
        raise Unavailable("no member of etcd tells its state")
    return max(sizes)[0], max(sizes)[1], any(size[2] for size in sizes)
