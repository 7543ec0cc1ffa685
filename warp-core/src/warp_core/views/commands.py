"""Commands: what `warp` asks a node about volumes, so that any node of a cluster can pass it on to their home."""

from __future__ import annotations


class Commands:
    """Verbs of the control socket. Arguments and results are JSON, as there."""

    async def run(self, verb: str, arguments: bytes) -> bytes:
        """Do a verb and return its result.

        Raises:
            NotFound: There is no such verb.
            InvalidArgument: It does not take these arguments.
            WarpError: What it refuses.
        """
        raise NotImplementedError
