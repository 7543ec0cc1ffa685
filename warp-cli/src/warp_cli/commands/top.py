"""`warp top`: what the node does, live."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from warp_cli.asking import running
from warp_cli.failing import reported
from warp_cli.output import as_json_line, counted
from warp_cli.progress import bytes_text
from warp_cli.typing import ConfigOption, DataOption, JsonOption, single

if TYPE_CHECKING:
    from rich.console import RenderableType
    from warp_core.node.client import Control

app = single()

_LABELS = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@app.command()
def top(
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 1.0,
    count: Annotated[int, typer.Option("--count", "-n", min=0, help="Looks; 0: until Ctrl-C.")] = 0,
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> int:
    """Show requests, latencies and stores of the running node, refreshed until Ctrl-C."""

    def run() -> None:
        # Ctrl-C is how it is meant to end.
        with running(config, data) as control, contextlib.suppress(KeyboardInterrupt):
            if json:
                for _ in _looks(count):
                    before = _look(control)
                    time.sleep(interval)
                    as_json_line(_rates(before, _look(control)))
                return
            _live(control, interval, count)

    return reported(run, json=json)


def _live(control: Control, interval: float, count: int) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console()
    with Live(
        console=console, auto_refresh=False, screen=console.is_terminal and not count
    ) as live:
        before = _look(control)
        for _ in _looks(count):
            time.sleep(interval)
            now = _look(control)
            live.update(_render(_rates(before, now), now), refresh=True)
            before = now


def _looks(count: int) -> Any:
    from itertools import count as forever

    return range(count) if count else forever()


def _look(control: Control) -> dict[str, Any]:
    return {
        "at": time.monotonic(),
        "metrics": control.call("metrics"),
        "status": control.call("status"),
    }


def _rates(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Return what happened in between, each second, and latencies since the start."""
    span = now["at"] - before["at"]
    old, new = before["metrics"], now["metrics"]
    changes = {
        name: (value - old.get(name, 0)) / span
        for name, value in new.items()
        if "_total" in name or "_count" in name
    }
    protocols: dict[str, dict[str, float]] = {}
    for name, rate in changes.items():
        family, labels = _parsed(name)
        match = re.fullmatch(r"warp_(\w+?)_requests_total", family)
        if match:
            row = protocols.setdefault(match[1], {})
            row["all"] = row.get("all", 0) + rate
            if labels.get("status", "200")[:1] in "45":
                row["errors"] = row.get("errors", 0) + rate
            method = labels.get("method", "other")
            row[method] = row.get(method, 0) + rate
    stores: dict[str, dict[str, float]] = {}
    for name, rate in changes.items():
        family, labels = _parsed(name)
        if family == "warp_store_bytes_total":
            row = stores.setdefault(labels["store"], {})
            kind = "written" if labels["call"] in ("write", "put") else "read"
            row[kind] = row.get(kind, 0) + rate
        elif family == "warp_store_call_seconds_count" and labels["call"] in ("write", "sync"):
            row = stores.setdefault(labels["store"], {})
            row["writes"] = row.get("writes", 0) + rate
    for store, row in stores.items():
        for call in ("write", "sync"):
            key = f'warp_store_call_seconds_p99{{store="{store}",call="{call}"}}'
            row["p99_ms"] = max(row.get("p99_ms", 0.0), new.get(key, 0.0) * 1e3)
    sent = sum(rate for name, rate in changes.items() if name.endswith("_sent_bytes_total"))
    connections = sum(value for name, value in new.items() if name.endswith("_connections"))
    return {
        "protocols": protocols,
        "stores": stores,
        "sent_per_s": sent,
        "connections": connections,
    }


def _parsed(name: str) -> tuple[str, dict[str, str]]:
    family, _, rest = name.partition("{")
    return family, dict(_LABELS.findall(rest))


def _render(rates: Mapping[str, Any], now: Mapping[str, Any]) -> RenderableType:
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    status = now["status"]
    health = "[green]healthy[/]" if status["healthy"] else "[red]needs attention[/]"
    lines: list[RenderableType] = [
        Text.from_markup(
            f"[bold]{status['node']}[/] {health}   {counted(round(rates['connections']), 'connection')}  "
            f" {bytes_text(rates['sent_per_s'])}/s sent   {counted(status['volumes'], 'volume')}"
        )
    ]
    lines += [Text(f"! {problem}", style="red") for problem in status["problems"]]
    requests = Table(box=box.SIMPLE_HEAD)
    methods = sorted(
        {key for row in rates["protocols"].values() for key in row} - {"all", "errors"}
    )
    for column in ("protocol", "requests/s", *methods, "errors"):
        requests.add_column(column, justify="left" if column == "protocol" else "right")
    for name, row in sorted(rates["protocols"].items()):
        cells = [f"{row.get(key, 0):,.0f}" for key in ("all", *methods, "errors")]
        requests.add_row(name, *cells)
    if rates["protocols"]:
        lines.append(requests)
    stores = Table(box=box.SIMPLE_HEAD)
    for column in ("store", "read/s", "written/s", "writes/s", "p99 ms", "free"):
        stores.add_column(column, justify="left" if column == "store" else "right")
    for index, each in enumerate(status["stores"]):
        row = rates["stores"].get(str(index), {})
        stores.add_row(
            each["place"],
            bytes_text(row.get("read", 0)),
            bytes_text(row.get("written", 0)),
            f"{row.get('writes', 0):,.0f}",
            f"{row.get('p99_ms', 0):.2f}",
            bytes_text(each.get("free", 0)),
        )
    lines.append(stores)
    return Group(*lines)
