"""`warp node`: begin a cluster, let nodes in, join one, and see who is there."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer
from warp_core.errors import AlreadyExists, InvalidArgument, StoreFailed

from warp_cli.asking import ask_running
from warp_cli.failing import reported
from warp_cli.output import as_json, say, table
from warp_cli.settings import DEFAULT_FILE
from warp_cli.typing import ConfigOption, DataOption, JsonOption, group

app = group("Begin a cluster, let nodes in, join one, and see who is there.")

ProtocolOption = Annotated[
    list[str] | None,
    typer.Option(
        "--protocol",
        metavar="NAME=ADDRESS",
        help="What the node serves and where; may be repeated. Default: s3=127.0.0.1:9000.",
    ),
]
NameOption = Annotated[str, typer.Option("--name", help="The node's name, for ever.")]
ListenOption = Annotated[
    str,
    typer.Option(
        "--listen", metavar="HOST[:PORT]", help="Where other nodes reach this one (port 7400)."
    ),
]
MetadataOption = Annotated[
    str,
    typer.Option(
        "--metadata",
        metavar="HOST:PORT",
        help="Where its member of etcd is reached by the others. Default: port 2380 of that host.",
    ),
]


@app.command()
def found(
    name: NameOption,
    listen: ListenOption,
    metadata: MetadataOption = "",
    protocol: ProtocolOption = None,
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> int:
    """Begin a cluster: write the configuration of its first node, and make the authority that certifies the others."""

    def run() -> None:
        from warp_core.certificates import issue, make_authority
        from warp_core.cluster.written import founder
        from warp_core.node.data_directory import DataDirectory
        from warp_core.node.handing import AUTHORITY
        from warp_core.node.members import NAME, TLS
        from warp_core.node.root_key import FILE, root_key

        file, folder = _fresh(config, data)
        if not NAME.match(name):
            raise InvalidArgument(f'node name "{name}": 1 to 64 letters, digits and . _ -')
        reached, engine, hosts = _addresses(listen, metadata)
        protocols = _protocols(protocol)
        with DataDirectory(folder):
            access, _ = root_key(folder, None)
        make_authority(folder / AUTHORITY)
        issue(folder / AUTHORITY, name, folder / TLS, hosts=hosts)
        _write(
            file,
            founder(name=name, data=folder, listen=reached, metadata=engine, protocols=protocols),
        )
        if json:
            as_json({"config": file, "data": folder, "access_key": access, "key": folder / FILE})
            return
        say(f"[green]written[/]: {file}")
        say(f"root key: {access}, its secret is in {folder / FILE}")
        say(f"next: warp serve --config {file}, then warp node token --config {file}")

    return reported(run, json=json)


@app.command()
def token(
    hours: Annotated[float, typer.Option("--hours", help="How long the token is good.")] = 1.0,
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> int:
    """Make a token that lets one node join. It works once, and while this node runs."""

    def run() -> None:
        made = ask_running(config, data, "node.token", ttl_s=hours * 3600.0)
        if json:
            as_json(made)
        else:
            print(made["token"])  # one line, however narrow the terminal

    return reported(run, json=json)


@app.command()
def join(
    token: Annotated[str, typer.Argument(help="What `warp node token` printed.")],
    name: NameOption,
    listen: ListenOption,
    metadata: MetadataOption = "",
    protocol: ProtocolOption = None,
    witness: Annotated[
        bool,
        typer.Option("--witness", help="Keep and serve nothing, only count for the majority."),
    ] = False,
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> int:
    """Join a cluster: get a certificate and the root key, and write a complete configuration."""

    def run() -> None:
        from warp_core.certificates import place, request
        from warp_core.cluster import joining
        from warp_core.cluster.written import joined
        from warp_core.node.data_directory import DataDirectory, replace_durably
        from warp_core.node.handing import take
        from warp_core.node.members import TLS
        from warp_core.node.root_key import FILE

        good = joining.read(token)
        file, folder = _fresh(config, data)
        reached, engine, _ = _addresses(listen, metadata)
        protocols = _protocols(protocol)
        key, asked = request(name)
        wanted = joining.Wanted(
            joining.VERSION, good.secret, name, asked, reached, engine, not witness
        )
        welcome = asyncio.run(joining.ask(good, wanted))
        with DataDirectory(folder):
            access, secret = welcome.root
            text = f"WARP_ACCESS_KEY={access}\nWARP_SECRET_KEY={secret}\n"
            replace_durably(folder / FILE, text.encode(), mode=0o600)
            take(folder, welcome.handed)
        place(folder / TLS, certificate=welcome.certificate, authority=welcome.authority, key=key)
        _write(
            file,
            joined(
                welcome,
                name=name,
                data=folder,
                listen=reached,
                protocols=protocols,
                witness=witness,
            ),
        )
        partner = welcome.partner
        if json:
            as_json(
                {
                    "config": file,
                    "data": folder,
                    "partner": partner.node if partner else None,
                    "copy_by_hand": welcome.handed.elsewhere,
                }
            )
            return
        say(f"[green]joined[/]: {file} is written")
        for path in welcome.handed.elsewhere:
            say(
                f"bring {path} here as well, and name it in {file}: it lies outside of the data folder"
            )
        say(f"next: warp serve --config {file}")
        if partner is not None and partner.wants:
            say(f"node {partner.node} keeps its second copies here as soon as this one runs")

    return reported(run, json=json)


@app.command("list")
def list_(config: ConfigOption = None, data: DataOption = None, json: JsonOption = False) -> int:
    """Show nodes, which volumes are at home where (by the node that made them), and their copies."""

    def run() -> None:
        found = ask_running(config, data, "node.list")
        if json:
            as_json(found)
        else:
            show(found)

    return reported(run, json=json)


def show(found: dict[str, Any]) -> None:
    """Print the nodes and domains of a cluster."""
    table(
        ("node", "", "address", "metadata", "serves"),
        [
            (
                each["name"],
                "" if each["here"] else "away",
                each["address"],
                each["metadata"],
                ", ".join(name for name in each["endpoints"] if name != "peers"),
            )
            for each in found["nodes"]
        ],
    )
    table(
        ("domain", "made by", "home", "copies"),
        [
            (
                str(each["domain"]),
                each["origin"],
                each["home"] or "none",
                ", ".join(
                    copy["node"] + ("" if copy["whole"] else " (behind)") for copy in each["copies"]
                ),
            )
            for each in found["domains"]
        ],
    )


@app.command()
def take(
    domain: Annotated[
        str, typer.Argument(help="A domain: its number, or the name of the node that made it.")
    ],
    to: Annotated[
        str, typer.Option("--to", help="Who becomes its home; default: the node that is asked.")
    ] = "",
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> int:
    """Make a node the home of a domain, as soon as it has everything; its home so far gives it away then."""

    def run() -> None:
        asked = ask_running(config, data, "node.take", domain=domain, node=to)
        if json:
            as_json(asked)
        else:
            say(f"[green]asked[/]: domain {asked['domain']} goes to node {asked['node']}")

    return reported(run, json=json)


@app.command()
def remove(
    name: Annotated[str, typer.Argument(help="The node that leaves; it is stopped by now.")],
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> int:
    """Take a node out of the cluster for good: its copies and its vote. Its name is not used again."""

    def run() -> None:
        asked = ask_running(config, data, "node.remove", name=name)
        if json:
            as_json(asked)
            return
        say(f"[green]removed[/]: node {asked['node']}")
        if not asked["voted"]:
            say(
                "It had no vote in the metadata engine, or not under this name: see `warp node list`."
            )
        if asked["one_copy"]:
            numbers = ", ".join(map(str, asked["one_copy"]))
            say(f"One copy only is left of domain {numbers}.")
            for number, node in asked["new_copies"].items():
                say(f"Node {node} gets a copy of domain {number}: see `warp node list`.")
            if len(asked["new_copies"]) < len(asked["one_copy"]):
                say("No node is left that could keep another: let one join.")

    return reported(run, json=json)


def _fresh(config: Path | None, data: Path | None) -> tuple[Path, Path]:
    """Return configuration and data folder of a node that does not exist yet.

    Raises:
        AlreadyExists: There is something.
    """
    from warp_core.node.data_directory import is_data

    file = (config or Path(DEFAULT_FILE)).absolute()
    folder = (data or Path("warp-data")).absolute()
    if file.exists():
        raise AlreadyExists(f"{file} exists: name another file with --config")
    if is_data(folder) or (folder / "tls").exists():
        raise AlreadyExists(f"{folder} is a node's data already: name another folder with --data")
    return file, folder


def _addresses(listen: str, metadata: str) -> tuple[str, str, list[str]]:
    """Return where the node and its member of etcd are reached, and the hosts of both."""
    from warp_core.cluster.written import DEFAULT_METADATA_PORT, DEFAULT_PEERS_PORT
    from warp_core.node.members import host_of

    bare = listen.rpartition(":")[1] == "" or listen.endswith("]")
    reached = f"{listen}:{DEFAULT_PEERS_PORT}" if bare else listen
    host = host_of(reached)
    shown = f"[{host}]" if ":" in host else host
    engine = metadata or f"{shown}:{DEFAULT_METADATA_PORT}"
    return reached, engine, sorted({host, host_of(engine)})


def _protocols(given: list[str] | None) -> dict[str, str]:
    """Return what is served where."""
    found: dict[str, str] = {}
    for text in given or ["s3=127.0.0.1:9000"]:
        name, equals, address = text.partition("=")
        if not equals or not name or not address:
            raise InvalidArgument(f"--protocol {text}: allowed: NAME=ADDRESS, as s3=0.0.0.0:9000")
        found[name] = address
    return found


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StoreFailed(f"{file} cannot be written ({error.strerror})") from None
