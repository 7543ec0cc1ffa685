"""Commands of another node, behind a line to it."""

from __future__ import annotations

from warp_core.forward.line import Line
from warp_core.forward.verbs import VERBS
from warp_core.views.commands import Commands


class RemoteCommands(Commands):
    """Done by the home at the other end of a line; they take their time, so they last as long as its session."""

    def __init__(self, line: Line) -> None:
        """Take the line; it is its owner's to close."""
        self._line = line

    async def run(self, verb: str, arguments: bytes) -> bytes:
        """As `Commands.run`."""
        session = await self._line.session()
        done: bytes = await session.ask_verb(
            VERBS["commands.run"], (verb, arguments), {}, deadline_s=float("inf")
        )
        return done
