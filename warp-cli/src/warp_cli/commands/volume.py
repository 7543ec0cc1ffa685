"""`warp volume`: volumes and their policies. A volume is an S3 bucket, an export, a share."""

from __future__ import annotations

from typing import Annotated

import typer
from warp_core.errors import InvalidArgument

from warp_cli.asking import ask
from warp_cli.failing import reported
from warp_cli.output import as_json, counted, minute, say, say_unreachable, table
from warp_cli.progress import bytes_text, shown
from warp_cli.typing import ConfigOption, DataOption, JsonOption, group

app = group("Make, show, change, snapshot, clone and remove volumes.")

Name = Annotated[str, typer.Argument(help="The volume's name.")]


@app.command()
def create(
    name: Name,
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="As for `set`.")
    ] = None,
    owner: Annotated[str, typer.Option("--owner", help="The account that owns it.")] = "",
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> int:
    """Make a volume, with the default policy unless settings say otherwise."""

    def run() -> None:
        account = owner if not owner or ":" in owner else f"account:{owner}"
        wanted = _settings(settings or ())
        made = ask(config, data, "volume.create", name=name, owner=account, settings=wanted)
        if json:
            as_json(made)
        else:
            say(f"[green]made[/] volume {name}")

    return reported(run, json=json)


@app.command("list")
def list_(config: ConfigOption = None, data: DataOption = None, json: JsonOption = False) -> int:
    """List the volumes, with what they hold."""

    def run() -> None:
        found = ask(config, data, "volume.list")
        if json:
            as_json(found)
            return
        rows = [
            (
                each["name"],
                "?" if "unreachable" in each else f"{each.get('objects', 0):,}",
                "?" if "unreachable" in each else bytes_text(each.get("bytes", 0)),
                each["versioning"],
                each["owner"],
                minute(each["created"]),
            )
            for each in found
        ]
        empty = "There is no volume yet: `warp volume create NAME` makes one."
        table(
            ("volume", "objects", "size", "versioning", "owner", "created (UTC)"), rows, empty=empty
        )
        say_unreachable(
            {each["name"]: each["unreachable"] for each in found if "unreachable" in each}
        )

    return reported(run, json=json)


@app.command()
def show(
    name: Name, config: ConfigOption = None, data: DataOption = None, json: JsonOption = False
) -> int:
    """Show one volume: what it holds, and the policy in effect."""

    def run() -> None:
        found = ask(config, data, "volume.show", name=name)
        if json:
            as_json(found)
        else:
            _show(found)

    return reported(run, json=json)


