"""Options of the engine `memory`."""

from __future__ import annotations

import msgspec


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """No options: everything is forgotten when the server stops."""
