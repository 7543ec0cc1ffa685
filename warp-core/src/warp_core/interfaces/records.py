"""Records: small documents of one shelf, all of them in the memory of who reads them.

A shelf is for what is asked in every request and changed seldom: who may do what, not what there is. Its reader holds a copy of
all records and a *generation*, a number that every change raises. A change is judged against the copy and committed under the
condition that the generation is still the copy's, so whoever decides has seen everything that others decided before.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TypeVar

T = TypeVar("T")

Decide = Callable[[Mapping[str, bytes]], tuple[T, Mapping[str, bytes | None]]]
"""From all records to a result and what changes: a new content, or None where a record goes."""


class Records(ABC):
    """One shelf.

    Attributes:
        known: Every record by its name, as of the last read.
        generation: Of `known`; negative where it has to be read first.
        shared: Other nodes change the shelf, too, so that `refresh` is needed now and then.
    """

    known: Mapping[str, bytes]
    generation: int
    shared: bool

    @abstractmethod
    async def refresh(self) -> bool:
        """Read what changed since; True if anything did. Costs one row where nothing has."""

    @abstractmethod
    async def change(self, decide: Decide[T]) -> T:
        """Change records by what all of them say; `decide` may be called several times and raises what the caller gets.

        Raises:
            TooLarge: More changes at once, or a longer record, than a commit takes.
            InvalidArgument: A name that is none.
            Unavailable: Others change the shelf all the time.
        """
