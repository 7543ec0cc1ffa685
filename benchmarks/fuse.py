"""Mounts beside libfuse's C example, GlusterFS and SeaweedFS's mount, in one run.

Question: what does a call on a mounted volume cost, as the program waits for it? File systems take turns, round after round; of each
call the median of a round is taken, and of the rounds the middle. `passthrough_ll` is what FUSE costs with next to nothing behind
it: C, straight to a local folder. `local` is that folder itself.

What they promise differs: WARP's and GlusterFS's content is in files whose sync is the program's, as on a local file system; SeaweedFS
acknowledges from memory. The load runs as root, everything in mount and network namespaces that end with it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks import servers

INSIDE: Final = "WARP_BENCHMARK_FUSE"  # set where the namespaces are
EXAMPLE: Final = Path("/usr/share/doc/libfuse3-dev/examples/passthrough_ll.c")
ADDRESS: Final = "10.99.0.1"  # GlusterFS refuses loopback addresses for bricks
MIB: Final = 1 << 20
FILE: Final = 64 * MIB
FILES: Final = 300
CAP_S: Final = 2.5  # of one figure
MOUNT_S: Final = 60.0


class Mounted(NamedTuple):
    """A file system that is there: where, and the processes that serve it."""

    folder: Path
    pids: tuple[int, ...]


FIGURES: Final = (
    "write 1 MiB",
    "fsync 64 MiB",
    "read 1 MiB",
    "read 1 MiB, cached",
    "read 4 KiB, random",
    "read 4 KiB, cached",
    "write 4 KiB, random",
    "write 4 KiB + fdatasync",
    "create",
    "create + write 4 KiB",
    "stat",
    "stat, missing",
    "open + read 4 KiB",
    "list 300 names",
    "list 300 with stat",
    "rename",
    "unlink",
)


def timed(call: Callable[[int], object], count: int, cap_s: float = CAP_S) -> float:
    """Return the median of a call's microseconds."""
    taken = []
    clock = time.perf_counter
    end = clock() + cap_s
    for number in range(count):
        begun = clock()
        call(number)
        done = clock()
        taken.append(done - begun)
        if done > end:
            break
    return statistics.median(taken) * 1e6


