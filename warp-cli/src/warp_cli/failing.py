"""How commands fail: one sentence that says what to do, and a status that is not zero."""

from __future__ import annotations

import errno
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
    except OSError as error:
        if not error.filename:
            raise
        return fail(_said(error), json=json)


def _said(error: OSError) -> Exception:
    """Turn what the system refused about a file into a sentence."""
    advice = {
        errno.EACCES: ": run as its owner, or give this user the right",
        errno.EPERM: ": run as its owner, or give this user the right",
        errno.ENOSPC: ": free some space",
        errno.EROFS: ": choose a place that can be written",
    }.get(error.errno or 0, "")
    return type(error)(f"{error.filename}: {error.strerror}{advice}")


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
