"""Origins: who asked for a change and how it came, for those who follow the change feed."""

from __future__ import annotations

import msgspec


class Origin(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a protocol tells of a request besides what it does; all of it is for others to read, nothing is judged by it."""

    actor: str = ""  # name of the principal
    address: str = ""  # of the client, without its port
    request: str = ""  # id of the request, as the client was told it
    via: str = (
        ""  # how it came about, where the verb alone does not say: "post", "copy", "lifecycle"
    )