def content(folder: Path, found: dict[str, float], draw: random.Random) -> None:
    """Measure reads and writes of one file."""
    path = folder / "content"
    block = os.urandom(MIB)
    small = block[:4096]
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    found["write 1 MiB"] = timed(lambda n: os.pwrite(file, block, n * MIB), FILE // MIB)
    size = os.fstat(file).st_size
    found["fsync 64 MiB"] = timed(lambda _: os.fsync(file), 1)

    def place() -> int:
        return draw.randrange(size // 4096) * 4096

    found["write 4 KiB, random"] = timed(lambda _: os.pwrite(file, small, place()), 1500)

    def synced(_: int) -> None:
        os.pwrite(file, small, place())
        os.fdatasync(file)

    found["write 4 KiB + fdatasync"] = timed(synced, 100)
    os.close(file)
    file = os.open(path, os.O_RDONLY)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    found["read 1 MiB"] = timed(lambda n: os.pread(file, MIB, n * MIB), size // MIB)
    found["read 1 MiB, cached"] = timed(lambda n: os.pread(file, MIB, n * MIB), size // MIB)
    found["read 4 KiB, cached"] = timed(lambda _: os.pread(file, 4096, place()), 1500)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)
    found["read 4 KiB, random"] = timed(lambda _: os.pread(file, 4096, place()), 1500)
    os.close(file)
    os.unlink(path)


def names(folder: Path, found: dict[str, float]) -> None:
    """Measure names and attributes."""
    place = folder / "names"
    place.mkdir()
    made = 0

    def create(number: int) -> None:
        nonlocal made
        os.close(os.open(place / f"f{number}", os.O_CREAT | os.O_WRONLY, 0o644))
        made = number + 1

    found["create"] = timed(create, FILES, cap_s=2 * CAP_S)
    small = os.urandom(4096)

    def written(number: int) -> None:
        with open(place / f"w{number}", "wb", buffering=0) as file:
            file.write(small)

    found["create + write 4 KiB"] = timed(written, FILES // 3, cap_s=2 * CAP_S)
    os.stat(place / "f0")
    found["stat"] = timed(lambda n: os.stat(place / f"f{n}"), made)
    found["stat, missing"] = timed(lambda n: os.path.exists(place / f"x{n}"), FILES)

    def opened(number: int) -> None:
        with open(place / f"w{number % 50}", "rb", buffering=0) as file:
            file.read(4096)

    if (place / "w49").exists():
        found["open + read 4 KiB"] = timed(opened, 200)
    found["list 300 names"] = timed(lambda _: os.listdir(place), 15)
    found["list 300 with stat"] = timed(lambda _: [each.stat() for each in os.scandir(place)], 15)
    found["rename"] = timed(lambda n: os.rename(place / f"f{n}", place / f"g{n}"), min(made, 100))
    left = os.listdir(place)
    found["unlink"] = timed(lambda n: os.unlink(place / left[n]), len(left), cap_s=2 * CAP_S)
    shutil.rmtree(place)


def used(pids: tuple[int, ...]) -> float:
    """Return the CPU seconds of processes."""
    ticks = os.sysconf("SC_CLK_TCK")
    total = 0.0
    for pid in pids:
        with contextlib.suppress(FileNotFoundError):
            words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += (int(words[11]) + int(words[12])) / ticks
    return total


# File systems -------------------------------------------------------------------------------------


@contextlib.contextmanager
def local(folder: Path) -> Iterator[Mounted]:
    """The folder itself."""
    folder.mkdir(parents=True)
    yield Mounted(folder, ())


@contextlib.contextmanager
def warp(folder: Path) -> Iterator[Mounted]:
    """A volume of the node that runs here."""
    with served(folder) as server:
        place = folder / "mnt"
        command("mount", "v", str(place), "--config", str(folder / "warp.toml"))
        yield Mounted(place, (server.pid,))


@contextlib.contextmanager
def remote(folder: Path) -> Iterator[Mounted]:
    """The same over the network, by a client of its own."""
    with served(folder) as server:
        place, config = folder / "mnt", str(folder / "warp.toml")
        token = command("mount", "token", "v", "--config", config).strip()
        words = [sys.executable, "-m", "warp_cli", "mount", token, str(place), "--json"]
        with servers.process(words, folder / "client.log", WARP_MOUNTS=f"{folder}/id") as client:
            assert client.stdout
            if "ready" not in client.stdout.readline():
                raise RuntimeError((folder / "client.log").read_text()[-2000:])
            yield Mounted(place, (server.pid, client.pid))


@contextlib.contextmanager
def served(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Run `warp serve` with a volume `v`."""
    folder.mkdir(parents=True)
    config = folder / "warp.toml"
    config.write_text(
        f'[node]\ndata = "{folder}/data"\n[protocols.fuse]\n[mounts]\nlisten = "127.0.0.1:7410"\n'
    )
    words = [sys.executable, "-m", "warp_cli", "serve", "--config", str(config)]
    with servers.process(words, folder / "log") as server:
        assert server.stdout
        if "ready" not in server.stdout.readline():
            raise RuntimeError((folder / "log").read_text()[-2000:])
        command("volume", "create", "v", "--config", str(config))
        yield server


def command(*words: str) -> str:
    """Run a command of `warp`."""
    done = subprocess.run(
        [sys.executable, "-m", "warp_cli", *words], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stdout


@contextlib.contextmanager
def passthrough(folder: Path, *options: str) -> Iterator[Mounted]:
    """libfuse's example in C, built from Debian's package."""
    for each in ("mnt", "source"):
        (folder / each).mkdir(parents=True)
    program = folder / "passthrough_ll"
    flags = subprocess.run(
        ["pkg-config", "--cflags", "--libs", "fuse3"], capture_output=True, text=True, check=True
    ).stdout.split()
    include = [f"-I{EXAMPLE.parent}"]
    build = ["gcc", "-O2", *include, str(EXAMPLE), *flags, "-o", str(program)]
    subprocess.run(build, check=True, capture_output=True)
    place = folder / "mnt"
    words = ["-o", ",".join((f"source={folder / 'source'}", *options)), str(place)]
    with servers.process([str(program), "-f", *words], folder / "log") as server:
        mounted(place, server, folder / "log")
        yield Mounted(place, (server.pid,))
        subprocess.run(["umount", "-l", str(place)], check=False)


@contextlib.contextmanager
def gluster(folder: Path) -> Iterator[Mounted]:
    """GlusterFS, one brick."""
    for each in ("mnt", "brick"):
        (folder / each).mkdir(parents=True)
    for place in ("/var/lib/glusterd", "/var/run/gluster", "/var/log/glusterfs"):
        Path(place).mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "none", place], check=True)

    def tell(*words: str) -> None:
        done = subprocess.run(
            ["gluster", "--mode=script", "volume", *words], capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(f"gluster volume {words}: {done.stdout}{done.stderr}")

    with servers.process(["glusterd", "-N"], folder / "log"):
        time.sleep(4)
        tell("create", "bench", f"{ADDRESS}:{folder / 'brick'}", "force")
        tell("start", "bench")
        time.sleep(2)
        place = folder / "mnt"
        words = ["glusterfs", "-N", f"--volfile-server={ADDRESS}", "--volfile-id=bench", str(place)]
        try:
            with servers.process(words, folder / "client.log") as client:
                mounted(place, client, folder / "client.log")
                yield Mounted(place, (client.pid, *of("glusterfsd")))
                subprocess.run(["umount", "-l", str(place)], check=False)
        finally:
            with contextlib.suppress(RuntimeError):
                tell("stop", "bench", "force")


@contextlib.contextmanager
def weed(folder: Path) -> Iterator[Mounted]:
    """SeaweedFS with its mount."""
    program = shutil.which("weed") or str(Path(sys.executable).parent / "weed")
    place = folder / "mnt"
    place.mkdir(parents=True)
    ports = {part: servers.free_port() for part in ("master", "volume", "filer")}
    grpc = {part: servers.free_port() for part in ports}
    words = [program, "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer"]
    words += [f"-{part}.port={port}" for part, port in ports.items()]
    words += [f"-{part}.port.grpc={port}" for part, port in grpc.items()]
    words += ["-master.telemetry=false", "-volume.max=64"]
    with servers.process(words, folder / "log") as server:
        servers.wait_for(f"http://127.0.0.1:{ports['filer']}/", server, folder / "log")
        filer = f"127.0.0.1:{ports['filer']}.{grpc['filer']}"
        words = [program, "mount", f"-filer={filer}", f"-dir={place}", "-filer.path=/"]
        words += [f"-cacheDir={folder / 'cache'}", f"-localSocket={folder / 'weed.sock'}"]
        with servers.process(words, folder / "client.log") as client:
            mounted(place, client, folder / "client.log")
            yield Mounted(place, (server.pid, client.pid))
            subprocess.run(["umount", "-l", str(place)], check=False)


def of(program: str) -> tuple[int, ...]:
    """Return the processes of a program that runs in our network namespace."""
    ours = os.readlink("/proc/self/ns/net")
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.readlink(place / "ns/net") == ours and (
                (place / "comm").read_text().strip() == program
            ):
                found.append(int(place.name))
    return tuple(found)


def mounted(place: Path, server: subprocess.Popen[str], log: Path) -> None:
    """Return when something is mounted there."""
    end = time.monotonic() + MOUNT_S
    while not os.path.ismount(place):
        if server.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"nothing is mounted on {place}: {log.read_text()[-2000:]}")
        time.sleep(0.1)


SYSTEMS: Mapping[str, Callable[[Path], contextlib.AbstractContextManager[Mounted]]] = {
    "warp": warp,
    "remote": remote,
    "passthrough_ll": lambda folder: passthrough(folder),
    "passthrough_ll-wb": lambda folder: passthrough(folder, "writeback", "cache=always"),
    "gluster": gluster,
    "weed": weed,
    "local": local,
}


def missing(name: str) -> str:
    """Return what is not installed that a file system needs."""
    if name.startswith("passthrough") and not EXAMPLE.exists():
        return "libfuse3-dev with its examples"
    programs = {"gluster": ("glusterd", "glusterfs"), "passthrough_ll": ("gcc", "pkg-config")}
    beside = Path(sys.executable).parent
    wanted = programs.get(name, ()) if name != "weed" else ("weed",)
    return ", ".join(
        each for each in wanted if not shutil.which(each) and not (beside / each).exists()
    )


def main(arguments: list[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks fuse", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="where raw figures go")
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS), choices=list(SYSTEMS))
    parser.add_argument("--folder", type=Path, help="on which file system all of it lies")
    parser.add_argument("--part", choices=("content", "names"), help="only a half")
    options = parser.parse_args(arguments)
    if not os.environ.get(INSIDE):
        os.environ[INSIDE] = "1"
        again = [sys.executable, "-m", "benchmarks", "fuse", *arguments]
        os.execvp("unshare", ["unshare", "--mount", "--net", "--propagation", "private", *again])
    for words in (
        "link set lo up",
        "link add bench type bridge",
        f"addr add {ADDRESS}/24 dev bench",
        "link set bench up",
    ):
        subprocess.run(["ip", *words.split()], check=True)
    folder = Path(tempfile.mkdtemp(prefix="fuse-", dir=options.folder))
    raw: dict[str, list[dict[str, float]]] = {}
    try:
        with contextlib.ExitStack() as stack:
            running: dict[str, Mounted] = {}
            for name in options.systems:
                if lacks := missing(name):
                    print(f"{name}: {lacks} not installed", file=sys.stderr)
                    continue
                try:
                    running[name] = stack.enter_context(SYSTEMS[name](folder / name))
                except (RuntimeError, OSError, subprocess.SubprocessError) as error:
                    print(f"{name}: {error}", file=sys.stderr)
            raw = {name: [] for name in running}
            for turn in range(options.rounds):
                for name, each in running.items():
                    found: dict[str, float] = {}
                    before = used(each.pids)
                    if options.part != "names":
                        content(each.folder, found, random.Random(turn))
                    if options.part != "content":
                        names(each.folder, found)
                    found["CPU s of a round"] = (used(each.pids) - before) * 1e6
                    raw[name].append(found)
            show(raw)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if options.json:
        options.json.write_text(json.dumps(raw, indent=1))
    return 0


def show(raw: Mapping[str, list[dict[str, float]]]) -> None:
    """Print a table: microseconds of a call."""
    print(f"{'us, median':26}" + "".join(f"{name:>18}" for name in raw))
    for figure in (*FIGURES, "CPU s of a round"):
        cells = []
        for rounds in raw.values():
            values = [each[figure] for each in rounds if figure in each]
            value = statistics.median(values) if values else float("nan")
            cells.append(f"{value / (1e6 if figure.startswith('CPU') else 1):18,.1f}")
        print(f"{figure:26}" + "".join(cells), flush=True)
