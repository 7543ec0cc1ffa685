"""What a node can be asked to look for, and to mend: scrub, heal, fsck."""

from __future__ import annotations

import msgspec

from warp_core.containers.scrub import LOST_MAX
from warp_core.errors import VolumeNotFound
from warp_core.namespace.check import Check, CheckReport
from warp_core.namespace.owners import correct_owners, miscounted_owners
from warp_core.namespace.recount import correct, correct_soles, miscounted
from warp_core.namespace.salvage import SalvageReport, salvage
from warp_core.node.assembly import Node
from warp_core.node.control import Nothing, Progress, Role, Verb

SLICE = 64 * 1024 * 1024  # bytes between two progress reports of a scrub
HEAL_SLICE = 64 * 1024 * 1024


class Scrub(msgspec.Struct, frozen=True):
    """How to look: `deep` reads every byte; `rate` is bytes a second, 0 for as fast as it goes."""

    deep: bool = False
    rate: int = 0


async def scrub(node: Node, arguments: Scrub, progress: Progress) -> dict[str, object]:
    """Look for what is missing or damaged in every container that nobody writes to."""
    totals = {"containers": 0, "records": 0, "bytes": 0, "damaged_copies": 0, "missing_copies": 0}
    lost: list[str] = []
    lost_count = cursor = 0
    while True:
        report = await node.containers.scrub(
            deep=arguments.deep, after=cursor, budget=SLICE, rate=arguments.rate or None
        )
        for name in totals:
            totals[name] += getattr(report, name)
        lost_count += report.lost_count
        lost = (lost + report.lost)[:LOST_MAX]
        progress(totals)
        if report.finished:
            return {**totals, "lost": lost, "lost_count": lost_count, "deep": arguments.deep}
        cursor = report.cursor


async def heal(node: Node, arguments: Nothing, progress: Progress) -> object:
    """Write missing and damaged copies anew, until nothing more can be done."""
    totals = {"written_copies": 0, "written_bytes": 0, "removed_copies": 0}
    while True:
        report = await node.containers.heal(budget=HEAL_SLICE)
        for name in totals:
            totals[name] += getattr(report, name)
        progress({**totals, "waiting": report.waiting})
        if not report.waiting or not (report.written_copies or report.removed_copies):
            return {**totals, "waiting": report.waiting, "problems": report.problems}


class Fsck(msgspec.Struct, frozen=True):
    """How to check: `deep` reads every byte; `salvage` first names content that has lost its rows; `repair` corrects counters."""

    deep: bool = False
    salvage: bool = False
    repair: bool = False


async def fsck(node: Node, arguments: Fsck, progress: Progress) -> object:
    """Check rows, names, content and counters of every volume, then every container."""

    def tell(report: CheckReport) -> None:
        progress({"rows": report.rows, "chunks": report.chunks, "problems": report.problem_count})

    named = SalvageReport()
    if arguments.salvage:
        named = await salvage(node.namespace, node.containers.records())
    corrected = await _corrected(node) if arguments.repair else 0
    checked = await Check(node.namespace, deep=arguments.deep, progress=tell).run()
    scrubbed = await scrub(node, Scrub(deep=arguments.deep), progress)
    return {
        "counters_corrected": corrected,
        "volumes": checked.volumes,
        "rows": checked.rows,
        "names": checked.names,
        "chunks": checked.chunks,
        "bytes": checked.bytes,
        "problem_count": checked.problem_count,
        "problems": checked.problems,
        "containers": scrubbed,
        "salvaged": named.revisions,
        "salvaged_bytes": named.bytes,
        "salvage_unreadable": named.unreadable,
    }


async def _corrected(node: Node) -> int:
    """Correct the counters of volumes that differ from what their rows say; return how many did."""
    corrected = 0
    for volume in await node.namespace.volumes.all():
        name = volume.row.name
        try:
            off = await miscounted(node.namespace, name)
            if off is not None and any(off):
                await correct(node.namespace, name, off)
            owners = await miscounted_owners(node.namespace, name)
            if owners:
                await correct_owners(node.namespace, name)
            soles = await correct_soles(node.namespace, name)
            corrected += bool(soles or owners or any(off or ()))
        except VolumeNotFound:
            continue  # deleted meanwhile
    return corrected


UPKEEP_TABLE: tuple[tuple[str, Verb[Node]], ...] = (
    ("scrub", Verb(Scrub, scrub, role=Role.OPERATOR, long=True)),
    ("heal", Verb(Nothing, heal, role=Role.OPERATOR, long=True)),
    ("fsck", Verb(Fsck, fsck, role=Role.OPERATOR, long=True)),
)
