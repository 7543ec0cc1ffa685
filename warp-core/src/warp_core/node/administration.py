"""What a protocol for administration asks of a node: the verbs of the control socket, who may use them, and how the node is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

import msgspec

from warp_core.audit.entries import told
from warp_core.errors import PermissionDenied, WarpError
from warp_core.interfaces.audit import Audit, Caller
from warp_core.node.control import Nothing, Progress, Role, Verb, run
from warp_core.node.tokens import Tokens

N = TypeVar("N")

METRICS = "metrics.text"  # the verb that is asked for here by name
READY_S = 2.0  # metadata that takes longer to answer is not there


class Administration(Generic[N]):
    """A node to be asked by others than its owner.

    Attributes:
        tokens: Who may.
    """

    def __init__(
        self,
        node: N,
        verbs: Callable[[], Mapping[str, Verb[N]]],
        audit: Audit,
        tokens: Tokens,
        *,
        stopped: Callable[[], str] = lambda: "",
    ) -> None:
        """Take what is asked; `stopped` says why the node does not write any more, "" if it does."""
        self._node = node
        self._stopped = stopped
        self._verbs = verbs
        self._audit = audit
        self.tokens = tokens

    @property
    def verbs(self) -> Mapping[str, Verb[N]]:
        """Everything that can be asked, by name. It stays the same while the node runs."""
        return self._verbs()

    async def perform(
        self,
        name: str,
        arguments: msgspec.Struct,
        caller: Caller,
        progress: Progress,
        *,
        role: Role,
    ) -> object:
        """Do a verb; what changes something is put on record, also where it is refused.

        Raises:
            PermissionDenied: The role does not reach so far.
            WarpError: What the verb refuses.
        """
        verb = self.verbs[name]
        needed = verb.role_of(name)
        if role < needed:
            error = PermissionDenied(
                f"{name} takes the role {needed.name.lower()}; {caller.name} is {role.name.lower()}"
            )
            if not verb.only_reads(name):
                await self._audit.note(caller, name, told(arguments), error=error)
            raise error
        return await run(
            name, verb, self._node, arguments, progress, audit=self._audit, caller=caller
        )

    async def unready(self) -> list[str]:
        """Return why requests had better go to another node; nothing if they need not."""
        reasons = []
        try:
            async with asyncio.timeout(READY_S):
                await self.tokens.answers()
        except (WarpError, TimeoutError):
            reasons.append("the metadata does not answer")
        if self._stopped():
            reasons.append("the node has stopped writing")
        return reasons

    async def metrics(self) -> str:
        """Return the text that Prometheus scrapes."""
        return str(await self._verbs()[METRICS].run(self._node, Nothing(), lambda progress: None))
