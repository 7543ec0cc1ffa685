"""Clients of SFTP, with keys and certificates of their own, against a server that lets them in."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from warp_core.node.client import Control

from warp_integration.requirements import locate
from warp_integration.server import WarpServer

TIMEOUT_S = 120.0  # of one client, for hangs only


class Logins:
    """A folder with a user's key and an authority's, and what clients are told to use them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.key = self.keygen("key", "-C", "ada's key")
        self.authority = self.keygen("authority")

    def keygen(self, name: str, *options: str, kind: str = "ed25519") -> Path:
        """Make a key pair."""
        path = self.folder / name
        run("ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(path), *options)
        return path

    def certified(
        self, name: str, *, principals: str, valid: str = "+1h", signer: Path | None = None
    ) -> Path:
        """Make a key pair with a certificate beside it."""
        path = self.keygen(name)
        words = ["-s", str(signer or self.authority), "-I", name, "-V", valid]
        if principals:
            words += ["-n", principals]
        run("ssh-keygen", "-q", *words, f"{path}.pub")
        return path

    def options(self, port: int, key: Path | None = None, **more: str) -> list[str]:
        """Return options that OpenSSH's programs and sshfs take."""
        said = {
            "Port": str(port),
            "StrictHostKeyChecking": "no",
            "UserKnownHostsFile": "/dev/null",
            "LogLevel": "ERROR",
            "IdentitiesOnly": "yes",
            "BatchMode": "yes",
            "PreferredAuthentications": "publickey",
            "IdentityFile": str(key or self.key),
            **more,
        }
        return [word for name, value in said.items() for word in ("-o", f"{name}={value}")]


def run(
    program: str, *words: str, input: str = "", fails: bool = False, cwd: Path | None = None
) -> str:
    """Run a client to its end, and return what it printed; `fails` is whether it has to."""
    done = subprocess.run(
        [str(locate(program)), *words],
        input=input,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_S,
        cwd=cwd,
    )
    assert bool(done.returncode) == fails, (
        f"{program} ended with {done.returncode}:\n{done.stdout[-3000:]}"
    )
    return done.stdout


def public(key: Path) -> str:
    """Return the public half of a key."""
    return key.with_name(f"{key.name}.pub").read_text()


def port_of(server: WarpServer) -> int:
    """Return the port of a server's SFTP."""
    return int(server.endpoints["sftp"].rpartition(":")[2])


def tell(server: WarpServer, verb: str, **arguments: Any) -> Any:
    """Ask a server over its control socket, as `warp` does, and return what it answers."""
    with Control(server.data / "control.sock") as control:
        return control.call(verb, **arguments)


def sftp(
    logins: Logins,
    port: int,
    lines: Sequence[str],
    *,
    user: str = "ada",
    key: Path | None = None,
    fails: bool = False,
    cwd: Path | None = None,
) -> str:
    """Run lines by OpenSSH's `sftp`, which ends at the first that fails."""
    words = ["-q", "-F", "none", *logins.options(port, key), "-b", "-", f"{user}@127.0.0.1"]
    return run("sftp", *words, input="\n".join(lines) + "\n", fails=fails, cwd=cwd)
