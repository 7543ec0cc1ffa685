"""File systems held against one of the kernel's own: the same calls by the same users, drawn from a seed or enumerated.

`random_calls` draws; `tables` and the modules `cases_*` enumerate; `fsx` is about the bytes of one file.
"""

from warp_integration.posix import (
    cases_attributes,
    cases_names,
    cases_opened,
    cases_paths,
    enumerated,
)
from warp_integration.posix.enumerated import cases, compare
from warp_integration.posix.random_calls import differences
from warp_integration.posix.tables import GROUPS, Case

__all__ = [
    "GROUPS",
    "Case",
    "cases",
    "cases_attributes",
    "cases_names",
    "cases_opened",
    "cases_paths",
    "compare",
    "differences",
    "enumerated",
]
