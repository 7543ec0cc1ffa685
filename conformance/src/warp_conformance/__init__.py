"""The kits that prove a WARP plugin: see README.md for how to adopt one and how to add one."""

import pytest

pytest.register_assert_rewrite("warp_conformance.kits", "warp_conformance.kit")

from warp_conformance.difference import (  # noqa: E402  (assertions of kits are rewritten only if asked for before)
    Difference,
    same,
)
from warp_conformance.kit import (  # noqa: E402
    Kit,
    KitOverridden,
    given,
    known_failure,
    refused,
    requires,
)

__all__ = [
    "Difference",
    "Kit",
    "KitOverridden",
    "given",
    "known_failure",
    "refused",
    "requires",
    "same",
]
