"""`warp bench`: measure an S3 endpoint, by default the node that runs on the data directory."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from warp_core.config.types import Size
from warp_core.errors import InvalidArgument
from warp_core.s3.signing import Endpoint

from warp_cli.asking import ask_running
from warp_cli.credentials import credentials
from warp_cli.failing import reported
from warp_cli.load import OPERATIONS, Plan, Result, run
from warp_cli.output import as_json, table
from warp_cli.progress import shown
from warp_cli.typing import ConfigOption, DataOption, JsonOption, single

app = single()


@app.command()
def bench(
    size: Annotated[
        list[str] | None,
        typer.Option("--size", help="Object size; may be repeated. Default: 4KiB."),
    ] = None,
    connections: Annotated[int, typer.Option(min=1, max=1024, help="Connections at once.")] = 16,
    seconds: Annotated[float, typer.Option(min=0.1, help="Of each phase.")] = 5.0,
    bytes_max: Annotated[
        str, typer.Option("--bytes-max", help="Most bytes moved by a phase.")
    ] = "1GiB",
    operations: Annotated[
        str, typer.Option("--operations", help="Which, in which order.")
    ] = ",".join(OPERATIONS),
    endpoint: Annotated[
        str,
        typer.Option(
            "--endpoint", help="http://HOST:PORT; default: the node on the data directory."
        ),
    ] = "",
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> int:
    """Put, get, head, list and delete objects as fast as the server answers, and print a table.

    Credentials are WARP_ACCESS_KEY and WARP_SECRET_KEY, or the data directory's root.key. The load runs
    in one process beside the server: on a small machine they share the cores, so compare the CPU time
    that a request costs the server rather than rates.
    """

    def measure() -> int:
        plans = [
            Plan(
                size=_size(text),
                connections=connections,
                seconds=seconds,
                bytes_max=_size(bytes_max),
                operations=_operations(operations),
            )
            for text in size or ["4KiB"]
        ]
        url, pid = endpoint, None
        if not url:
            status = ask_running(config, data, "status")
            url, pid = status["endpoints"].get("s3", ""), status["pid"]
            if not url:
                raise InvalidArgument("the running node serves no S3: give an --endpoint")
        access, secret = credentials(config, data)
        target = Endpoint.parse(url, access, secret)
        results: list[Result] = []
        with shown("measuring:", quiet=json) as progress:

            def tell(what: str, count: int) -> None:
                progress({what: count})

            for plan in plans:
                results += asyncio.run(run(target, plan, pid=pid, tell=tell))
        if json:
            as_json(results)
        else:
            _show(results)
        return int(any(result.errors for result in results))

    return reported(measure, json=json)


def _show(results: list[Result]) -> None:
    table(
        ("what", "size", "conn", "req/s", "MB/s", "p50 ms", "p99 ms", "CPU us/req", "errors"),
        [
            (
                result.operation,
                Size(result.size),
                result.connections,
                f"{result.rate:,.0f}",
                f"{result.bytes_per_s / 1e6:,.1f}" if result.bytes_per_s else "",
                f"{result.p50_ms:.2f}",
                f"{result.p99_ms:.2f}",
                "" if result.server_cpu_us is None else f"{result.server_cpu_us:,.0f}",
                result.errors,
            )
            for result in results
        ],
    )


def _size(text: str) -> int:
    try:
        return Size.parse(int(text) if text.isdecimal() else text)
    except ValueError:
        raise InvalidArgument(f'"{text}" is no size; allowed: {Size.ALLOWED}') from None


def _operations(text: str) -> tuple[str, ...]:
    chosen = tuple(word.strip() for word in text.split(","))
    unknown = [word for word in chosen if word not in OPERATIONS]
    if unknown:
        raise InvalidArgument(f'no operation "{unknown[0]}"; allowed: {", ".join(OPERATIONS)}')
    return chosen
