"""Audit: who asked for which change, from where, and what came of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks.

    Attributes:
        name: A principal, such as `unix:0`, `token:3f9a…`, `certificate:ada`, `account:ada` or `node:b`.
        via: The way in: `control`, `command`, `admin`, `s3`, `cluster`.
        address: Where from: `10.0.0.7:51234`, or `pid 4711`.
    """

    name: str
    via: str
    address: str = ""


NOBODY = Caller("", "")


class Audit(ABC):
    """Writes down what changes. Secrets are its callers' to leave out."""

    @abstractmethod
    def change(
        self, caller: Caller, what: str, of: Mapping[str, object]
    ) -> AbstractAsyncContextManager[None]:
        """Surround a change: it is on record, durably, before the block begins and again with its result before the block ends.

        Args:
            caller: Who wants it.
            what: The verb or operation.
            of: What it is about, by name.

        Raises:
            StoreFailed, NoSpace, Busy: It cannot be written down, and so must not be done.
            Ambiguous: It was done, and its result cannot be written down.
        """

    @abstractmethod
    async def note(
        self,
        caller: Caller,
        what: str,
        of: Mapping[str, object],
        *,
        error: BaseException,
    ) -> None:
        """Write down an attempt that was refused before anything began; never raises."""


class NoAudit(Audit):
    """Writes nothing down: for parts that are tested alone."""

    def change(
        self, caller: Caller, what: str, of: Mapping[str, object]
    ) -> AbstractAsyncContextManager[None]:
        """Let the change be made."""
        return nullcontext()

    async def note(
        self, caller: Caller, what: str, of: Mapping[str, object], *, error: BaseException
    ) -> None:
        """Forget it."""


NO_AUDIT: Audit = NoAudit()
