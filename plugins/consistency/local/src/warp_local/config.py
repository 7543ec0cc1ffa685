"""What `[metadata] engine = "local"` may say."""

from __future__ import annotations

import msgspec
from warp_core.config.types import Duration, Size


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Options of the embedded engine. The number of copies is `metadata.copies`."""

    index_max: Size = Size(256 << 30)  # address space of the index: about 300 bytes a row are used
    checkpoint_rows: int = 20_000  # changed rows after which the index is brought up to date
    checkpoint_bytes: Size = Size(32 << 20)  # bytes of changes after which it is
    checkpoint_after: Duration = Duration(10.0)  # time after which it is
    image_after: Size = Size(
        64 << 20
    )  # bytes of the journal after which the index is written out, at least
