"""`warp snapshot`: what a volume's snapshots hold, and the policies that make them. `warp volume` makes, clones and removes one."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from warp_core.errors import InvalidArgument

from warp_cli.asking import ask
from warp_cli.failing import reported
from warp_cli.output import as_json, as_json_line, minute, print_ranges, say, table
from warp_cli.progress import bytes_text
from warp_cli.typing import ConfigOption, DataOption, JsonOption, group

app = group("List, compare and hold snapshots of volumes, and have them made by a policy.")
policies = group("Snapshots that are made every hour, day, week or month.")
app.add_typer(policies, name="policy")

KINDS = ("hourly", "daily", "weekly", "monthly")

Volume = Annotated[str, typer.Argument(metavar="VOLUME", help="The volume's name.")]
OfVolume = Annotated[str, typer.Argument(metavar="VOLUME@SNAP", help="The snapshot.")]
Word = Annotated[
    str, typer.Option("--word", help="For whom; several may hold one, each by a word of its own.")
]


@app.command("list")
def list_(
    volume: Volume, config: ConfigOption = None, data: DataOption = None, json: JsonOption = False
) -> int:
    """List a volume's snapshots, oldest first: what each shows, and what removing it would free."""

    def run() -> None:
        found = ask(config, data, "snapshot.list", name=volume)
        if json:
            as_json(found)
            return
        rows = [
            (
                each["name"],
                minute(each["created"]),
                _age(each["age_s"]),
                bytes_text(each["bytes"]),
                bytes_text(each["unique_bytes"]),
                ", ".join(each["kinds"]) or "by hand",
                ", ".join(each["holds"]) or "-",
                each["clones"],
            )
            for each in found
        ]
        columns = (
            "snapshot",
            "created (UTC)",
            "age",
            "shows",
            "frees",
            "made",
            "held as",
            "clones",
        )
        table(
            columns, rows, empty=f"{volume} has no snapshot: `warp volume snapshot {volume} NAME`"
        )

    return reported(run, json=json)


@app.command()
def diff(
    volume: Volume,
    older: Annotated[str, typer.Argument(metavar="A", help="The older snapshot.")],
    newer: Annotated[
        str, typer.Argument(metavar="[B]", help="The newer one; by default the volume as it is.")
    ] = "",
    path: Annotated[
        str, typer.Option("--path", help="Instead of names: which ranges of this file differ.")
    ] = "",
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> int:
    """Tell what differs between two snapshots, or a snapshot and now. It costs what changed, however large the volume."""

    def run() -> None:
        if path:
            print_ranges(
                lambda offset: ask(
                    config,
                    data,
                    "snapshot.ranges",
                    name=volume,
                    older=older,
                    newer=newer,
                    path=path,
                    offset=offset,
                ),
                json=json,
            )
            return
        after, count = "", 0
        while True:
            found = ask(
                config, data, "snapshot.diff", name=volume, older=older, newer=newer, after=after
            )
            for each in found["differences"]:
                count += 1
                if json:
                    as_json_line(each)
                else:
                    print(_difference(each))
            after = found["next"]
            if not after:
                break
        if not count and not json:
            print("No difference.")

    return reported(run, json=json)


MARKS = {"added": "+", "removed": "-", "renamed": ">", "changed": "~"}


def _difference(each: dict[str, Any]) -> str:
    slash = "/" if each["kind"] == "directory" else ""
    what = [*(["content"] if each["content"] else []), *each["attributes"]]
    text = f"{MARKS[each['what']]} {each['path']}{slash}"
    if each["to"]:
        text += f" -> {each['to']}{slash}"
    return text + (f"  ({', '.join(what)})" if what else "")


@app.command()
def hold(
    snapshot: OfVolume,
    word: Word = "operator",
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> int:
    """Have a snapshot stay: neither commands nor policies remove it until it is released."""

    def run() -> None:
        volume, name = _split(snapshot)
        held = ask(config, data, "snapshot.hold", name=volume, snapshot=name, word=word)
        if json:
            as_json(held)
        else:
            say(f"[green]held[/] {snapshot} as {word}")

    return reported(run, json=json)


@app.command()
def release(
    snapshot: OfVolume,
    word: Word = "operator",
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> int:
    """Take a hold back."""

    def run() -> None:
        volume, name = _split(snapshot)
        left = ask(config, data, "snapshot.release", name=volume, snapshot=name, word=word)
        if json:
            as_json(left)
        else:
            others = f"; still held as {', '.join(left['holds'])}" if left["holds"] else ""
            say(f"[green]released[/] {snapshot}{others}")

    return reported(run, json=json)


# Policies -----------------------------------------------------------------------------------------

Count = Annotated[int | None, typer.Option(min=0, help="How many to keep; 0: none.")]


@policies.command("set")
def policy_set(
    volume: Volume,
    hourly: Count = None,
    daily: Count = None,
    weekly: Count = None,
    monthly: Count = None,
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> int:
    """Have snapshots of a volume made and removed by themselves. What is not named stays as it is."""

    def run() -> None:
        counts: dict[str, Any] = {
            "hourly": hourly,
            "daily": daily,
            "weekly": weekly,
            "monthly": monthly,
        }
        if all(each is None for each in counts.values()):
            raise InvalidArgument("how many? --hourly, --daily, --weekly, --monthly")
        made = ask(config, data, "snapshot.policy.set", name=volume, **counts)
        if json:
            as_json(made)
        else:
            _show([made])

    return reported(run, json=json)


@policies.command("show")
def policy_show(
    volume: Annotated[str, typer.Argument(metavar="[VOLUME]", help="By default all.")] = "",
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> int:
    """Show the policy of a volume, or of all that have one."""

    def run() -> None:
        if volume:
            found = ask(config, data, "snapshot.policy.show", name=volume)
            if json:
                as_json(found)
            else:
                _show([found])
            return
        every = ask(config, data, "snapshot.policy.list")
        if json:
            as_json(every)
        else:
            _show(every)

    return reported(run, json=json)


@policies.command("remove")
def policy_remove(
    volume: Volume, config: ConfigOption = None, data: DataOption = None, json: JsonOption = False
) -> int:
    """Take a volume's policy away. The snapshots that it made stay."""

    def run() -> None:
        gone = ask(config, data, "snapshot.policy.remove", name=volume)
        if json:
            as_json(gone)
        else:
            say(f"[green]removed[/] the policy of {volume}; its snapshots stay")

    return reported(run, json=json)


def _show(found: list[dict[str, Any]]) -> None:
    rows = [
        (
            each["volume"],
            *(each[kind] for kind in KINDS),
            "the configuration" if each["declared"] else "a command",
        )
        for each in found
    ]
    table(
        ("volume", *KINDS, "said by"),
        rows,
        empty="No volume has a policy: `warp snapshot policy set VOLUME --daily 7`",
    )
    if found and not found[0]["carried_out"]:
        say("Nothing carries policies out: install warp-snapshots, or enable [services.snapshots].")


def _split(snapshot: str) -> tuple[str, str]:
    volume, _, name = snapshot.partition("@")
    if not volume or not name:
        raise InvalidArgument(f'"{snapshot}": allowed: VOLUME@SNAP, as in photos@monday')
    return volume, name


def _age(seconds: int) -> str:
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"
