"""`warp key`: access keys of accounts."""

from __future__ import annotations

from typing import Annotated

import typer

from warp_cli.asking import ask
from warp_cli.failing import reported
from warp_cli.output import as_json, say, table
from warp_cli.typing import ConfigOption, DataOption, JsonOption, group

app = group("Make, list and revoke access keys.")


@app.command()
def create(
    account: Annotated[str, typer.Argument(help="Whose key it will be.")] = "",
    of: Annotated[str, typer.Option("--account", help="The same, by name.")] = "",
    access_key: Annotated[str, typer.Option("--access-key", help="Default: generated.")] = "",
    secret_env: Annotated[
        str,
        typer.Option(
            "--secret-env",
            metavar="VARIABLE",
            help="Take the secret from this environment variable. Default: generated.",
        ),
    ] = "",
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> int:
    """Make an access key; its secret is shown this once."""

    def run() -> None:
        import os

        from warp_core.errors import InvalidArgument

        if bool(account) == bool(of):
            raise InvalidArgument("say once whose key it will be: `warp key create ACCOUNT`")
        secret = os.environ.get(secret_env, "") if secret_env else ""
        if secret_env and not secret:
            raise InvalidArgument(f"the environment variable {secret_env} is not set")
        made = ask(
            config, data, "key.create", account=account or of, access_key=access_key, secret=secret
        )
        if json:
            as_json(made)
            return
        print(f"access key  {made['access_key']}")
        print(f"secret key  {made['secret_key'] if not secret else '(as given)'}")
        say(f"[dim]for {made['account']}; the secret is not shown again[/]")

    return reported(run, json=json)


@app.command("list")
def list_(config: ConfigOption = None, data: DataOption = None, json: JsonOption = False) -> int:
    """List access keys and whose they are; secrets are not shown."""

    def run() -> None:
        found = ask(config, data, "key.list")
        if json:
            as_json(found)
            return
        rows = [
            (each["access_key"], each["account"], "root key" if each["root"] else "")
            for each in found
        ]
        table(("access key", "account", ""), rows)

    return reported(run, json=json)


@app.command()
def revoke(
    access_key: Annotated[str, typer.Argument(help="The key to make useless.")],
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> int:
    """Make an access key useless from now on."""

    def run() -> None:
        gone = ask(config, data, "key.revoke", access_key=access_key)
        if json:
            as_json(gone)
        else:
            say(f"[green]revoked[/] {access_key}")

    return reported(run, json=json)
