"""A NATS server in a process of its own, as a receiver of the kit."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import subprocess
from pathlib import Path

import nats
from nats.aio.client import Client
from nats.errors import NoServersError
from nats.js.errors import NotFoundError
from warp_conformance.kits.targets import Mode, Receiver, Taken

STREAM = "KIT"
SUBJECTS = "kit.>"
STARTED_S = 20.0
SERVER = shutil.which("nats-server")


class Broker(Receiver):
    """One server with one stream, which survives restarts."""

    modes = frozenset({"takes", "refuses", "hangs"})

    def __init__(self, folder: Path, *options: str) -> None:
        self.port = -1
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._mode: Mode = "takes"

    async def start(self) -> None:
        """Start the server, at the port that it had."""
        assert SERVER is not None
        ports = self._folder / "ports"
        shutil.rmtree(ports, ignore_errors=True)
        ports.mkdir(parents=True)
        command = [SERVER, "--jetstream", "--store_dir", str(self._folder / "store")]
        command += ["--addr", "127.0.0.1", "--port", str(self.port)]
        command += ["--ports_file_dir", str(ports), *self._options]
        self._process = subprocess.Popen(  # noqa: ASYNC220
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        async with asyncio.timeout(STARTED_S):
            while not (found := list(ports.glob("*.ports"))) or not found[0].read_bytes():
                assert self._process.poll() is None, "nats-server ended"
                await asyncio.sleep(0.01)
            url = json.loads(found[0].read_text())["nats"][0]
            self.port = int(url.rpartition(":")[2])
            while not await self._answers():
                await asyncio.sleep(0.02)

    async def _answers(self) -> bool:
        """Make the stream if there is none; False while the server cannot."""
        try:
            client = await self._client()
        except (NoServersError, OSError):
            return False
        try:
            stream = client.jetstream()
            try:
                await stream.stream_info(STREAM)
            except NotFoundError:
                await stream.add_stream(name=STREAM, subjects=[SUBJECTS])
        except (nats.errors.Error, nats.js.errors.Error):
            return False
        finally:
            await client.close()
        return True

    async def _client(self) -> Client:
        return await nats.connect(
            f"nats://127.0.0.1:{self.port}",
            allow_reconnect=False,
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
        )

    async def stop(self) -> None:
        """Kill the server."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.send_signal(signal.SIGCONT)
            await asyncio.to_thread(process.wait)

    async def behave(self, mode: Mode) -> None:
        """Hang by a signal; refuse by taking no subject of the kit's."""
        assert self._process is not None
        before, self._mode = self._mode, mode
        if before == "hangs":
            self._process.send_signal(signal.SIGCONT)
        if mode == "hangs":
            self._process.send_signal(signal.SIGSTOP)
        elif before == "refuses" or mode == "refuses":
            client = await self._client()
            subjects = ["elsewhere"] if mode == "refuses" else [SUBJECTS]
            await client.jetstream().update_stream(name=STREAM, subjects=subjects)
            await client.close()

    async def taken(self) -> list[Taken]:
        """Read the stream."""
        client = await self._client()
        try:
            stream = client.jetstream()
            state = (await stream.stream_info(STREAM)).state
            found = []
            for sequence in range(state.first_seq or 1, state.last_seq + 1):
                message = await stream.get_msg(STREAM, sequence)
                assert message.headers is not None
                found.append(Taken(message.headers["Nats-Msg-Id"], message.data or b""))
            return found
        finally:
            await client.close()
