"""Put file systems on recorded disks, and on what a cut left of them."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from warp_integration.namespace import MountNamespace, MountRefused, leashed
from warp_integration.powercut.cut import Cut, Replay, copy_sparse
from warp_integration.powercut.disks import EXT4, MIB, FileSystem
from warp_integration.powercut.position import Position
from warp_integration.powercut.trace import Trace

_STOP_S = 20  # for a clean unmount; longer means something inside still holds a file


class Recording:
    """Disks with file systems whose every write and flush is recorded while this context is open.

    Args:
        directory: Where images and trace are kept: room for `disks` images and all that is written.
        disks: How many; one trace orders the writes of all of them, as one power supply fails for all.
        size: Bytes of each disk.
        filesystem: What to put on them.
    """

    def __init__(
        self,
        directory: Path,
        *,
        disks: int = 1,
        size: int = 96 * MIB,
        filesystem: FileSystem = EXT4,
    ) -> None:
        self._directory = directory.absolute()
        self._filesystem = filesystem
        self._size = max(size, filesystem.size_min)
        self._bases = [self._directory / f"base-{number}" for number in range(disks)]
        self._served = self._directory / "served"
        self.mounts = tuple(self._directory / f"disk-{number}" for number in range(disks))
        """Where the file systems are, for processes inside `namespace`."""
        self.first = 0
        """Position of the trace when all file systems were mounted."""
        self.last = 0
        """Position of the trace at `stop`: what follows is the unmounting."""
        self._recorder: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Recording:
        with contextlib.ExitStack() as stack:
            for directory in (self._served, *self.mounts):
                directory.mkdir(parents=True)
            images = []
            for number, base in enumerate(self._bases):
                self._filesystem.format(base, self._size)
                images.append(self._directory / f"live-{number}")
                copy_sparse(base, images[-1])
            self.position_file = self._directory / "position"
            self.position = stack.enter_context(Position(self.position_file, create=True))
            stack.callback(self._end_recorder)  # after the namespace: unmounting still writes
            self.namespace = stack.enter_context(MountNamespace())
            self._start_recorder(images)
            for image, at in zip(images, self.mounts, strict=True):
                served = self._served / image.name
                self.namespace.mount_image(served, at, self._filesystem.options)
            self.first = self.position.read()
            self._stack = stack.pop_all()
        return self

    def _start_recorder(self, images: Sequence[Path]) -> None:
        module = "warp_integration.powercut.recorder"
        trace = self._directory / "trace"
        places = [self._served, self.namespace.handle, trace, self.position_file, *images]
        # Not inside the namespace: `fuse.mount` says why.
        self._recorder = subprocess.Popen(
            [*leashed(), sys.executable, "-m", module, *places],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self._recorder.stdout
        assert self._recorder.stderr
        if self._recorder.stdout.readline() != b"ready\n":
            raise RuntimeError(f"no recorder: {self._recorder.stderr.read().decode()}")

    def _end_recorder(self) -> None:
        if self._recorder is None:
            return
        self._recorder.kill()
        self._recorder.wait()
        for pipe in (self._recorder.stdout, self._recorder.stderr):
            if pipe:
                pipe.close()

    def path(self, disk: int = 0) -> Path:
        """Return where disk number `disk` is reached from outside the namespace."""
        return self.namespace.path(self.mounts[disk])

    def stop(self) -> None:
        """End the recording cleanly; nothing may be using the disks any more."""
        self.last = self.position.read()
        for mount in (*self.mounts, self._served):
            _unmount(self.namespace, mount)
        assert self._recorder
        self._recorder.wait(_STOP_S)
        if self._recorder.returncode:
            assert self._recorder.stderr
            raise RuntimeError(f"the recorder failed: {self._recorder.stderr.read().decode()}")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._stack:
            if error is None and not self.last:
                self.stop()

    def replay(self) -> Replay:
        """Return a replay of the finished recording."""
        trace = Trace(self._directory / "trace")
        return Replay(trace, self._bases, self._directory / "replay")

    @property
    def filesystem(self) -> FileSystem:
        """What is on the disks."""
        return self._filesystem


def _unmount(namespace: MountNamespace, at: Path) -> None:
    deadline = time.monotonic() + _STOP_S
    while True:
        try:
            namespace.run("umount", at)
        except subprocess.CalledProcessError as error:
            # A loop device lets go of its file a moment after its unmount.
            if "busy" not in error.stderr or time.monotonic() > deadline:
                raise RuntimeError(f"cannot unmount {at}: {error.stderr.strip()}") from error
            time.sleep(0.02)
        else:
            return


@dataclass(frozen=True, slots=True)
class Remains:
    """The file systems after a cut, mounted: journals are replayed, everything may be read and written."""

    namespace: MountNamespace
    mounts: tuple[Path, ...]

    def path(self, disk: int = 0) -> Path:
        """Return where disk number `disk` is reached from outside the namespace."""
        return self.namespace.path(self.mounts[disk])


@contextlib.contextmanager
def after_cut(
    images: Sequence[Path], directory: Path, filesystem: FileSystem = EXT4
) -> Iterator[Remains]:
    """Mount what a cut left, in `directory` under the names that `Recording` gives: configurations stay true.

    Raises:
        MountRefused: The file system itself did not survive.
    """
    mounts = tuple(directory.absolute() / f"disk-{number}" for number in range(len(images)))
    with MountNamespace() as namespace:
        for image, at in zip(images, mounts, strict=True):
            at.mkdir(parents=True, exist_ok=True)
            namespace.mount_image(image, at, filesystem.options)
        yield Remains(namespace, mounts)


__all__ = ["Cut", "MountRefused", "Recording", "Remains", "after_cut"]
