"""`[[account]]` tables: who is described by the file."""

from __future__ import annotations

from pathlib import Path

import pytest
from warp_core.config.load import load
from warp_core.config.show import effective
from warp_core.errors import ConfigError
from warp_core.interfaces.accounts import made_id
from warp_core.plugins import Plugins

pytestmark = pytest.mark.workspace

HEAD = "[protocols.s3]\n"


def loaded(folder: Path, text: str):
    file = folder / "warp.toml"
    file.write_text(HEAD + text)
    return load(file, catalog=Plugins(), environ={})


def test_accounts_have_what_the_file_says_and_else_what_follows_from_their_name(
    tmp_path: Path,
) -> None:
    settings = loaded(
        tmp_path,
        '[[account]]\nname = "main"\nemail = "m@x.org"\n'
        'keys = [{ access_key = "MAINKEY", secret = "main-secret" }]\n[[account]]\nname = "alt"\n',
    )
    main, alt = settings.accounts

    assert main.account().email == "m@x.org"
    assert main.keys[0].secret == "main-secret"
    assert alt.account().canonical_id == made_id("account:alt")
    shown = {each.key: each.value for each in effective(settings)}
    assert shown["account[0].keys[0].secret"] == "***"
    assert "main-secret" not in str(shown)


@pytest.mark.parametrize(
    ("text", "where", "says"),
    [
        ('[[account]]\nname = "a b"\n', ":3", "name"),
        ('[[account]]\nname = "a"\nemail = "nobody"\n', "warp.toml", "e-mail"),
        ('[[account]]\nname = "a"\nnumber = "12"\n', "warp.toml", "12 digits"),
        ('[[account]]\nname = "a"\n[[account]]\nname = "a"\n', ":5", "taken"),
        (
            '[[account]]\nname = "a"\nnumber = "123456789012"\n'
            '[[account]]\nname = "b"\nnumber = "123456789012"\n',
            ":5",
            "account number",
        ),
        (
            '[[account]]\nname = "a"\nkeys = [{access_key="KEY", secret="12345678x"}]\n'
            '[[account]]\nname = "b"\nkeys = [{access_key="KEY", secret="12345678x"}]\n',
            ":",
            "access key of another",
        ),
    ],
)
def test_a_wrong_account_is_told_with_its_line(
    tmp_path: Path, text: str, where: str, says: str
) -> None:
    with pytest.raises(ConfigError, match=says) as raised:
        loaded(tmp_path, text)

    assert where in str(raised.value)