@app.command("set")
def set_(
    name: Name,
    settings: Annotated[
        list[str],
        typer.Argument(
            metavar="KEY=VALUE...",
            help="policy, redundancy, chunker, filters, verify, versioning; KEY= goes back to the default.",
        ),
    ],
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> int:
    """Change settings of a volume. What it holds already stays as it was written."""

    def run() -> None:
        found = ask(config, data, "volume.set", name=name, settings=_settings(settings))
        if json:
            as_json(found)
        else:
            _show(found)

    return reported(run, json=json)


@app.command()
def snapshot(
    name: Name,
    snapshot: Annotated[str, typer.Argument(metavar="SNAP", help="The snapshot's name.")],
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> int:
    """Keep a volume as it is now; over S3 it is the read-only bucket NAME.snap-SNAP."""

    def run() -> None:
        made = ask(config, data, "volume.snapshot", name=name, snapshot=snapshot)
        if json:
            as_json(made)
        else:
            say(f"[green]made[/] snapshot {name}@{snapshot}")

    return reported(run, json=json)


@app.command()
def rollback(
    source: Annotated[str, typer.Argument(metavar="NAME@SNAP", help="What it goes back to.")],
    force: Annotated[
        bool, typer.Option("--force", help="Although files are open: who has them sees an error.")
    ] = False,
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> int:
    """Make a volume as a snapshot of it was. Snapshots stay, later ones too: take one before, to be able to return."""

    def run() -> None:
        name, _, snapshot = source.partition("@")
        if not snapshot:
            raise InvalidArgument(
                f'"{source}": allowed: NAME@SNAP; `warp volume show {name}` lists its snapshots'
            )
        with shown("rolling back", quiet=json) as progress:
            done = ask(
                config,
                data,
                "volume.rollback",
                progress=progress,
                name=name,
                snapshot=snapshot,
                force=force,
            )
        if json:
            as_json(done)
        else:
            changed = counted(done["rows_changed"], "row") + " changed"
            say(f"[green]rolled back[/] {name} to {snapshot}: {changed}")

    return reported(run, json=json)


@app.command()
def prune(
    name: Name,
    older_than: Annotated[
        str, typer.Option("--older-than", metavar="AGE", help="As in 36h or 7d.")
    ] = "",
    keep: Annotated[
        int, typer.Option("--keep", min=0, help="The newest so many stay, whatever their age.")
    ] = 0,
    matching: Annotated[
        str, typer.Option("--matching", metavar="PATTERN", help="Only names like daily-*.")
    ] = "*",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say which would be removed.")
    ] = False,
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> int:
    """Remove snapshots that have had their time, and what only they held. Those with clones stay."""

    def run() -> None:
        if not older_than and not keep:
            raise InvalidArgument("which snapshots? Give --older-than AGE, --keep NUMBER, or both")
        with shown("freeing", quiet=json) as progress:
            done = ask(
                config,
                data,
                "volume.prune",
                progress=progress,
                name=name,
                older_than_s=_age(older_than) if older_than else None,
                keep=keep,
                matching=matching,
                dry_run=dry_run,
            )
        if json:
            as_json(done)
            return
        for each in done["deleted"]:
            say(f"{'would remove' if dry_run else '[green]removed[/]'} {name}@{each}")
        if not done["deleted"]:
            say(f"No snapshot of {name} has had its time.")

    return reported(run, json=json)


@app.command()
def clone(
    source: Annotated[str, typer.Argument(metavar="NAME[@SNAP]", help="What it begins as.")],
    target: Annotated[str, typer.Argument(help="The new volume's name.")],
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> int:
    """Make a volume of another's content, without copying it."""

    def run() -> None:
        name, _, snapshot = source.partition("@")
        made = ask(config, data, "volume.clone", name=name, snapshot=snapshot, target=target)
        if json:
            as_json(made)
        else:
            say(f"[green]made[/] volume {target} of {source}")

    return reported(run, json=json)


@app.command()
def delete(
    name: Annotated[str, typer.Argument(metavar="NAME[@SNAP]", help="A volume or a snapshot.")],
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> int:
    """Remove a volume that is empty, or with NAME@SNAP a snapshot and what only it held."""

    def run() -> None:
        volume, at, snapshot = name.partition("@")
        if at:
            with shown("freeing", quiet=json) as progress:
                gone = ask(
                    config,
                    data,
                    "snapshot.delete",
                    progress=progress,
                    name=volume,
                    snapshot=snapshot,
                )
        else:
            gone = ask(config, data, "volume.delete", name=name)
        if json:
            as_json(gone)
        else:
            say(f"[green]removed[/] {name}")

    return reported(run, json=json)


def _age(text: str) -> float:
    from warp_core.config.types import Duration

    try:
        return float(Duration.parse(text))
    except ValueError as error:
        raise InvalidArgument(f'age "{text}": allowed: {Duration.ALLOWED}') from error


def _settings(words: list[str] | tuple[()]) -> dict[str, str]:
    settings = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise InvalidArgument(f'"{word}": allowed: KEY=VALUE, as in versioning=on')
        settings[key] = value
    return settings


def _show(found: dict[str, object]) -> None:
    policy = found.pop("policy")
    found.pop("settings", None)
    assert isinstance(policy, dict), "the node describes the policy as a table"
    for key in ("bytes", "version_bytes", "part_bytes"):
        count = found.get(key)
        if isinstance(count, int):
            found[key] = bytes_text(count)
    snapshots = found.pop("snapshots", [])
    assert isinstance(snapshots, list), "the node lists snapshots"
    found["read_only"] = "yes" if found.get("read_only") else "no"
    rows = [(key.replace("_", " "), value, "") for key, value in found.items()]
    rows += [(key, each["value"] or "none", each["origin"]) for key, each in policy.items()]
    table(("what", "value", "from"), rows)
    if snapshots:
        table(
            ("snapshot", "created (UTC)", "clones"),
            [(each["name"], minute(each["created"]), each["clones"]) for each in snapshots],
        )
