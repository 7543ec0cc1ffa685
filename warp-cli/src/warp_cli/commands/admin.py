"""`warp admin`: tokens for the admin API."""

from __future__ import annotations

from typing import Annotated

import typer

from warp_cli.asking import ask
from warp_cli.failing import reported
from warp_cli.output import as_json, minute, say, table
from warp_cli.typing import ConfigOption, DataOption, JsonOption, group

app = group("Make, list and revoke tokens for the admin API.")
token = group("Make, list and revoke tokens for the admin API.")
app.add_typer(token, name="token")

FOR_EVER = "never"


@token.command()
def create(
    name: Annotated[str, typer.Argument(help="What it is for, in words.")] = "",
    role: Annotated[
        str,
        typer.Option(
            "--role",
            help="viewer looks; operator also changes volumes, disks and quotas, and repairs; admin may do everything.",
        ),
    ] = "viewer",
    expires: Annotated[
        str, typer.Option("--expires", help='How long it is good, such as 12h or 30d; or "never".')
    ] = "30d",
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> int:
    """Make a token; it is shown this once."""

    def run() -> None:
        made = ask(
            config,
            data,
            "admin.token.create",
            name=name,
            role=role,
            expires_s=0.0 if expires == FOR_EVER else _seconds(expires, "--expires"),
        )
        if json:
            as_json(made)
            return
        print(f"token    {made['token']}")
        print(f"id       {made['id']}")
        print(f"role     {made['role']}")
        print(f"expires  {minute(made['expires']) if made['expires'] else FOR_EVER}")
        say("[dim]it is not shown again; send it as `Authorization: Bearer TOKEN`[/]")

    return reported(run, json=json)


@token.command("list")
def list_(config: ConfigOption = None, data: DataOption = None, json: JsonOption = False) -> int:
    """List tokens; what they are is not shown."""

    def run() -> None:
        found = ask(config, data, "admin.token.list")
        if json:
            as_json(found)
            return
        rows = [
            (
                each["id"],
                each["name"],
                each["role"],
                minute(each["created"]),
                "expired"
                if each["expired"]
                else minute(each["expires"])
                if each["expires"]
                else FOR_EVER,
            )
            for each in found
        ]
        table(
            ("id", "name", "role", "created", "expires"),
            rows,
            empty="no tokens: `warp admin token create` makes one",
        )

    return reported(run, json=json)


@token.command()
def revoke(
    id: Annotated[str, typer.Argument(help="The token's id, as the list shows it.")],
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> int:
    """Make a token useless from now on."""

    def run() -> None:
        gone = ask(config, data, "admin.token.revoke", id=id)
        if json:
            as_json(gone)
        else:
            say(f"[green]revoked[/] {id}")

    return reported(run, json=json)


def _seconds(text: str, option: str) -> float:
    from warp_core.config import Duration
    from warp_core.errors import InvalidArgument

    try:
        return float(Duration.parse(text))
    except ValueError:
        raise InvalidArgument(f'{option} {text}: allowed: {Duration.ALLOWED}, or "never"') from None
