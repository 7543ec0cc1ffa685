"""Who is the home of what: the question that a router asks before it lets a verb through.

A node answers verbs of a domain while it holds the domain's lease. The views of a `Stack` see to that themselves: past the
deadline each verb raises `Unavailable`, also of handles that were opened before.

Whoever routes a verb asks `holder_of` and, if `local` is None,
sends it to `address`; a node that is asked for what it does not hold answers `Unavailable`, and the asker looks again (`fresh`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from warp_core.cluster.at_rest import AtRest
    from warp_core.interfaces.consistency import MetaStore
    from warp_core.node.stack import Stack


class Holder(NamedTuple):
    """The home of a domain, as far as this node knows."""

    domain: int
    name: str  # node; "" if nobody is
    address: str  # where peers reach it; "" if that is not known, or nobody is
    transport: str
    token: int  # grows with every change of the home
    local: Stack | None  # if it is this node and the stack is open


class Homes(ABC):
    """Domains and their homes, seen from one node."""

    node: str  # this one's name
    own: int  # the domain that this node made and that its new volumes belong to; -1: it has none (a witness)
    shared: MetaStore  # the whole engine: rows of `warp_core.cluster.rows`, identities

    @property
    @abstractmethod
    def local(self) -> Mapping[int, Stack]:
        """The stacks that are open here, by domain."""

    @abstractmethod
    def domains(self) -> list[int]:
        """Return the numbers of all domains that this node knows of, ascending."""

    @abstractmethod
    async def holder_of(self, domain: int, *, fresh: bool = False) -> Holder:
        """Return the home of a domain; without `fresh` it may be one that has just lost it.

        Raises:
            NotFound: No such domain.
            Unavailable: Nobody can be asked.
        """

    @abstractmethod
    async def domain_of(self, volume: str, *, fresh: bool = False) -> int | None:
        """Return the domain that a volume is in, None if there is no such volume; without `fresh` it may have been deleted.

        Raises:
            Unavailable: Nobody can be asked.
        """

    def at_rest(self, domain: int) -> AtRest:
        """Return what can be told of a domain without its home."""
        from warp_core.cluster.at_rest import AtRest, RowsOnly

        return AtRest(RowsOnly(self.shared, domain))

    @abstractmethod
    def forget(self, volume: str) -> None:
        """Look a volume up anew next time: it was created or deleted."""

    @abstractmethod
    async def wish(self, domain: int, node: str) -> None:
        """Ask that a node becomes the home of a domain: its present one gives it away once that node's stores are whole.

        Raises:
            NotFound: No such domain.
            InvalidArgument: The node keeps none of its stores.
            Unavailable: Nobody can be asked.
        """
