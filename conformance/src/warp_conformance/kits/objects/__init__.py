"""The kit for the Objects view, in parts."""

from __future__ import annotations

from warp_conformance.kits.objects.content import Content
from warp_conformance.kits.objects.listing import Listing
from warp_conformance.kits.objects.locks import Locks
from warp_conformance.kits.objects.sequences import Sequences, agree, follow
from warp_conformance.kits.objects.stage import Reopen, Usage, digests, get, noise, put
from warp_conformance.kits.objects.uploads import Uploads
from warp_conformance.kits.objects.versions import Versions
from warp_conformance.kits.objects.volumes import Volumes

__all__ = ["ObjectsKit", "Reopen", "Usage", "agree", "digests", "follow", "get", "noise", "put"]


class ObjectsKit(Volumes, Content, Listing, Versions, Locks, Uploads, Sequences, kit=True):
    """What the Objects view promises.

    Besides `subject` it wants `usage`: an async function of a volume's name that returns its objects, their bytes, its noncurrent
    versions and their bytes; and `reopen`: end the view as a crash would and return it anew on what was durable.
    """
