"""What `[[store]] kind = "peer"` may say."""

from __future__ import annotations

from warp_core.peers.place import PeerPlace


class Config(PeerPlace, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[[store]]` with `kind = "peer"`."""
