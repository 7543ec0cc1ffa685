"""A mount namespace of our own: whatever is mounted in it is gone when its last process is.

That is the whole cleanup. Nothing has to be unmounted and no loop device detached, also when a test fails, is
interrupted, or is killed: the holder ends when its input does, the processes inside die with the process
that started them, the kernel then unmounts, and loop devices that `mount -o loop` made detach themselves.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

_LEASH = '[ "$PPID" = "$1" ] || exit 1; shift; exec "$@"'


def leashed() -> tuple[str, ...]:
    """Return the words that, before a command, let it be killed when the thread of this process that starts it ends.

    The parent may be dead before the kernel is asked for the signal, which then never comes: so it is looked at afterwards.
    """
    return ("setpriv", "--pdeathsig", "KILL", "sh", "-c", _LEASH, "leash", str(os.getpid()))


class MountRefused(Exception):
    """The kernel or `mount` would not mount an image; says what it printed."""


class MountNamespace:
    """Hold a private mount namespace open; needs root.

    Processes started through `popen` get SIGKILL when the *thread* that started them ends (PR_SET_PDEATHSIG),
    so start them from one that outlives the test, the main thread for choice.
    """

    def __init__(self) -> None:
        self._children: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> MountNamespace:
        # `cat` is the holder: it echoes once the namespace exists, and ends when its input is closed,
        # by us or by the kernel after our death.
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )
        assert self._holder.stdin
        assert self._holder.stdout
        assert self._holder.stderr
        try:
            self._holder.stdin.write(b"\n")
            alive = self._holder.stdout.read(1) == b"\n"
        except BrokenPipeError:
            alive = False
        if not alive:
            reason = self._holder.stderr.read().decode()
            self.close()
            raise PermissionError(f"no mount namespace: {reason.strip()}")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every process inside and with them every mount."""
        for child in self._children:
            if child.poll() is None:
                child.kill()
        for child in self._children:
            child.wait()
        for stream in (self._holder.stdin, self._holder.stdout, self._holder.stderr):
            if stream:
                stream.close()
        self._holder.wait()

    @property
    def prefix(self) -> tuple[str, ...]:
        """The words that, before a command, run it inside; it keeps its process id."""
        return ("nsenter", f"--mount={self.handle}", "--", *leashed())

    @property
    def handle(self) -> Path:
        """The file that names this namespace to setns(2)."""
        return Path(f"/proc/{self._holder.pid}/ns/mnt")

    def path(self, inside: Path) -> Path:
        """Return where the absolute path `inside` is reached from outside."""
        return Path(f"/proc/{self._holder.pid}/root", *inside.parts[1:])

    def run(self, *command: str | Path) -> str:
        """Run a command inside to its end and return its output.

        Raises:
            CalledProcessError: It failed; `stderr` says why.
        """
        words = [*self.prefix, *map(str, command)]
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout

    def popen(
        self,
        command: Sequence[str | Path],
        *,
        stdin: int | IO[bytes] | None = subprocess.DEVNULL,
        stdout: int | IO[bytes] | None = None,
        stderr: int | IO[bytes] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a command inside, with the root of the file system as its directory."""
        words = [*self.prefix, *map(str, command)]
        child = subprocess.Popen(words, stdin=stdin, stdout=stdout, stderr=stderr, env=env)
        self._children.append(child)
        return child

    def mount_image(self, image: Path, at: Path, options: Sequence[str] = ()) -> None:
        """Mount a disk image through a loop device that detaches itself.

        Raises:
            MountRefused: The image is not a file system that can be mounted.
        """
        try:
            self.run("mount", "-o", ",".join(("loop", *options)), image, at)
        except subprocess.CalledProcessError as error:
            raise MountRefused(error.stderr.strip()) from error
