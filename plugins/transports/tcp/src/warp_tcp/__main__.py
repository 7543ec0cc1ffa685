"""Certificates for nodes, from the command line: `python -m warp_tcp authority DIR`, `python -m warp_tcp issue DIR NODE FOLDER`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from warp_core.errors import WarpError


def main(arguments: list[str] | None = None) -> int:
    """Make an authority, or a node's certificate; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m warp_tcp",
        description="Make the certificates that nodes know each other by.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    authority = commands.add_parser("authority", help="make an authority; keep its folder secret")
    authority.add_argument("folder", type=Path, help="where the authority goes")
    authority.add_argument("--cluster", default="warp", help="its name (default: warp)")
    node = commands.add_parser("issue", help="make a node's certificate")
    node.add_argument("authority", type=Path, help="the authority's folder")
    node.add_argument("node", help="the node's name, as [node] name says it")
    node.add_argument("folder", type=Path, help="where it goes: tls/ in the node's data folder")
    node.add_argument(
        "--host",
        action="append",
        default=[],
        help="an address that it is reached at, for etcd; may be repeated",
    )
    options = parser.parse_args(arguments)
    from warp_core.certificates import issue, make_authority

    try:
        if options.command == "authority":
            make_authority(options.folder, cluster=options.cluster)
            print(f"made the authority {options.folder}: its key signs nodes, keep it secret")
        else:
            issue(options.authority, options.node, options.folder, hosts=options.host)
            print(f"made the certificate of node {options.node} in {options.folder}")
    except (OSError, WarpError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
