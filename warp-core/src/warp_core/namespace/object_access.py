"""Whether somebody who reads by key could read the file that the key leads to.

A protocol of objects has rules of its own about who gets in, and those of files hold behind them: each directory on the way has to
let the caller search it, the file has to let the caller read. What was never more than an object lets everybody.
"""

from __future__ import annotations

from warp_core.interfaces.consistency import MetaStore
from warp_core.namespace import access as permission
from warp_core.namespace import keys, rows
from warp_core.namespace.inode_rows import inode_row
from warp_core.namespace.inodes import Inode
from warp_core.namespace.lookup import find_version
from warp_core.namespace.paths import resolve
from warp_core.namespace.tree import Rows, ViewSource, Volume
from warp_core.namespace.versions import version_id
from warp_core.views.files import Caller, Want


async def readable(
    store: MetaStore, volume: Volume, key: bytes, caller: Caller, *, version: str = ""
) -> bool:
    """Say whether the caller may read what is at a key; True where nothing is, if he may look."""
    view = store.view()
    try:
        return await _readable(volume.rows(ViewSource(view)), key, caller, version)
    finally:
        view.close()


async def _readable(stored: Rows, key: bytes, caller: Caller, version: str) -> bool:
    path = await resolve(stored, keys.steps(key), key)
    ways = [name.inode for name in path.names if name.kind == rows.DIRECTORY]
    for number in (keys.ROOT, *ways):
        above = await inode_row(stored, number)
        if above is not None and not _lets(above, Want.EXECUTE, caller):
            return False
    current = path.current
    if current is not None and current.kind == rows.FILE and not current.revision:
        inode = await inode_row(stored, current.inode)
        if inode is not None and not _lets(inode, Want.READ, caller):
            return False
    if not version or (current is not None and version_id(current) == version):
        return True
    name, _ = await find_version(stored, key, version)
    if name is None or not name.revision:
        return True
    value = await stored.get(keys.revision_key(name.revision))
    # A version has no mode: what was written as a file may have been anybody's secret.
    return value is None or not rows.decode_revision(value).windowed


def _lets(inode: Inode, want: Want, caller: Caller) -> bool:
    return permission.best(inode, want, caller) == want
