"""Power cuts by replay: record what a disk was told, then build every disk that a cut may leave.

::

    workload ─ file system ─ loop device ─ file on the recorder ─► trace of writes and flushes
                                                                       │
    ledger of what was acknowledged, and when ◄── judged against ── disk image after a cut

One recorded run gives any number of cuts, each decided by a position in the trace and a seed.
"""

from warp_integration.powercut.bench import Recording, after_cut
from warp_integration.powercut.cut import Cut, Replay, choose_cuts
from warp_integration.powercut.disks import BTRFS, EXT4, XFS, FileSystem
from warp_integration.powercut.ledger import ABSENT, Finding, Ledger
from warp_integration.powercut.position import Position
from warp_integration.powercut.trace import Trace

__all__ = [
    "ABSENT",
    "BTRFS",
    "EXT4",
    "XFS",
    "Cut",
    "FileSystem",
    "Finding",
    "Ledger",
    "Position",
    "Recording",
    "Replay",
    "Trace",
    "after_cut",
    "choose_cuts",
]
