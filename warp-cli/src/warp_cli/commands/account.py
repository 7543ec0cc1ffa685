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


@app.command()
def password(
    account: Name,
    from_env: Annotated[
        str,
        typer.Option(
            "--password-env",
            metavar="VARIABLE",
            help="Take it from this environment variable. Default: asked for, or read from a pipe.",
        ),
    ] = "",
    remove: Annotated[bool, typer.Option("--remove", help="It has none any more.")] = False,
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> int:
    """Set an account's password, for protocols that ask for one."""

    def run() -> None:
        chosen = "" if remove else _password(from_env)
        done = ask(config, data, "account.password", account=account, password=chosen)
        if json:
            as_json(done)
        else:
            what = "has a password now" if done["password"] else "has no password any more"
            say(f"[green]{done['account']}[/] {what}")

    return reported(run, json=json)


ssh_keys = group("Public SSH keys of accounts: for SFTP.")
app.add_typer(ssh_keys, name="ssh-key")


@ssh_keys.command()
def add(
    account: Name,
    key: Annotated[
        str,
        typer.Argument(help="A file such as ~/.ssh/id_ed25519.pub, its line, or - for a pipe."),
    ],
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> int:
    """Let the holder of a key log in as an account."""

    def run() -> None:
        _tell(ask(config, data, "account.ssh-key.add", account=account, key=_line(key)), json=json)

    return reported(run, json=json)


@ssh_keys.command("list")
def list_keys(
    account: Name, config: ConfigOption = None, data: DataOption = None, json: JsonOption = False
) -> int:
    """List an account's public keys."""

    def run() -> None:
        found = ask(config, data, "account.ssh-key.list", account=account)
        if json:
            as_json(found)
            return
        rows = [
            (each["fingerprint"], each["kind"], each["comment"], each["added"]) for each in found
        ]
        table(("fingerprint", "kind", "comment", "added"), rows)

    return reported(run, json=json)


@ssh_keys.command("remove")
def remove_key(
    account: Name,
    key: Annotated[str, typer.Argument(help="Its fingerprint, or its comment.")],
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> int:
    """Take a public key from an account: who holds it cannot log in any more."""

    def run() -> None:
        gone = ask(config, data, "account.ssh-key.remove", account=account, key=key)
        if json:
            as_json(gone)
        else:
            say(f"[green]removed[/] {gone['fingerprint']}")

    return reported(run, json=json)


def _password(variable: str) -> str:
    """Return the password that is to be.

    Raises:
        InvalidArgument: There is none.
    """
    import os
    import sys

    from warp_core.errors import InvalidArgument

    if variable:
        chosen = os.environ.get(variable, "")
        if not chosen:
            raise InvalidArgument(f"the environment variable {variable} is not set")
        return chosen
    if sys.stdin.isatty():
        chosen = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    else:
        chosen = sys.stdin.readline().rstrip("\n")
    if not chosen:
        raise InvalidArgument("no password was given: --remove takes one away")
    return chosen


def _line(key: str) -> str:
    """Return the line of a public key that an argument means.

    Raises:
        InvalidArgument: The file cannot be read.
    """
    import sys
    from pathlib import Path

    from warp_core.errors import InvalidArgument

    if key == "-":
        return sys.stdin.readline()
    if " " in key.strip():
        return key
    try:
        return Path(key).expanduser().read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"cannot read {key}: {error}") from None


def _tell(found: dict[str, Any], *, json: bool) -> None:
    if json:
        as_json(found)
        return
    for key, value in found.items():
        shown = ", ".join(value) if isinstance(value, list) else str(value)
        print(f"{key.replace('_', ' '):<14}{shown}")
