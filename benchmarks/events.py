"""What events cost: CPU of a PUT in a bucket without rules, with a target that is away, and with one that takes all; and of delivery.

One server, one run: phases are interleaved, so that the ratios hold on a busy machine. The receiver answers each POST with 200 and
does nothing else, in a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

from benchmarks import servers

TICKS = os.sysconf("SC_CLK_TCK")
YES = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
BUCKETS = ("none", "away", "taken")


class Yes(asyncio.Protocol):
    """Answers every request."""

    def __init__(self, count: Synchronized[int]) -> None:
        """Take what is counted: records."""
        self.count = count
        self.inbox = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember whom to answer."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer what came whole."""
        self.inbox += data
        while (end := self.inbox.find(b"\r\n\r\n")) >= 0:
            head = self.inbox[:end].lower()
            length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            if len(self.inbox) < end + 4 + length:
                return
            body = self.inbox[end + 4 : end + 4 + length]
            self.inbox = self.inbox[end + 4 + length :]
            self.count.value += body.count(b'"eventSource"')
            self.transport.write(YES)


def receive(port: int, count: Synchronized[int]) -> None:
    """Receive until killed."""

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Yes(count), "127.0.0.1", port)
        await server.serve_forever()

    asyncio.run(serve())


@contextlib.contextmanager
def receiver(port: int) -> Iterator[Synchronized[int]]:
    """Run the receiver; yields how many records came."""
    count: Synchronized[int] = multiprocessing.Value("q", 0)
    process = multiprocessing.Process(target=receive, args=(port, count), daemon=True)
    process.start()
    try:
        yield count
    finally:
        process.kill()
        process.join()


def cpu_s(pid: int) -> float:
    """Return the CPU time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def load(server: servers.Server, buckets: Sequence[str], options: Sequence[str]) -> dict[str, Any]:
    """Put objects of 4 KiB over 16 connections into each bucket in turn."""
    command = [sys.executable, str(Path(__file__).parent / "s3load.py"), "--no-cleanup", *options]
    for bucket in buckets:
        keys = f"ak={servers.ACCESS_KEY};sk={servers.SECRET_KEY};bucket={bucket}"
        command += ["--target", f"{bucket}={server.url};{keys};pid={server.pid}"]
    command += ["--cells", "put:4KiB:16"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return dict(json.loads(done.stdout))


def rules(s3: Any, bucket: str, target: str) -> None:
    """Send a bucket's events to a target."""
    s3.create_bucket(Bucket=bucket)
    s3.put_bucket_notification_configuration(
        Bucket=bucket,
        NotificationConfiguration={
            "QueueConfigurations": [
                {"QueueArn": f"arn:aws:sqs:::{target}", "Events": ["s3:ObjectCreated:*"]}
            ]
        },
        SkipDestinationValidation=True,
    )


def main(arguments: list[str]) -> int:
    """Measure and print two tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks events", description=__doc__)
    parser.add_argument("--reps", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--events", type=int, default=5000, help="of each delivery")
    options = parser.parse_args(arguments)
    import boto3

    ports = {name: servers.free_port() for name in ("away", "taken", "one", "many")}
    tables = "".join(
        f'[[event_target]]\nname = "{name}"\nurl = "http://127.0.0.1:{port}/"\n'
        + ("batch = 50\n" if name == "many" else "")
        for name, port in ports.items()
    )
    tables += '[services.events]\nretry_max = "1s"\n'
    with tempfile.TemporaryDirectory(prefix="warp-bench-") as folder:
        settings = f'[node]\ndata = "{folder}/data"\n[protocols.s3]\nlisten = "127.0.0.1:0"\n'
        with servers.warp(Path(folder), config=settings + tables) as server:
            s3 = boto3.client(
                "s3",
                endpoint_url=server.url,
                aws_access_key_id=servers.ACCESS_KEY,
                aws_secret_access_key=servers.SECRET_KEY,
                region_name="us-east-1",
            )
            s3.create_bucket(Bucket="none")
            for name in ports:
                rules(s3, name, name)
            with receiver(ports["taken"]):
                timing = ["--reps", str(options.reps), "--duration", str(options.seconds)]
                document = load(server, BUCKETS, timing)
            costs = {each["target"]: each for each in document["medians"]}
            floor = costs["none"]["server_cpu_us_per_op"]
            print(f"{'PUT 4 KiB, 16 connections':<32}{'CPU us':>8}{'times':>7}{'rate/s':>9}")
            for name in BUCKETS:
                cost = costs[name]["server_cpu_us_per_op"]
                rate = costs[name]["ops_per_s"]
                print(f"{name:<32}{cost:>8.0f}{cost / floor:>7.2f}{rate:>9,.0f}")
            print(f"\n{'delivery':<32}{'CPU us':>8}{'rate/s':>9}")
            for name in ("one", "many"):
                wanted = ["--max-ops", str(options.events), "--duration", "60"]
                load(server, [name], wanted)
                with receiver(ports[name]) as count:
                    while not count.value:  # the next attempt may be a second away
                        time.sleep(0.001)
                    before_s, began_s = cpu_s(server.pid), time.monotonic()
                    while count.value < options.events * 0.99:
                        time.sleep(0.01)
                    took_s, spent_s = time.monotonic() - began_s, cpu_s(server.pid) - before_s
                    each_us = spent_s / count.value * 1e6
                    print(f"{name:<32}{each_us:>8.0f}{count.value / took_s:>9,.0f}")
    return 0
