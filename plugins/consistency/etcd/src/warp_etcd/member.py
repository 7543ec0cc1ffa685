"""A member of etcd that WARP runs and supervises: in the data folder, reachable through a Unix socket that only its owner may use."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from pathlib import Path
from types import TracebackType

import msgspec
from warp_core.errors import PluginError, Unavailable
from warp_core.logs import get as get_log

from warp_etcd.client import STATUS, Access, Client
from warp_etcd.config import Config
from warp_etcd.wire import etcd_pb2 as pb

NAME = "warp"
PEER_SOCKET = "peer:1"
SOCKET = "client:1"  # etcd's Unix addresses look like host:port and are relative to its folder
STARTED_WITHIN_S = 60.0  # replaying a large log takes its time
# A member among others answers nobody before a majority took note of it: machines that lost power together may be minutes apart.
MAJORITY_WITHIN_S = 300.0
TOLD_S = 15.0  # between two lines that say what is waited for
STOPPED_WITHIN_S = 10.0
AGAIN_S = (0.1, 0.5, 2.0, 5.0)  # pauses before it is started again; the last one from then on
LOG_MAX = 8 << 20  # bytes of the member's log before it is started with a new one
OPERATIONS_MAX = 2048  # in a transaction: more commits in a batch than etcd's default allows
SOCKET_PATH_MAX = 107  # bytes, Linux: sun_path

# The member must not outlive its node, however that ends (prctl PR_SET_PDEATHSIG is 1). SIGKILL, because a member that takes its
# time to end would remove the socket that its successor made meanwhile; etcd loses nothing by it.
LEASH = (
    "import ctypes,os,sys;ctypes.CDLL(None).prctl(1,9);"
    "os.getppid()==int(sys.argv[1]) or sys.exit(1);os.execv(sys.argv[2],sys.argv[2:])"
)

_ALONE = (  # a lone member talks to nobody; etcd wants a name for it
    f"--name={NAME}",
    f"--listen-peer-urls=unix://{PEER_SOCKET}",
    "--initial-advertise-peer-urls=http://localhost:1",
    f"--initial-cluster={NAME}=http://localhost:1",
    "--heartbeat-interval=20",  # nobody is asked, so it leads a moment after it started
    "--election-timeout=200",
)

log = get_log("warp_etcd")


class Member:
    """Entering starts it and returns where it is reached; leaving stops it."""

    def __init__(self, config: Config, folder: Path) -> None:
        self._config = config
        self._folder = folder
        self._process: asyncio.subprocess.Process | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._directory = -1

    async def __aenter__(self) -> str:
        program = shutil.which(self._config.program)
        if program is None:
            raise PluginError(
                f'the program "{self._config.program}" is missing: install it (Debian: apt install etcd-server), or name'
                " the endpoints of a cluster in [metadata]"
            )
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self._folder.chmod(0o700)  # who reaches the socket may change everything
        self._directory = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._process = await self._start(program)
            await self._answers()
        except BaseException:
            await self._stop()
            raise
        self._supervisor = asyncio.create_task(self._supervise(program), name="etcd")
        return self.target

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.gather(self._supervisor, return_exceptions=True)
        await self._stop()

    @property
    def pid(self) -> int:
        """The process as of now, 0 if there is none."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else 0

    @property
    def target(self) -> str:
        """Where it is reached, in gRPC's words."""
        path = str(self._folder.resolve() / SOCKET)
        if len(os.fsencode(path)) > SOCKET_PATH_MAX:
            path = f"/proc/self/fd/{self._directory}/{SOCKET}"
        return f"unix:{path}"

    async def _start(self, program: str) -> asyncio.subprocess.Process:
        path = self._folder / "etcd.log"
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_size > LOG_MAX:
                path.replace(path.with_suffix(".log.1"))
        for socket in (
            SOCKET,
            PEER_SOCKET,
        ):  # a killed member leaves them, and the next one refuses to start
            (self._folder / socket).unlink(missing_ok=True)
        with path.open("ab") as output:
            return await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", "-c", LEASH, str(os.getpid())),
                *(program, *self._arguments()),
                cwd=self._folder,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={
                    key: value for key, value in os.environ.items() if not key.startswith("ETCD_")
                },
                start_new_session=True,  # Ctrl+C is for WARP, which then stops it in its turn
            )

    def _arguments(self) -> list[str]:
        return [
            "--data-dir=data",
            f"--listen-client-urls=unix://{SOCKET}",
            f"--advertise-client-urls=unix://{SOCKET}",
            *(self._among_others() if self._config.listen else _ALONE),
            "--pre-vote",
            f"--max-txn-ops={OPERATIONS_MAX}",
            f"--quota-backend-bytes={int(self._config.quota)}",
            "--auto-compaction-mode=periodic",
            "--auto-compaction-retention=1m",  # views live 5 s, and what watches need is in the log
            "--snapshot-count=10000",  # as many raft entries stay in memory
            "--logger=zap",
            "--log-outputs=stderr",
        ]

    def _among_others(self) -> list[str]:
        """Return what a member of a cluster is told. A node's certificate names the addresses that it listens at."""
        config = self._config
        url = f"https://{config.listen}"
        name = config.name or NAME
        members = {each: f"https://{address}" for each, address in config.members.items()}
        data = self._folder.parent.absolute()
        return [
            f"--name={name}",
            f"--listen-peer-urls={url}",
            f"--initial-advertise-peer-urls={url}",
            f"--initial-cluster={','.join(f'{a}={b}' for a, b in (members or {name: url}).items())}",
            f"--initial-cluster-state={'existing' if members else 'new'}",
            "--peer-client-cert-auth",
            f"--peer-trusted-ca-file={data / (config.authority or 'tls/ca.pem')}",
            f"--peer-cert-file={data / (config.certificate or 'tls/node.pem')}",
            f"--peer-key-file={data / (config.key or 'tls/node.key')}",
            # Nodes reach others from any of their addresses; the certificate proves the cluster, and that is enough.
            "--experimental-peer-skip-client-san-verification",
            "--heartbeat-interval=100",
            "--election-timeout=1000",
        ]

    async def _answers(self) -> None:
        """Wait until it answers, or ends."""
        loop = asyncio.get_running_loop()
        began_s = told_s = loop.time()
        alone = not self._config.listen
        within_s = STARTED_WITHIN_S if alone else MAJORITY_WITHIN_S
        async with Client(Access((self.target,)), timeout_s=1.0) as client:
            while True:
                process = self._process
                if process is None or process.returncode is not None:
                    raise Unavailable(f"etcd does not start: {self._last_words()}")
                try:
                    status = await client.attempt(STATUS, pb.StatusRequest(), timeout_s=1.0)
                except Unavailable as error:
                    if loop.time() > began_s + within_s:
                        raise Unavailable(
                            f"etcd does not answer within {within_s:.0f} s{self._missed()}: {self._last_words()}"
                        ) from error
                    if loop.time() > told_s + TOLD_S:
                        told_s = loop.time()
                        log.warning(
                            f"etcd does not answer yet{self._missed()}",
                            waited_s=round(told_s - began_s),
                            said=self._last_words(),
                        )
                else:
                    if status.leader or not alone:  # the others may come later
                        return
                await asyncio.sleep(0.02)

    def _missed(self) -> str:
        """Say whom a member among others waits for: it does not answer without a majority."""
        if not self._config.listen:
            return ""
        others = ", ".join(
            f"{name} at {address}"
            for name, address in sorted(self._config.members.items())
            if name != (self._config.name or NAME)
        )
        return f", which takes a majority of its members{others and f' (this one and {others})'}: start the other nodes"

    def _last_words(self) -> str:
        path = self._folder / "etcd.log"
        try:
            lines = path.read_bytes()[-4096:].decode(errors="replace").splitlines()
        except OSError:
            lines = []
        last = next((line for line in reversed(lines) if line.strip()), "it said nothing")
        with contextlib.suppress(msgspec.DecodeError):
            told = msgspec.json.decode(last, type=dict[str, object])
            last = ": ".join(str(told[key]) for key in ("msg", "error") if key in told)
        return f"{last[:500]} ({path})"

    async def _supervise(self, program: str) -> None:
        """Start it again whenever it ends."""
        failures = 0
        while True:
            assert self._process is not None, "supervised from its start on"
            began_s = asyncio.get_running_loop().time()
            code = await self._process.wait()
            if asyncio.get_running_loop().time() - began_s > 60.0:
                failures = 0
            pause_s = AGAIN_S[min(failures, len(AGAIN_S) - 1)]
            failures += 1
            log.error("etcd ended and is started again", code=code, said=self._last_words())
            await asyncio.sleep(pause_s)
            try:
                self._process = await self._start(program)
            except OSError as error:
                log.error("etcd cannot be started", error=str(error))

    async def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(STOPPED_WITHIN_S):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
        if self._directory >= 0:
            os.close(self._directory)
            self._directory = -1
