"""`warp quota`: what volumes and accounts may hold."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from warp_core.errors import InvalidArgument, NotFound

from warp_cli.asking import ask
from warp_cli.failing import reported
from warp_cli.output import as_json, say, table
from warp_cli.progress import bytes_text
from warp_cli.typing import ConfigOption, DataOption, JsonOption, group

app = group("Limit what volumes and accounts may hold.")

Volume = Annotated[str, typer.Argument(metavar="[VOLUME]", help="The volume's name.")]
Account = Annotated[
    str, typer.Option("--account", help="Instead of a volume: all volumes of an account together.")
]
User = Annotated[
    int | None, typer.Option("--user", min=0, help="Of the volume: the files of this user (uid).")
]
Group = Annotated[
    int | None, typer.Option("--group", min=0, help="Of the volume: the files of this group (gid).")
]
NONE = "none"  # what takes a limit away


@app.command("set")
def set_(
    volume: Volume = "",
    account: Account = "",
    user: User = None,
    group_: Group = None,
    bytes: Annotated[
        str, typer.Option("--bytes", help='Such as 100GiB; "none" takes the limit away.')
    ] = "",
    objects: Annotated[str, typer.Option("--objects", help="A number, or none.")] = "",
    soft_bytes: Annotated[
        str, typer.Option("--soft-bytes", help="Told when it is passed, not refused.")
    ] = "",
    soft_objects: Annotated[str, typer.Option("--soft-objects", help="As --soft-bytes.")] = "",
    grace: Annotated[
        str,
        typer.Option("--grace", help="How long a soft limit may be passed, such as 7d, or none."),
    ] = "",
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> int:
    """Limit a volume or an account. What is not named stays as it is."""

    def run() -> None:
        limits: dict[str, Any] = {
            "bytes": _size("--bytes", bytes),
            "objects": _count("--objects", objects),
            "soft_bytes": _size("--soft-bytes", soft_bytes),
            "soft_objects": _count("--soft-objects", soft_objects),
            "grace_s": _time(grace),
        }
        if all(each is None for each in limits.values()):
            raise InvalidArgument("which limit? --bytes, --objects, --soft-bytes, --soft-objects")
        _one(volume, account)
        owner = _owner(volume, user, group_)
        if volume:
            made = ask(config, data, "quota.set", name=volume, **owner, **limits)
        else:
            [made, *_] = ask(config, data, "quota.account.set", account=account, **limits) or [None]
        if json:
            as_json(made)
        elif made is not None and "held_bytes" in made:
            _table([made])

    return reported(run, json=json)


@app.command()
def show(
    volume: Volume = "",
    account: Account = "",
    user: User = None,
    group_: Group = None,
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> int:
    """Show every quota, or one, with what is held of it."""

    def run() -> None:
        if volume and account:
            raise InvalidArgument("a volume or --account, not both")
        owner = _owner(volume, user, group_)
        if volume:
            found = ask(config, data, "quota.show", name=volume, **owner)
            if json:
                as_json(found)
            else:
                _table([found])
            return
        every = ask(config, data, "quota.list")
        if account:
            name = account if account.startswith("account:") else f"account:{account}"
            every = [each for each in every if each["name"] == name]
            if not every:
                raise NotFound(f"{name} has no quota: `warp quota set --account` gives it one")
        if json:
            as_json(every[0] if account else every)
        else:
            _table(every)

    return reported(run, json=json)


@app.command()
def clear(
    volume: Volume = "",
    account: Account = "",
    user: User = None,
    group_: Group = None,
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> int:
    """Take all limits of a volume or an account away."""

    def run() -> None:
        _one(volume, account)
        if volume:
            gone = ask(config, data, "quota.clear", name=volume, **_owner(volume, user, group_))
        else:
            gone = {"cleared": ask(config, data, "quota.account.clear", account=account)[0]["name"]}
        if json:
            as_json(gone)
        else:
            say(f"[green]cleared[/] the quota of {gone['cleared']}")

    return reported(run, json=json)


def _one(volume: str, account: str) -> None:
    if bool(volume) == bool(account):
        raise InvalidArgument("which one? A volume, or an account with --account")


def _owner(volume: str, user: int | None, group_: int | None) -> dict[str, Any]:
    """Return the argument that names a user or group of a volume."""
    if user is None and group_ is None:
        return {}
    if not volume or (user is not None and group_ is not None):
        raise InvalidArgument("a user or a group, of one volume: VOLUME --user UID, or --group GID")
    return {"owner": f"gid:{group_}" if user is None else f"uid:{user}"}


def _size(option: str, text: str) -> int | None:
    from warp_core.config.types import Size

    if text in ("", NONE):
        return -1 if text else None
    try:
        return int(Size.parse(int(text) if text.isdigit() else text))
    except ValueError as error:
        raise InvalidArgument(f"{option} {text}: allowed: {Size.ALLOWED}, or none") from error


def _count(option: str, text: str) -> int | None:
    if text in ("", NONE):
        return -1 if text else None
    if not text.isdigit():
        raise InvalidArgument(f"{option} {text}: allowed: a whole number, or none")
    return int(text)


def _time(text: str) -> float | None:
    from warp_core.config.types import Duration

    if text in ("", NONE):
        return -1.0 if text else None
    try:
        return float(Duration.parse(text))
    except ValueError as error:
        raise InvalidArgument(f"--grace {text}: allowed: {Duration.ALLOWED}, or none") from error


def _table(found: list[dict[str, Any]]) -> None:
    rows = [
        (
            each["name"],
            bytes_text(each["held_bytes"]),
            _limit(each["bytes"], bytes_text),
            _limit(each["soft_bytes"], bytes_text),
            f"{each['held_objects']:,}",
            _limit(each["objects"], "{:,}".format),
            _limit(each["soft_objects"], "{:,}".format),
            _state(each),
        )
        for each in found
    ]
    empty = "There is no quota yet: `warp quota set VOLUME --bytes 100GiB` makes one."
    table(("of", "size", "limit", "soft", "objects", "limit", "soft", ""), rows, empty=empty)


def _limit(value: int | None, text: Any) -> str:
    return "" if value is None else str(text(value))


def _state(each: dict[str, Any]) -> str:
    if each["grace_over"]:
        return "grace time over"
    return f"above soft since {each['soft_passed_since']}" if each["soft_passed_since"] else ""
