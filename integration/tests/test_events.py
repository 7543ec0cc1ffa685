"""Events arrive at real receivers, which are killed, from a server that is killed."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError
from warp_integration.clients import s3_client
from warp_integration.receivers import HookProcess, NatsProcess
from warp_integration.requirements import needs_modules, require
from warp_integration.server import WarpServer, config_text

pytestmark = [
    pytest.mark.workspace,
    pytest.mark.usefixtures("warp_serve"),
    needs_modules(nats="nats-py"),
]

ARRIVED_S = 120.0  # a hang, on any machine
WORKERS = 3
BUCKET = "events"


@dataclass
class Site:
    """A server with two targets."""

    server: WarpServer
    hook: HookProcess
    broker: NatsProcess
    acknowledged: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    done: int = 0

    def client(self) -> Any:
        return s3_client(
            self.server.s3,
            retries={"max_attempts": 0},
            connect_timeout=2,
            read_timeout=5,
        )

    def work(self, worker: int, changes: int) -> None:
        """Make and remove objects under a few keys of its own, each change tried until it is acknowledged."""
        endpoint, s3 = self.server.s3, self.client()
        for number in range(changes):
            place = "hook" if number % 2 else "nats"
            key = f"{place}/w{worker} {number // 2 % 5}"
            removes = number // 10 % 3 == 2
            body = f"{worker}.{number}".encode()
            deadline = time.monotonic() + ARRIVED_S
            while True:
                try:
                    if removes:
                        s3.delete_object(Bucket=BUCKET, Key=key)
                    else:
                        s3.put_object(Bucket=BUCKET, Key=key, Body=body)
                    break
                except (BotoCoreError, ClientError):
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
                    if self.server.endpoints.get("s3", endpoint) != endpoint:
                        endpoint, s3 = self.server.s3, self.client()
            self.acknowledged[key].append("gone" if removes else hashlib.md5(body).hexdigest())
            self.done += 1

    def arrived(self) -> list[dict[str, Any]]:
        return self.hook.records() + asyncio.run(self.broker.records())


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    require("nats-server")
    with HookProcess(tmp_path / "hook") as hook, NatsProcess(tmp_path / "nats") as broker:
        asyncio.run(broker.make_stream("warp.events.>"))
        config = tmp_path / "warp.toml"
        targets = [
            {"name": "hook", "kind": "webhook", "url": f"http://127.0.0.1:{hook.port}/"},
            {"name": "nats", "kind": "nats", "servers": [f"nats://127.0.0.1:{broker.port}"]},
        ]
        tables = "".join(
            "[[event_target]]\n"
            + "".join(f"{name} = {json.dumps(value)}\n" for name, value in target.items())
            for target in targets
        )
        retry = '[services.events]\nretry = "50ms"\nretry_max = "500ms"\n'
        config.write_text(config_text(extra=tables + retry))
        with WarpServer(tmp_path / "data", config=config, logs=tmp_path / "logs") as server:
            made = Site(server, hook, broker)
            s3 = made.client()
            s3.create_bucket(Bucket=BUCKET)
            s3.put_bucket_notification_configuration(
                Bucket=BUCKET,
                NotificationConfiguration={
                    "QueueConfigurations": [rule("QueueArn", "sqs", "hook")],
                    "TopicConfigurations": [rule("TopicArn", "sns", "nats")],
                },
            )
            yield made


def rule(place: str, service: str, target: str) -> dict[str, Any]:
    filters = [{"Name": "prefix", "Value": f"{target}/"}]
    return {
        place: f"arn:aws:{service}:us-east-1:000000000000:{target}",
        "Events": ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"],
        "Filter": {"Key": {"FilterRules": filters}},
    }


def missing(site: Site) -> list[str]:
    """Return what is wrong with what arrived: a change that was acknowledged and is not told, or events of one key out of order."""
    first: dict[str, dict[str, str]] = defaultdict(dict)  # key → sequencer → what, as it came first
    for record in site.arrived():
        told = record["s3"]["object"]
        gone = record["eventName"] == "ObjectRemoved:Delete"
        key = told["key"].replace("+", " ")
        first[key].setdefault(told["sequencer"], "gone" if gone else told["eTag"])
    problems = []
    for key, changes in site.acknowledged.items():
        if list(first[key]) != sorted(first[key]):
            problems.append(f"{key}: out of order")
        found = iter(first[key].values())
        problems += [
            f"{key}: {each} is missing" for each in _condensed(changes) if each not in found
        ]
    return problems


def _condensed(changes: Sequence[str]) -> Iterator[str]:
    """Yield changes but for removals of what is not there, which are no events."""
    before = "gone"
    for each in changes:
        if (each, before) != ("gone", "gone"):
            yield each
        before = each


def run(site: Site, changes: int, troubles: Sequence[Callable[[], None]]) -> None:
    """Let workers make changes, with troubles spread over them; wait until everything has arrived."""
    with ThreadPoolExecutor(WORKERS) as pool:
        working = [pool.submit(site.work, worker, changes) for worker in range(WORKERS)]
        for number, trouble in enumerate(troubles, 1):
            due = WORKERS * changes * number // (len(troubles) + 1)
            while site.done < due and not all(each.done() for each in working):
                time.sleep(0.01)
            trouble()
        for each in working:
            each.result()
    deadline = time.monotonic() + ARRIVED_S
    while problems := missing(site):
        assert time.monotonic() < deadline, (len(problems), problems[:10], site.server.log_tail())
        time.sleep(0.2)


def troubles_of(site: Site) -> dict[str, Callable[[], None]]:
    def restart_hook() -> None:
        site.hook.kill()
        time.sleep(0.2)
        site.hook.start()

    def restart_broker() -> None:
        site.broker.kill()
        time.sleep(0.2)
        site.broker.start()

    def restart_server() -> None:
        site.server.kill()
        site.server.start()

    def server_while_nobody_listens() -> None:
        site.hook.kill()
        site.broker.kill()
        restart_server()
        site.hook.start()
        site.broker.start()

    return {
        "hook": restart_hook,
        "broker": restart_broker,
        "server": restart_server,
        "all": server_while_nobody_listens,
    }


def test_every_acknowledged_change_arrives_in_order_whoever_is_killed(site: Site) -> None:
    troubles = troubles_of(site)
    run(site, 40, [troubles["hook"], troubles["broker"], troubles["all"]])

    record = site.hook.records()[-1]
    assert record["eventSource"] == "aws:s3"
    assert record["requestParameters"]["sourceIPAddress"] == "127.0.0.1"
    assert record["s3"]["bucket"]["name"] == BUCKET
    assert threading.active_count() < 50


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ten_thousand_changes_arrive_while_everybody_is_killed_again_and_again(site: Site) -> None:
    troubles = troubles_of(site)
    run(
        site,
        10_000 // WORKERS,
        [troubles[each] for each in ("hook", "server", "broker", "all") * 5],
    )
