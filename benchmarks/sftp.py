"""Files over SFTP beside OpenSSH's own server, both driven by OpenSSH's `sftp` in one run.

Question: how fast are several downloads and uploads side by side, and what do they cost? Each client is one `sftp` on one
connection, what it gets goes to /dev/null, what it puts comes from a file in the page cache. Servers take turns, round after
round, and the middle round is shown. CPU is the server's and the clients' apart (user and system, from /proc and wait4), because on a
small machine it is mostly the clients that are measured.

Clients choose the cipher. OpenSSH's name ChaCha20 first, and get it from OpenSSH's server; WARP lets whoever knows AES-GCM have that
(`warp_sftp.ciphers`). So there are two lines of it: as users find it (`default`), and with AES-GCM on both (`aes-gcm`).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks import servers

CIPHERS = {"default": [], "aes-gcm": ["-c", "aes128-gcm@openssh.com"]}
VOLUME = "bench"


class Peer(NamedTuple):
    """A server that runs."""

    name: str
    pid: int
    port: int
    user: str
    folder: str  # where files are


class Figure(NamedTuple):
    """What one round told of one server."""

    rate: float  # MB/s, all clients together
    server_s_per_gb: float
    client_s_per_gb: float


@contextlib.contextmanager
def warp(folder: Path, key: Path) -> Iterator[Peer]:
    """Serve an empty volume of WARP, and let the holder of a key in."""
    folder.mkdir()
    config = folder / "warp.toml"
    config.write_text(
        f'[node]\ndata = "{folder}/data"\n\n[protocols.sftp]\nlisten = "127.0.0.1:0"\n'
    )
    command = [sys.executable, "-m", "warp_cli"]
    tell = ["--config", str(config)]
    with servers.process([*command, "serve", *tell], folder / "log") as server:
        assert server.stdout
        ready = json.loads(server.stdout.readline() or "{}")
        if "endpoints" not in ready:
            raise RuntimeError(f"warp serve ended: {(folder / 'log').read_text()[-2000:]}")
        for words in (
            ["account", "create", "bench"],
            ["account", "ssh-key", "add", "bench", f"{key}.pub"],
            ["volume", "create", VOLUME, "--owner", "bench"],
        ):
            subprocess.run([*command, *words, *tell], check=True, stdout=subprocess.DEVNULL)
        port = int(ready["endpoints"]["sftp"].rpartition(":")[2])
        yield Peer("warp", server.pid, port, "bench", f"/{VOLUME}")


@contextlib.contextmanager
def openssh(folder: Path, key: Path) -> Iterator[Peer]:
    """Serve a folder by sshd with its internal-sftp."""
    (folder / "files").mkdir(parents=True)
    keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "host")]
    subprocess.run(keygen, check=True)
    shutil.copy(f"{key}.pub", folder / "authorized")
    port = servers.free_port()
    config = folder / "sshd_config"
    config.write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {folder}/host\nPidFile none\nUsePAM no\n"
        f"AuthorizedKeysFile {folder}/authorized\nStrictModes no\nPermitRootLogin yes\n"
        "MaxStartups 100\nSubsystem sftp internal-sftp\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)
    sshd = shutil.which("sshd") or "/usr/sbin/sshd"
    with servers.process([sshd, "-D", "-e", "-f", str(config)], folder / "log") as server:
        until = time.monotonic() + 10
        while "Server listening" not in (folder / "log").read_text():
            if time.monotonic() > until:
                raise RuntimeError(f"sshd ended: {(folder / 'log').read_text()[-2000:]}")
            time.sleep(0.05)
        user = os.environ.get("USER", "root")
        yield Peer("openssh", server.pid, port, user, str(folder / "files"))


def used(pid: int) -> float:
    """Return the seconds of CPU of a process and its children that ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:15]) / os.sysconf("SC_CLK_TCK")


