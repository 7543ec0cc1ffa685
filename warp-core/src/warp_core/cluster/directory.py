"""The directory of volumes: which domain a name belongs to, so that no two domains have a volume of the same name.

A name is claimed before its volume is made, and given up after its volume was deleted; a crash in between leaves a claim without a
volume, which the next one who wants the name takes up. Who creates writes the claim anew even if it is there, so that a deletion
that runs at the same time finds it changed and leaves it.
"""

from __future__ import annotations

from collections.abc import Iterable

from warp_core.cluster.rows import VOLUMES, volume_key
from warp_core.errors import Conflict
from warp_core.interfaces.consistency import Commit, KeyCheck, MetaStore, Write
from warp_core.metadata import Transaction, transact

ADOPTED_AT_ONCE = 50  # claims in one transaction; a commit takes 100 writes


async def claim(shared: MetaStore, volume: str, domain: int) -> int:
    """Claim a name for a domain, unless another domain has it; return the domain that has it now."""

    async def body(tx: Transaction) -> int:
        found = await tx.get(volume_key(volume))
        number = domain if found is None else int.from_bytes(found, "big")
        tx.put(volume_key(volume), number.to_bytes(2, "big"))
        return number

    return await transact(shared, body)


async def look_up(shared: MetaStore, volume: str) -> tuple[int | None, int]:
    """Return the domain that has a name, None without one, and the version of that claim."""
    view = shared.view()
    try:
        found = await view.get(volume_key(volume))
    finally:
        view.close()
    return (None, 0) if found is None else (int.from_bytes(found[0], "big"), found[1])


async def give_up(shared: MetaStore, volume: str, version: int) -> bool:
    """Give a claim up that is still the one of this version; say whether it was."""
    key = volume_key(volume)
    try:
        await shared.commit(Commit(checks=[KeyCheck(key, version)], writes=[Write(key, None)]))
    except Conflict:
        return False
    return True


async def adopt(shared: MetaStore, domain: int, volumes: Iterable[str]) -> list[str]:
    """Claim the names of volumes that a domain has from before it was in a cluster; return those that another domain has."""
    left = list(volumes)
    taken: list[str] = []
    while left:
        part, left = left[:ADOPTED_AT_ONCE], left[ADOPTED_AT_ONCE:]

        async def body(tx: Transaction, part: list[str] = part) -> list[str]:
            lost = []
            for volume in part:
                found = await tx.get(volume_key(volume))
                if found is None:
                    tx.put(volume_key(volume), domain.to_bytes(2, "big"))
                elif int.from_bytes(found, "big") != domain:
                    lost.append(volume)
            return lost

        taken += await transact(shared, body)
    return taken


async def all_of(shared: MetaStore) -> dict[str, int]:
    """Return every name with its domain."""
    start, end = VOLUMES, VOLUMES[:-1] + bytes([VOLUMES[-1] + 1])
    found: dict[str, int] = {}
    view = shared.view()
    try:
        while page := await view.scan(start, end):
            for row in page:
                found[row.key[len(VOLUMES) :].decode()] = int.from_bytes(row.value, "big")
            start = page[-1].key + b"\0"
    finally:
        view.close()
    return found
