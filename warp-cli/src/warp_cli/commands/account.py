"""`warp account`: who there is, and what others see of them."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from warp_cli.asking import ask
from warp_cli.failing import reported
from warp_cli.output import as_json, say, table
from warp_cli.typing import ConfigOption, DataOption, JsonOption, group

app = group("Make, list, change and remove accounts.")

Name = Annotated[str, typer.Argument(metavar="ACCOUNT", help="Its name.")]
CanonicalId = Annotated[
    str | None,
    typer.Option("--canonical-id", help="Owner and grantee in S3. Default: made of the name."),
]
Number = Annotated[
    str | None,
    typer.Option("--number", help="12 digits, the account of an ARN. Default: made of the name."),
]
Display = Annotated[str | None, typer.Option("--display", help="Name shown to people.")]
Email = Annotated[str | None, typer.Option("--email", help="Address that ACLs may name it by.")]


@app.command()
def create(
    account: Name,
    canonical_id: CanonicalId = None,
    number: Number = None,
    display: Display = None,
    email: Email = None,
    admin: Annotated[bool, typer.Option("--admin", help="It may do everything.")] = False,
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> int:
    """Make an account; `warp key create` gives it keys."""

    def run() -> None:
        made = ask(
            config,
            data,
            "account.create",
            account=account,
            canonical_id=canonical_id,
            number=number,
            display=display,
            email=email,
            admin=admin,
        )
        _tell(made, json=json)

    return reported(run, json=json)


@app.command("list")
def list_(config: ConfigOption = None, data: DataOption = None, json: JsonOption = False) -> int:
    """List accounts."""

    def run() -> None:
        found = ask(config, data, "account.list")
        if json:
            as_json(found)
            return
        rows = [
            (
                each["account"],
                each["display"],
                each["email"],
                each["number"],
                str(each["keys"]),
                " ".join(word for word in ("admin", "declared") if each[word]),
            )
            for each in found
        ]
        table(("account", "display", "e-mail", "number", "keys", ""), rows)

    return reported(run, json=json)


@app.command()
def show(
    account: Name, config: ConfigOption = None, data: DataOption = None, json: JsonOption = False
) -> int:
    """Show an account, with its access keys."""

    def run() -> None:
        _tell(ask(config, data, "account.show", account=account), json=json)

    return reported(run, json=json)


@app.command("set")
def set_(
    account: Name,
    canonical_id: CanonicalId = None,
    number: Number = None,
    display: Display = None,
    email: Email = None,
    admin: Annotated[
        bool | None, typer.Option("--admin/--no-admin", help="Whether it may do everything.")
    ] = None,
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> int:
    """Change what others see of an account."""

    def run() -> None:
        made = ask(
            config,
            data,
            "account.set",
            account=account,
            canonical_id=canonical_id,
            number=number,
            display=display,
            email=email,
            admin=admin,
        )
        _tell(made, json=json)

    return reported(run, json=json)


@app.command()
def delete(
    account: Name, config: ConfigOption = None, data: DataOption = None, json: JsonOption = False
) -> int:
    """Forget an account that has no keys; what it owns stays its own."""

    def run() -> None:
        gone = ask(config, data, "account.delete", account=account)
        if json:
            as_json(gone)
        else:
            say(f"[green]deleted[/] {gone['deleted']}")

    return reported(run, json=json)


def _tell(found: dict[str, Any], *, json: bool) -> None:
    if json:
        as_json(found)
        return
    for key, value in found.items():
        shown = ", ".join(value) if isinstance(value, list) else str(value)
        print(f"{key.replace('_', ' '):<14}{shown}")