def transfer(peer: Peer, key: Path, batches: list[str], cipher: list[str]) -> None:
    """Run a client for each batch, all at once."""
    running = []
    for batch in batches:
        command = [
            *("sftp", "-q", "-F", "none", "-i", str(key), "-P", str(peer.port), *cipher),
            *("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"),
            *("-o", "LogLevel=ERROR", "-b", "-", f"{peer.user}@127.0.0.1"),
        ]
        client = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        assert client.stdin
        client.stdin.write(batch.encode())
        client.stdin.close()
        running.append(client)
    for client in running:
        if client.wait(300):
            raise RuntimeError(f"sftp ended with {client.returncode}")


def measure(peer: Peer, key: Path, batches: list[str], cipher: list[str], size: int) -> Figure:
    """Load one server and return what it took."""
    before = used(peer.pid), _clients()
    began = time.perf_counter()
    transfer(peer, key, batches, cipher)
    took = time.perf_counter() - began
    time.sleep(0.3)  # until sshd has seen the end of its children
    after = used(peer.pid), _clients()
    gigabytes = size * len(batches) / 1e9
    return Figure(
        gigabytes * 1000 / took,
        (after[0] - before[0]) / gigabytes,
        (after[1] - before[1]) / gigabytes,
    )


def _clients() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return children.ru_utime + children.ru_stime


def main(arguments: list[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks sftp", description=__doc__)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--mib", type=int, default=128, help="of each file")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="where raw figures go")
    options = parser.parse_args(arguments)
    if shutil.which("sftp") is None or not Path("/usr/sbin/sshd").exists():
        print("OpenSSH is not installed: apt-get install openssh-server", file=sys.stderr)
        return 1
    size = options.mib << 20
    folder = Path(tempfile.mkdtemp(prefix="sftp-"))
    raw: list[dict[str, object]] = []
    try:
        key, source = folder / "key", folder / "source"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
        source.write_bytes(os.urandom(1 << 20) * options.mib)
        with warp(folder / "warp", key) as ours, openssh(folder / "openssh", key) as theirs:
            peers = (ours, theirs)
            for peer in peers:
                puts = "".join(f"put {source} {peer.folder}/f{n}\n" for n in range(options.clients))
                transfer(peer, key, [puts], [])
            print(
                f"{'load':18} {'cipher':8} {'server':8} {'MB/s':>7} {'server s/GB':>12} {'clients s/GB':>13}"
            )
            for load in ("get", "put"):
                for name, cipher in CIPHERS.items():
                    found: dict[str, list[Figure]] = {peer.name: [] for peer in peers}
                    for turn in range(options.rounds):
                        for peer in peers if turn % 2 else peers[::-1]:
                            batches = [
                                f"get {peer.folder}/f{n} /dev/null\n"
                                if load == "get"
                                else f"put {source} {peer.folder}/p{n}\n"
                                for n in range(options.clients)
                            ]
                            figure = measure(peer, key, batches, cipher, size)
                            found[peer.name].append(figure)
                            raw.append({"load": load, "cipher": name, "server": peer.name, **figure._asdict()})  # fmt: skip
                    middle = {
                        each: Figure(*map(statistics.median, zip(*figures, strict=True)))
                        for each, figures in found.items()
                    }
                    for each, figure in middle.items():
                        print(
                            f"{f'{load} x {options.clients}':18} {name:8} {each:8} {figure.rate:7.0f} "
                            f"{figure.server_s_per_gb:12.2f} {figure.client_s_per_gb:13.2f}",
                            flush=True,
                        )
                    rate = middle["warp"].rate / middle["openssh"].rate
                    cpu = middle["warp"].server_s_per_gb / middle["openssh"].server_s_per_gb
                    print(f"{'':18} {name:8} ratio: rate {rate:.2f}, server CPU {cpu:.2f}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if options.json:
        options.json.write_text(json.dumps(raw, indent=1))
    return 0
