"""How commands fail: one sentence that says what to do, and a status that is not zero."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

FAILURE = 1
INTERRUPTED = 130  # as shells report SIGINT


def reported(command: Callable[[], int | None], *, json: bool) -> int:
    """Run a command; what WARP or the system refuses is told in one sentence, without a traceback."""
    from warp_core.errors import WarpError

    try:
        return command() or 0
    except WarpError as error:
        return fail(error, json=json)
    except KeyboardInterrupt:
        print("warp: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of a pipe left (`warp ... | head`): nothing is wrong, and nothing can be said.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def fail(error: Exception, *, json: bool) -> int:
    """Tell an error, on stderr for people and on stdout as JSON; returns the exit status."""
    if json:
        import msgspec

        said: dict[str, object] = {"kind": type(error).__name__, "message": str(error)}
        problems = getattr(error, "problems", ())
        if problems:
            said["problems"] = [
                {name: getattr(each, name) for name in each.__dataclass_fields__}
                for each in problems
            ]
        sys.stdout.write(msgspec.json.encode({"error": said}).decode() + "\n")
    lines = str(error).splitlines() or [type(error).__name__]
    for line in lines:
        print(f"warp: {line}", file=sys.stderr)
    return FAILURE
