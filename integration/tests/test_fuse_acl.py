"""Access control lists through a mount: the programs that keep them, who gets in, and what other mounts see of a change."""

from __future__ import annotations

import errno
import os
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from warp_integration.mounts import Mounted, mounted
from warp_integration.posix.calls import User
from warp_integration.requirements import require

pytestmark = [pytest.mark.workspace, pytest.mark.usefixtures("warp_serve")]

ACCESS = "system.posix_acl_access"
NFS4 = "system.nfs4_acl"
ADA, BEN = 65531, 65532


COPIES = f"""
cd "$1"
setfacl -m d:u:{BEN}:rwx,d:g:7:r-x,u:{BEN}:rx tree
cp /dev/null tree/inherits
mkdir tree/below
setfacl -m u:{ADA}:rw,m::r tree/inherits
cp -a tree copied
rsync -aAX tree/ synced/
tar --acls -cf tree.tar tree
mkdir untarred
tar --acls -C untarred -xpf tree.tar
"""


@pytest.fixture(scope="module")
def volume(warp_serve: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounted]:
    require("setfacl", "getfacl", "rsync", "tar")
    with mounted(tmp_path_factory.mktemp("fuse-acl")) as running:
        yield running
        assert running.server.running, running.server.log_tail()


@pytest.fixture
def ben(volume: Mounted) -> Iterator[User]:
    user = User(volume.one, BEN, BEN, [])
    yield user
    user.end()


def listed(place: Path) -> list[str]:
    """Return what getfacl says of everything below a directory."""
    found = subprocess.run(
        ["getfacl", "-nRp", "."], cwd=place, capture_output=True, text=True, check=True, timeout=60
    )
    return sorted(found.stdout.split("\n\n"))


def nfs4(*entries: tuple[int, int, int, str]) -> bytes:
    found = struct.pack(">I", len(entries))
    for kind, flags, rights, who in entries:
        found += struct.pack(">IIII", kind, flags, rights, len(who)) + who.encode()
        found += bytes(-len(who) % 4)
    return found


def test_programs_that_copy_lists_keep_them(volume: Mounted) -> None:
    tree = volume.one / "tree"
    (tree / "sub").mkdir(parents=True)
    volume.run("sh", "-ec", COPIES, "sh", "{one}")
    expected = listed(tree)

    assert any(f"default:user:{BEN}:rwx" in each for each in expected)
    assert any(f"user:{ADA}:rw-\t#effective:r--" in each for each in expected)
    for place in ("copied", "synced", "untarred/tree"):
        assert listed(volume.two / place) == expected, place


def test_a_list_lets_in_and_keeps_out_at_once_through_every_mount(
    volume: Mounted, ben: User
) -> None:
    file = volume.one / "file"
    file.write_bytes(b"x")
    file.chmod(0o600)
    reads = ["open", "file", os.O_RDONLY, 0]
    for _ in range(3):
        assert ben.call(reads) == "EACCES"
        subprocess.run(["setfacl", "-m", f"u:{BEN}:r", volume.two / "file"], check=True, timeout=60)
        assert ben.call(reads) == "done"
        assert ben.call(["open", "file", os.O_WRONLY, 0]) == "EACCES"
        assert file.stat().st_mode & 0o777 == 0o640
        (volume.two / "file").chmod(0o600)  # the mask
        assert ben.call(reads) == "EACCES"
        subprocess.run(["setfacl", "-b", volume.two / "file"], check=True, timeout=60)


def test_who_is_not_the_owner_sets_no_list(volume: Mounted, ben: User) -> None:
    file = volume.one / "owned"
    file.write_bytes(b"x")
    file.chmod(0o666)
    everything = nfs4((0, 0, 0x1F01FF, "EVERYONE@"))
    acl = struct.pack("<IHHiHHiHHi", 2, 1, 7, -1, 4, 7, -1, 32, 7, -1)

    assert ben.call(["setacl", "owned", ACCESS, acl.hex()]) == "EPERM"
    assert ben.call(["setacl", "owned", NFS4, everything.hex()]) == "EPERM"
    assert ben.call(["setxattr", "owned", "trusted.a", "b", 0]) == "EPERM"
    os.setxattr(file, "trusted.a", b"c")
    assert os.listxattr(file) == ["trusted.a"]


def test_a_list_of_nfs_keeps_the_kernel_from_giving_more(volume: Mounted, ben: User) -> None:
    file = volume.one / "denied"
    file.write_bytes(b"x")
    value = nfs4((1, 0, 1, str(BEN)), (0, 0, 0x27, "OWNER@"), (0, 0, 1, "EVERYONE@"))

    os.setxattr(volume.two / "denied", NFS4, value)

    assert os.getxattr(file, NFS4) == value
    assert ben.call(["open", "denied", os.O_RDONLY, 0]) == "EACCES"
    os.setxattr(file, NFS4, value[:4][:3] + b"\2" + value[4 + 16 + 8 :])  # without the first
    assert ben.call(["open", "denied", os.O_RDONLY, 0]) == "done"


def test_attributes_are_refused_with_the_errors_of_linux(volume: Mounted) -> None:
    file = volume.one / "attributes"
    file.write_bytes(b"x")
    os.setxattr(file, "user.a", b"1" * 100)
    for attempt, code in (
        (lambda: os.setxattr(file, "user." + "n" * 251, b""), errno.ERANGE),
        (lambda: os.setxattr(file, "user.b", bytes(65537)), errno.E2BIG),
        (lambda: os.setxattr(file, "user.b", bytes(65536)), errno.ENOSPC),
        (lambda: os.setxattr(file, "user.a", b"", os.XATTR_CREATE), errno.EEXIST),
        (lambda: os.setxattr(file, "user.b", b"", os.XATTR_REPLACE), errno.ENODATA),
        (lambda: os.getxattr(file, "user.b"), errno.ENODATA),
        (lambda: os.getxattr(file, ACCESS), errno.ENODATA),
        (lambda: os.setxattr(file, ACCESS, b"\1\0\0\0"), errno.EOPNOTSUPP),  # the kernel's own
        (lambda: os.setxattr(file, NFS4, b"\0\0\0\1"), errno.EINVAL),
        (lambda: os.setxattr(file, "system.b", b""), errno.EOPNOTSUPP),
    ):
        with pytest.raises(OSError, match=r".") as refused:
            attempt()
        assert refused.value.errno == code, refused.value
