"""Disks over NBD under file systems of a Linux kernel: made, trimmed, unmounted, checked, also after the server was killed."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from warp_integration.kernel import Kernel, kernel
from warp_integration.nbd import disk, warp
from warp_integration.ports import free_ports
from warp_integration.requirements import require
from warp_integration.server import WarpServer, config_text

pytestmark = [pytest.mark.workspace, pytest.mark.usefixtures("warp_serve")]

MIB = 1 << 20
SEED = int(os.environ.get("WARP_TEST_SEED", "1"))
STILL_S = 3.0  # a figure that did not change for so long is final
HANG_S = 60.0
SIZE = "320M"  # mkfs.xfs takes 300 MiB or more

# How each file system is made, and checked without being changed. A log that was not replayed counts as damage for both.
MAKE = {
    "ext4": "mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 /dev/nbd0",
    "xfs": "mkfs.xfs -q -f /dev/nbd0",
}
CHECK = {"ext4": "e2fsck -f -n /dev/nbd0", "xfs": "xfs_repair -n /dev/nbd0"}
MOUNT = {
    "ext4": "mount -t ext4 /dev/nbd0 /media",
    "xfs": "mount -t xfs -o nouuid /dev/nbd0 /media",
}


def attach(port: int) -> str:
    """Return the words that connect the guest's device to the disk."""
    return f"nbd-client $HOST_IP {port} /dev/nbd0 -N v/fs -timeout 5"


DETACH = "nbd-client -d /dev/nbd0"


@pytest.fixture(scope="module")
def machine() -> Iterator[Kernel]:
    with kernel("nbd") as guest:
        yield guest


@pytest.fixture
def guest(machine: Kernel) -> Iterator[Kernel]:
    """A kernel that others had before, with nothing attached, mounted or kept."""
    yield machine
    machine.run(f"umount -l /media || true; {DETACH} || true; rm -f /run/[0-9]*")


@contextmanager
def exporting(folder: Path) -> Iterator[tuple[WarpServer, Path, int]]:
    """Run a server with a disk `v/fs`, on a port that stays the same when it is started again."""
    (port,) = free_ports(1)
    config = folder / "warp.toml"
    tables = f'[protocols.nbd]\nlisten = "127.0.0.1:{port}"\nauth = "none"\n[services.gc]\ninterval = "1s"'
    config.write_text(config_text(extra=tables))
    data = folder / "data"
    with WarpServer(data, config=config, logs=folder / "logs") as server:
        warp(data, "volume", "create", "v")
        disk(data, "create", "v/fs", "--size", SIZE)
        assert urlsplit(server.endpoints["nbd"]).port == port
        yield server, data, port
        assert server.running, server.log_tail()


def allocated(data: Path) -> int:
    """Return the bytes that the disk takes; a change counts some time later."""
    told = disk(data, "show", "v/fs")
    assert isinstance(told, dict)
    return int(told["allocated"])


def allocated_in_the_end(data: Path) -> int:
    """Return the bytes that the disk takes, once that stands still."""
    found, since = -1, time.monotonic()
    while time.monotonic() - since < STILL_S:
        if (now := allocated(data)) != found:
            found, since = now, time.monotonic()
        time.sleep(0.3)
    return found


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_a_file_system_is_made_trimmed_and_clean(guest: Kernel, tmp_path: Path, kind: str) -> None:
    require("e2fsck" if kind == "ext4" else "mkfs.xfs")
    with exporting(tmp_path) as (_, data, port):
        guest.run(f"{attach(port)}; {MAKE[kind]}; {MOUNT[kind]}; sync")
        made = allocated(data)  # or less: it may count the rest later
        guest.run(
            "for n in 1 2 3 4; do head -c 16777216 /dev/urandom > /media/f$n; done; cd /media; sha256sum f* > sums; sync; cd /"
        )
        full = allocated_in_the_end(data)
        guest.run("rm /media/f1 /media/f2 /media/f3; sync; fstrim -v /media")
        guest.run("cd /media; grep 'f4$' sums | sha256sum -c; cd /")
        deadline = time.monotonic() + HANG_S
        while allocated(data) > full - 48 * MIB:
            assert time.monotonic() < deadline, "what was trimmed is not given back"
            time.sleep(0.3)
        guest.run(f"umount /media; {CHECK[kind]}; {DETACH}")
        guest.run(
            f"{attach(port)}; {MOUNT[kind]}; cd /media; grep 'f4$' sums | sha256sum -c; cd /; umount /media; {DETACH}"
        )

    assert full >= made + 63 * MIB  # a little of what mkfs wrote is given back


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
@pytest.mark.parametrize(
    "kills", [pytest.param(1, id="one"), pytest.param(20, id="many", marks=pytest.mark.slow)]
)
def test_a_mounted_file_system_survives_kills_of_the_server(
    guest: Kernel, tmp_path: Path, kind: str, kills: int
) -> None:
    require("e2fsck" if kind == "ext4" else "mkfs.xfs")
    rand = random.Random(SEED)
    with exporting(tmp_path) as (server, _, port):
        guest.run(f"{attach(port)}; {MAKE[kind]}; {MOUNT[kind]}; mkdir /media/kept; sync")
        for turn in range(kills):
            kept = f"/media/kept/{turn}"
            guest.run(
                f"head -c 1000000 /dev/urandom > {kept}; sync; sha256sum {kept} > /run/{turn}"
            )
            work_until_killed(guest, server, after_s=rand.uniform(0.3, 1.0))
            guest.run(f"umount /media || umount -l /media; {DETACH} || true", timeout_s=90)
            server.start()
            # Mounting replays the log; the check comes after it.
            guest.run(f"sleep 0.2; {attach(port)}; {MOUNT[kind]}; umount /media; {CHECK[kind]}")
            guest.run(f"{MOUNT[kind]}; cat /run/[0-9]* | sha256sum --quiet -c")
        guest.run(f"umount /media; {DETACH}")


def work_until_killed(guest: Kernel, server: WarpServer, *, after_s: float) -> None:
    """Write and remove small files until the server is gone, which has to be seen as an error."""
    victim = threading.Thread(target=lambda: (time.sleep(after_s), server.kill()))
    victim.start()
    guest.run(
        "mkdir -p /media/w; n=0; while true; do n=$((n+1)); head -c $((n * 4099 % 65536)) /dev/urandom > /media/w/$((n % 64)); "
        "[ $((n % 8)) != 0 ] || sync /media/w/$((n % 64)); rm -f /media/w/$((n * 7 % 64)); done",
        fails=True,
        timeout_s=90,
    )
    victim.join()
