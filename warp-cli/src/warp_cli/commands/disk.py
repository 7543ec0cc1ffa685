"""`warp disk`: sparse files that the block protocols export under the name VOLUME/PATH."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from warp_core.config.types import Size
from warp_core.errors import InvalidArgument

from warp_cli.asking import ask
from warp_cli.failing import reported
from warp_cli.output import as_json, print_ranges, say, say_unreachable, table
from warp_cli.progress import bytes_text
from warp_cli.typing import ConfigOption, DataOption, JsonOption, group

app = group("Make, show, resize, snapshot, clone and remove disks.")

Disk = Annotated[str, typer.Argument(metavar="VOLUME/PATH", help="The disk.")]
SizeOption = Annotated[str, typer.Option("--size", help="Such as 10G; a multiple of 512 bytes.")]


@app.command()
def create(
    disk: Disk,
    size: SizeOption = "",
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> int:
    """Make a sparse disk; without --size, make a disk of a file that exists."""

    def run() -> None:
        volume, path, _ = _split(disk)
        wanted = _size(size) if size else None
        made = ask(config, data, "disk.create", volume=volume, path=path, size=wanted)
        if json:
            as_json(made)
        else:
            say(f"[green]made[/] disk {made['disk']} of {bytes_text(made['size'])}")
            for way in made.get("attach", ()):
                say(f"attach it as {way}")

    return reported(run, json=json)


@app.command("list")
def list_(
    volume: Annotated[str, typer.Argument(help="Only of this volume.")] = "",
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> int:
    """List disks, with what they take."""

    def run() -> None:
        found = ask(config, data, "disk.list", volume=volume)
        if json:
            as_json(found)
            return
        rows = [
            (each["disk"], bytes_text(each["size"]), bytes_text(each["allocated"]), each["serial"])
            for each in found
        ]
        empty = "There is no disk yet: `warp disk create VOLUME/PATH --size 10G` makes one."
        table(("disk", "size", "allocated", "serial"), rows, empty=empty)
        say_unreachable(
            {each["disk"]: each["unreachable"] for each in found if "unreachable" in each}
        )

    return reported(run, json=json)


@app.command()
def show(
    disk: Disk, config: ConfigOption = None, data: DataOption = None, json: JsonOption = False
) -> int:
    """Show one disk and its snapshots."""

    def run() -> None:
        volume, path, _ = _split(disk)
        found = ask(config, data, "disk.show", volume=volume, path=path)
        if json:
            as_json(found)
        else:
            _show(found)

    return reported(run, json=json)


@app.command()
def resize(
    disk: Disk,
    size: SizeOption,
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> int:
    """Change a disk's size; shrinking drops what is cut off."""

    def run() -> None:
        volume, path, _ = _split(disk)
        found = ask(config, data, "disk.resize", volume=volume, path=path, size=_size(size))
        if json:
            as_json(found)
        else:
            say(f"[green]resized[/] {found['disk']} to {bytes_text(found['size'])}")

    return reported(run, json=json)


@app.command()
def snapshot(
    disk: Disk,
    snapshot: Annotated[str, typer.Argument(metavar="SNAP", help="The snapshot's name.")],
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> int:
    """Keep what a disk holds now."""

    def run() -> None:
        volume, path, _ = _split(disk)
        made = ask(config, data, "disk.snapshot", volume=volume, path=path, snapshot=snapshot)
        if json:
            as_json(made)
        else:
            say(f"[green]made[/] snapshot {disk}@{snapshot}")

    return reported(run, json=json)


@app.command()
def diff(
    disk: Annotated[
        str, typer.Argument(metavar="VOLUME/PATH@SNAP", help="The disk, as the snapshot has it.")
    ],
    newer: Annotated[
        str,
        typer.Argument(metavar="[SNAP]", help="A newer snapshot; by default the disk as it is."),
    ] = "",
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> int:
    """Tell which ranges of a disk were written or trimmed since a snapshot: offset, length. No content is read."""

    def run() -> None:
        volume, path, older = _split(disk)
        if not older:
            raise InvalidArgument(f'"{disk}": allowed: VOLUME/PATH@SNAP')
        print_ranges(
            lambda offset: ask(
                config,
                data,
                "disk.diff",
                volume=volume,
                path=path,
                older=older,
                newer=newer,
                offset=offset,
            ),
            json=json,
        )

    return reported(run, json=json)


@app.command()
def clone(
    source: Annotated[str, typer.Argument(metavar="VOLUME/PATH[@SNAP]", help="What it begins as.")],
    target: Annotated[
        str, typer.Argument(metavar="VOLUME/PATH", help="The new disk, in the same volume.")
    ],
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> int:
    """Make a disk of another's content, without copying it."""

    def run() -> None:
        volume, path, snap = _split(source)
        into, place, _ = _split(target)
        if into != volume:
            raise InvalidArgument(
                f"{target}: a clone of a disk stays in its volume: allowed: {volume}/PATH"
            )
        made = ask(
            config,
            data,
            "disk.clone",
            volume=volume,
            path=path,
            target=place,
            snapshot=snap,
        )
        if json:
            as_json(made)
        else:
            say(f"[green]made[/] disk {made['disk']} of {source}")

    return reported(run, json=json)


@app.command()
def delete(
    disk: Annotated[
        str, typer.Argument(metavar="VOLUME/PATH[@SNAP]", help="A disk or a snapshot.")
    ],
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> int:
    """Remove a disk with its snapshots, or with @SNAP one snapshot."""

    def run() -> None:
        volume, path, snap = _split(disk)
        gone = ask(config, data, "disk.delete", volume=volume, path=path, snapshot=snap)
        if json:
            as_json(gone)
        else:
            say(f"[green]removed[/] {gone['deleted']}")

    return reported(run, json=json)


def _split(disk: str) -> tuple[str, str, str]:
    name, _, snap = disk.partition("@")
    volume, slash, path = name.partition("/")
    if not slash or not volume or not path:
        raise InvalidArgument(f'"{disk}": allowed: VOLUME/PATH, as in photos/images/vm1')
    return volume, path, snap


def _size(text: str) -> int:
    # "10G" means 10 GiB here, as for qemu-img and lvcreate: disks are made in powers of two.
    binary = f"{text}iB" if text[-1:].lower() in ("k", "m", "g", "t", "p") else text
    try:
        return Size.parse(int(binary) if binary.isdecimal() else binary)
    except ValueError:
        raise InvalidArgument(
            f'--size {text}: allowed: {Size.ALLOWED}, or "10G" for 10GiB'
        ) from None


def _show(found: dict[str, Any]) -> None:
    rows = [
        ("disk", found["disk"]),
        ("size", bytes_text(found["size"])),
        ("allocated", bytes_text(found["allocated"])),
        ("serial", found["serial"]),
        ("snapshots", ", ".join(found["snapshots"]) or "none"),
        ("attach as", "\n".join(found.get("attach", ())) or "no protocol that runs exports it"),
    ]
    table(("what", "value"), rows)
