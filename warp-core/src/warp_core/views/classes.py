"""Names of storage classes: those of S3, whose lifecycle rules speak of them."""

from __future__ import annotations

from typing import Final

STANDARD: Final = "STANDARD"  # what objects are that do not say: kept as their volume says
STORAGE_CLASSES: Final = frozenset(
    {
        *(STANDARD, "REDUCED_REDUNDANCY", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING"),
        *("GLACIER", "GLACIER_IR", "DEEP_ARCHIVE", "OUTPOSTS", "SNOW", "EXPRESS_ONEZONE"),
    }
)
