"""Volumes over SFTP, used by the clients that people have."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import pytest
from warp_integration.requirements import locate, require, require_modules, require_root
from warp_integration.server import ACCESS_KEY, SECRET_KEY, WarpServer, config_text
from warp_integration.sftp import Logins, port_of, public, run, sftp, tell

pytestmark = [pytest.mark.workspace, pytest.mark.usefixtures("warp_serve")]

PASSWORD = "correct horse battery staple"


class Served:
    """A server with the volume `files` of the account ada, and the volume `secret` of root."""

    def __init__(self, server: WarpServer, logins: Logins) -> None:
        self.server = server
        self.logins = logins
        self.port = port_of(server)
        for name in ("ada", "bob"):
            tell(server, "account.create", account=name)
        tell(server, "account.ssh-key.add", account="ada", key=public(logins.key))
        tell(server, "account.password", account="ada", password=PASSWORD)
        tell(server, "volume.create", name="files", owner="account:ada")
        tell(server, "volume.create", name="secret")

    def s3(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.server.s3,
            region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
        )

    def body(self, key: str) -> bytes:
        return bytes(self.s3().get_object(Bucket="files", Key=key)["Body"].read())

    def sftp(self, *lines: str, **more: Any) -> str:
        return sftp(self.logins, self.port, lines, **more)


@pytest.fixture(scope="module")
def served(warp_serve: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    require("sftp", "ssh-keygen")
    folder = tmp_path_factory.mktemp("sftp")
    logins = Logins(folder / "logins")
    config = folder / "warp.toml"
    config.write_text(
        config_text(
            extra="\n".join(
                (
                    "[protocols.sftp]",
                    'listen = "127.0.0.1:0"',
                    f'user_authorities = ["{logins.authority}.pub"]',
                    "address_attempts_max = 100000",
                )
            )
        )
    )
    server = WarpServer(folder / "data", config=config, logs=folder / "logs")
    with server:
        yield Served(server, logins)
        assert server.running, server.log_tail()
        assert "a defect" not in server.log(), server.log_tail()


# OpenSSH ------------------------------------------------------------------------------------------


def test_openssh_does_all_that_its_batches_can(served: Served, tmp_path: Path) -> None:
    data = os.urandom(3_000_003)
    (tmp_path / "local").write_bytes(data)
    (tmp_path / "local").chmod(0o640)
    os.utime(tmp_path / "local", (1_000_000_000, 1_100_000_000))
    told = served.sftp(
        "cd files", "mkdir batch", "cd batch", "pwd",
        "put -p local one", "rename one two", "ln two three", "ln -s two four", "copy two five",
        "chmod 600 five", "get two back", "get four followed", "ls -la", "df", "rm three", "mkdir d",
        "rmdir d", "-rmdir nothing", "put -f local six",
        cwd=tmp_path,
    )  # fmt: skip

    assert "Remote working directory: /files/batch" in told
    assert (tmp_path / "back").read_bytes() == (tmp_path / "followed").read_bytes() == data
    assert served.body("batch/two") == served.body("batch/five") == served.body("batch/six") == data
    lines = {
        line.split()[-1]: line for line in told.splitlines() if line.startswith(("-", "l", "d"))
    }
    assert lines["two"].startswith("-rw-r-----")
    assert "ada" in lines["two"]
    assert "Nov  9  2004" in lines["two"], lines["two"]
    assert lines["five"].startswith("-rw-------")
    assert {"three", "four", "five"} <= lines.keys()
    assert "Avail" in told
    # A rename that replaces (posix-rename), and one that must not.
    served.sftp("rename /files/batch/six /files/batch/two")
    keys = {
        each["Key"]
        for each in served.s3().list_objects_v2(Bucket="files", Prefix="batch/")["Contents"]
    }
    assert keys >= {"batch/two", "batch/five"}
    assert not keys & {"batch/six", "batch/three", "batch/one"}


def test_transfers_that_broke_off_go_on(served: Served, tmp_path: Path) -> None:
    data = os.urandom(2_500_000)
    (tmp_path / "whole").write_bytes(data)
    (tmp_path / "part").write_bytes(data[:1_000_001])
    served.sftp("cd files", "put part resumed", cwd=tmp_path)
    assert served.body("resumed") == data[:1_000_001]

    served.sftp("cd files", "reput whole resumed", "reget resumed part", cwd=tmp_path)

    assert served.body("resumed") == data
    assert (tmp_path / "part").read_bytes() == data


def test_what_is_written_over_one_protocol_is_read_over_the_other(
    served: Served, tmp_path: Path
) -> None:
    s3 = served.s3()
    for turn in range(3):
        data = os.urandom(700_000 + turn)
        s3.put_object(Bucket="files", Key="both/deep/x", Body=data)
        served.sftp("get files/both/deep/x x", cwd=tmp_path)
        assert (tmp_path / "x").read_bytes() == data
        (tmp_path / "y").write_bytes(data[::-1])
        served.sftp("put y files/both/deep/x", cwd=tmp_path)
        assert served.body("both/deep/x") == data[::-1]
    s3.delete_object(Bucket="files", Key="both/deep/x")
    assert "not found" in served.sftp("get files/both/deep/x", fails=True, cwd=tmp_path)


def test_scp_copies_there_and_back(served: Served, tmp_path: Path) -> None:
    require("scp")
    tree = tmp_path / "tree"
    for name in ("a", "b/c", "b/empty"):
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"" if name == "b/empty" else os.urandom(200_000))
    options = ["-q", "-s", "-F", "none", *served.logins.options(served.port), "-rp"]
    run("scp", *options, str(tree), "ada@127.0.0.1:/files/scp")
    run("scp", *options, "ada@127.0.0.1:/files/scp", str(tmp_path / "back"))

    assert contents(tmp_path / "back") == contents(tree)


# Others -------------------------------------------------------------------------------------------


def test_sshfs_is_a_file_system(served: Served, tmp_path: Path) -> None:
    require_root()
    require("sshfs", "fusermount3")
    if not Path("/dev/fuse").exists():
        pytest.skip("missing: /dev/fuse (kernel module fuse)")
    served.sftp("mkdir files/sshfs")
    with sshfs(served, tmp_path / "mnt") as mounted:
        data = os.urandom(1_500_000)
        (mounted / "file").write_bytes(data)
        assert (mounted / "file").read_bytes() == data
        with open(mounted / "file", "r+b") as file:
            file.seek(1_000_000)
            file.write(b"in the middle")
            file.flush()
            os.fsync(file.fileno())
            file.truncate(1_200_000)
        os.rename(mounted / "file", mounted / "other")
        os.link(mounted / "other", mounted / "hard")
        os.symlink("other", mounted / "soft")
        (mounted / "other").chmod(0o600)
        os.utime(mounted / "other", (1_500_000_000, 1_500_000_000))
        seen = (mounted / "other").stat()
        assert (stat.S_IMODE(seen.st_mode), seen.st_mtime, seen.st_size) == (
            0o600,
            1.5e9,
            1_200_000,
        )
        assert os.readlink(mounted / "soft") == "other"
        assert sorted(os.listdir(mounted)) == ["hard", "other", "soft"]
        with pytest.raises(FileExistsError):
            (mounted / "hard").mkdir()
        with pytest.raises(OSError, match="directory"):
            (mounted / "no" / "way").write_bytes(b"")
        with open(mounted / "log", "ab") as log:
            log.write(b"one\n")
        with open(mounted / "log", "ab") as log:
            log.write(b"two\n")
        assert (mounted / "log").read_bytes() == b"one\ntwo\n"
        wanted = bytearray(data[:1_200_000])
        wanted[1_000_000 : 1_000_000 + 13] = b"in the middle"
    assert digest(served.body("sshfs/other")) == digest(bytes(wanted))


@contextlib.contextmanager
def sshfs(served: Served, place: Path) -> Iterator[Path]:
    place.mkdir()
    command = [
        str(locate("sshfs")), "-f", "-F", "/dev/null", "-p", str(served.port),
        *served.logins.options(served.port), "-o", "cache=no", "ada@127.0.0.1:/files/sshfs", str(place),
    ]  # fmt: skip
    client = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        until = time.monotonic() + 60
        while not os.path.ismount(place):
            assert client.poll() is None, client.stderr.read() if client.stderr else ""
            assert time.monotonic() < until, "sshfs does not mount"
            time.sleep(0.02)
        yield place
    finally:
        subprocess.run(["fusermount3", "-u", "-z", str(place)], check=False, capture_output=True)
        client.terminate()
        client.wait(30)
        if client.stderr:
            client.stderr.close()


def test_rclone_keeps_a_folder_and_its_copy_the_same(served: Served, tmp_path: Path) -> None:
    require("rclone")
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(20):
        (tree / f"f{number}").write_bytes(os.urandom(number * 10_000))
    where = (
        f":sftp,host=127.0.0.1,port={served.port},user=ada,key_file={served.logins.key},shell_type=none:"
        "files/rclone"
    )
    words = ["--config=/dev/null", "--transfers=8", "--retries=1", "--low-level-retries=1"]
    run("rclone", "sync", *words, str(tree), where)
    (tree / "f3").unlink()
    (tree / "f4").write_bytes(b"changed")
    run("rclone", "sync", *words, str(tree), where)
    run("rclone", "check", *words, "--download", str(tree), where)
    part = run("rclone", "cat", *words, "--offset", "3", "--count", "4", f"{where}/f4")

    assert part.endswith("nged")
    keys = {
        each["Key"]
        for each in served.s3().list_objects_v2(Bucket="files", Prefix="rclone/")["Contents"]
    }
    assert keys == {f"rclone/f{number}" for number in range(20) if number != 3}


def test_lftp_mirrors_over_several_connections(served: Served, tmp_path: Path) -> None:
    require("lftp")
    tree = tmp_path / "tree"
    for number in range(12):
        path = tree / f"d{number % 3}" / f"f{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(60_000 + number))
    ssh = " ".join(["ssh", "-a", "-x", "-F", "none", *served.logins.options(served.port)])
    script = (
        f"set sftp:connect-program '{ssh}'; set net:max-retries 1; set cmd:fail-exit yes; "
        f"open -u ada, sftp://127.0.0.1; mirror -R -P 4 {tree} files/lftp; mirror -P 4 files/lftp {tmp_path}/back"
    )
    run("lftp", "--norc", "-c", script)

    assert contents(tmp_path / "back") == contents(tree)


def test_paramiko_pipelines_and_sees_what_it_did(served: Served, tmp_path: Path) -> None:
    require_modules(paramiko="paramiko")
    import paramiko

    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
    # A password, and paramiko's own choice of cipher.
    client.connect(
        "127.0.0.1",
        served.port,
        "ada",
        PASSWORD,
        allow_agent=False,
        look_for_keys=False,
        timeout=60,
    )
    with client, client.open_sftp() as files:
        files.chdir("files")
        data = os.urandom(1_200_000)
        (tmp_path / "x").write_bytes(data)
        files.put(str(tmp_path / "x"), "paramiko")
        with files.open("paramiko", "rb") as remote:
            remote.prefetch()
            assert remote.read() == data
            assert list(remote.readv([(5, 10), (1_000_000, 7)])) == [
                data[5:15],
                data[1_000_000:1_000_007],
            ]
        with files.open("paramiko", "r+b") as remote:
            remote.seek(10)
            remote.write(b"0123456789")
            remote.truncate(100)
        with files.open("paramiko", "ab") as remote:
            remote.write(b"end")
        assert served.body("paramiko") == data[:10] + b"0123456789" + data[20:100] + b"end"
        files.posix_rename("paramiko", "renamed")
        assert files.normalize("./renamed") == "/files/renamed"
        with pytest.raises(FileNotFoundError):
            files.stat("paramiko")
        with pytest.raises(FileNotFoundError):
            files.open("/secret/x")
        with pytest.raises(PermissionError):
            files.mkdir("/volume")
        assert files.listdir("/") == ["files"]


def test_many_files_over_many_connections_at_once(served: Served, tmp_path: Path) -> None:
    contents_of = {number: os.urandom(50_000 + 7 * number) for number in range(6)}
    served.sftp("mkdir files/many")
    for number, data in contents_of.items():
        (tmp_path / f"{number}").write_bytes(data)

    def work(number: int) -> None:
        lines = [f"put {number} files/many/{number}.{turn}" for turn in range(4)]
        lines += [f"get files/many/{number}.{turn} {number}.{turn}" for turn in range(4)]
        served.sftp(*lines, cwd=tmp_path)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, contents_of))

    for number, data in contents_of.items():
        for turn in range(4):
            assert digest((tmp_path / f"{number}.{turn}").read_bytes()) == digest(data)
            assert digest(served.body(f"many/{number}.{turn}")) == digest(data)


# Logins -------------------------------------------------------------------------------------------


def test_certificates_let_their_principals_in_and_nobody_else(served: Served) -> None:
    logins = served.logins
    good = logins.certified("good", principals="ada,other")
    assert "files" in served.sftp("ls -1", key=good)
    other = logins.keygen("other-authority")
    for number, (why, words) in enumerate(
        {
            "it is another's": {"principals": "bob"},
            "it names no principals": {"principals": ""},
            "Certificate expired": {"principals": "ada", "valid": "20200101:20200102"},
            "Certificate not yet valid": {"principals": "ada", "valid": "20990101:20990102"},
            "nobody knows who signed it": {"principals": "ada", "signer": other},
        }.items()
    ):
        made = logins.certified(f"refused{number}", **words)  # type: ignore[arg-type]
        served.sftp("ls", key=made, fails=True)
        assert f'"why":"{why}"' in served.server.log()
    ghost = logins.certified("ghost", principals="ghost")
    served.sftp("ls", key=ghost, user="ghost", fails=True)
    assert '"why":"there is no such account"' in served.server.log()


def test_keys_come_and_go(served: Served) -> None:
    key = served.logins.keygen("rsa", "-b", "2048", "-C", "a key that goes", kind="rsa")
    served.sftp("ls", key=key, fails=True)
    tell(served.server, "account.ssh-key.add", account="ada", key=public(key))
    assert "files" in served.sftp("ls -1", key=key)
    served.sftp("ls", key=key, user="bob", fails=True)
    tell(served.server, "account.ssh-key.remove", account="ada", key="a key that goes")
    served.sftp("ls", key=key, fails=True)


def test_passwords_and_access_keys_are_asked_for(served: Served) -> None:
    require_modules(paramiko="paramiko")
    import paramiko

    made = tell(served.server, "key.create", account="ada")
    for user, password, right in (
        ("ada", PASSWORD, True),
        (made["access_key"], made["secret_key"], True),
        (ACCESS_KEY, SECRET_KEY, True),
        ("ada", "wrong", False),
        ("nobody", PASSWORD, False),
        (made["access_key"], PASSWORD, False),
    ):
        with paramiko.SSHClient() as client:
            client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
            with (
                contextlib.nullcontext()
                if right
                else pytest.raises(paramiko.AuthenticationException)
            ):
                client.connect(
                    "127.0.0.1", served.port, user, password,
                    allow_agent=False, look_for_keys=False, timeout=60, auth_timeout=60,
                )  # fmt: skip
                assert client.open_sftp().listdir("/")


def test_the_host_key_stays_and_nobody_else_may_read_it(served: Served) -> None:
    key = served.server.data / "sftp" / "host_key_ed25519"

    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    known = run("ssh-keyscan", "-t", "ed25519", "-p", str(served.port), "127.0.0.1")
    assert key.with_suffix(".pub").read_text().split()[1] in known


# Bounds -------------------------------------------------------------------------------------------


def test_no_path_leaves_what_an_account_sees(served: Served, tmp_path: Path) -> None:
    served.s3().put_object(Bucket="secret", Key="x", Body=b"secret")
    served.sftp(
        "ln -s ../../../../secret/x files/up", "ln -s /secret/x files/abs", "ln -s loop files/loop"
    )
    for path in ("/secret/x", "../secret/x", "files/../../secret/x", "files/up", "files/abs"):
        assert "secret" not in contents_if(served, path, tmp_path)
    served.sftp("get files/loop", fails=True, cwd=tmp_path)
    assert served.sftp("ls -1 /").splitlines()[-1].strip() == "/files"


def contents_if(served: Served, path: str, folder: Path) -> str:
    served.sftp(f"get {path} got", fails=True, cwd=folder)
    return (folder / "got").read_text() if (folder / "got").exists() else ""


def test_snapshots_are_read_and_never_written(served: Served, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"before")
    served.sftp("put x files/kept", cwd=tmp_path)
    tell(served.server, "volume.snapshot", name="files", snapshot="then")
    (tmp_path / "x").write_bytes(b"after")
    served.sftp("put x files/kept", cwd=tmp_path)

    served.sftp("get files/.snapshots/then/kept old", "get files/kept new", cwd=tmp_path)

    assert ((tmp_path / "old").read_bytes(), (tmp_path / "new").read_bytes()) == (
        b"before",
        b"after",
    )
    served.sftp("put x files/.snapshots/then/kept", fails=True, cwd=tmp_path)
    served.sftp("rm files/.snapshots/then/kept", fails=True, cwd=tmp_path)
    assert "then" in served.sftp("ls -1 files/.snapshots")


def test_a_client_that_dies_leaves_nothing_open(served: Served, tmp_path: Path) -> None:
    """What it had open goes with it: a file that it held and that lost its name meanwhile is collected."""
    require_modules(paramiko="paramiko")
    import paramiko

    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
    client.connect(
        "127.0.0.1", served.port, "ada", PASSWORD, allow_agent=False, look_for_keys=False
    )
    files = client.open_sftp()
    remote = files.open("files/held", "wb")
    remote.write(b"x" * 100_000)
    remote.flush()
    served.sftp("rm files/held")
    remote.write(b"y")  # its last name is gone, it is not
    transport = client.get_transport()
    assert transport is not None
    transport.sock.close()
    client.close()

    until = time.monotonic() + 60
    while metric(served, "warp_sftp_connections"):
        assert time.monotonic() < until, "the connection is still open"
        time.sleep(0.05)
    assert "held" not in served.sftp("ls -1 files")


def metric(served: Served, name: str) -> float:
    return float(tell(served.server, "metrics")[name])


# Starting and ending ------------------------------------------------------------------------------


@pytest.mark.slow
def test_what_was_closed_is_there_after_a_kill_and_a_drain_ends_transfers(
    warp_serve: None, tmp_path: Path
) -> None:
    require("sftp", "ssh-keygen")
    logins = Logins(tmp_path / "logins")
    config = tmp_path / "warp.toml"
    config.write_text(
        config_text(extra='[protocols.sftp]\nlisten = "127.0.0.1:0"\nhome = "files/{account}"\n')
    )
    with WarpServer(tmp_path / "data", config=config, logs=tmp_path / "logs") as server:
        tell(server, "account.create", account="ada")
        tell(server, "account.ssh-key.add", account="ada", key=public(logins.key))
        tell(server, "volume.create", name="files")
        (tmp_path / "x").write_bytes(os.urandom(300_000))
        told = sftp(logins, port_of(server), ["put x", "pwd", "ls -1"], cwd=tmp_path)
        assert "Remote working directory: /\n" in told
        server.kill()
        server.start()
        sftp(logins, port_of(server), ["get x back"], cwd=tmp_path)
        assert (tmp_path / "back").read_bytes() == (tmp_path / "x").read_bytes()

        # A client that holds its session open does not hold the server up.
        words = [
            "-q",
            "-F",
            "none",
            *logins.options(port_of(server)),
            "-s",
            "ada@127.0.0.1",
            "sftp",
        ]
        waiting = subprocess.Popen(
            [str(locate("ssh")), *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert waiting.stdin
        assert waiting.stdout
        waiting.stdin.write(bytes.fromhex("000000050100000003"))
        waiting.stdin.flush()
        assert waiting.stdout.read(5)[4] == 2  # VERSION
        drained = threading.Thread(target=waiting.stdout.read)
        drained.start()
        assert server.terminate() == 0
        waiting.wait(60)
        drained.join(60)
        waiting.stdin.close()


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): digest(path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
