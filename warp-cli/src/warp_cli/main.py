"""The entry point: finds the command by name, and imports nothing else.

`warp --help` is printed from the table below and `warp serve` reads its own few options, because
typer and rich together take longer to import than a server takes to start. Everything else is
typer's.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from warp_cli.failing import INTERRUPTED
from warp_cli.table import COMMANDS, overview

USAGE_ERROR = 2


def run() -> None:
    """Run the command that the process was started with, and exit with its status."""
    status = main(sys.argv[1:])
    if status == INTERRUPTED:
        _end_by_interrupt()
    sys.exit(status)


def _end_by_interrupt() -> None:
    """Die of SIGINT, so that a shell ends what it was doing too, instead of going on with the next command."""
    import os
    import signal

    sys.stdout.flush()
    sys.stderr.flush()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGINT)


def main(arguments: Sequence[str]) -> int:
    """Run a command; returns its exit status."""
    name = arguments[0] if arguments else "--help"
    if name in ("--help", "-h", "help") and len(arguments) < 2:
        print(overview())
        return 0 if arguments else USAGE_ERROR
    if name == "help":
        return main([arguments[1], "--help"])
    if name in ("--version", "-V"):
        from warp_core import __version__

        print(f"warp {__version__}")
        return 0
    if name == "serve":
        from warp_cli.serving import options_of

        options = options_of(arguments[1:])
        if options is not None:
            from warp_cli.failing import reported
            from warp_cli.serving import serve

            return reported(lambda: serve(options), json=options.json)
    if name not in COMMANDS:
        from difflib import get_close_matches

        near = get_close_matches(name, COMMANDS, n=1)
        hint = f'did you mean "warp {near[0]}"?' if near else 'see "warp --help"'
        print(f'warp: there is no command "{name}": {hint}', file=sys.stderr)
        return USAGE_ERROR
    from warp_cli.typing import call

    return call(name, arguments[1:])
