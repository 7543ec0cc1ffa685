"""The help of every command: options that all take, examples, and how it fits a terminal."""

from __future__ import annotations

import contextlib
import io
import os
import re
from unittest import mock

import pytest
from warp_cli.main import main
from warp_cli.table import COMMANDS, EXAMPLES
from warp_cli.typing import command_of, walked

EVERY = dict(each for name in COMMANDS for each in walked(name, command_of(name)))
RUN = {words: each for words, each in EVERY.items() if not hasattr(each, "commands")}


def help_of(*words: str) -> str:
    out = io.StringIO()
    with mock.patch.dict(os.environ, {"COLUMNS": "80"}), contextlib.redirect_stdout(out):
        assert main([*words, "--help"]) == 0
    return out.getvalue()


@pytest.mark.parametrize("words", RUN)
def test_every_command_takes_json_config_and_data(words: str) -> None:
    options = {option for each in RUN[words].params for option in each.opts}

    assert {"--json", "--config", "--data"} <= options


def test_every_command_has_examples_that_its_help_shows() -> None:
    assert EXAMPLES.keys() == RUN.keys()
    for words, examples in EXAMPLES.items():
        out = help_of(*words.split())
        for example in examples:
            # `at` is what `warp mount` means with two words.
            assert example.startswith(f"warp {words.removesuffix(' at')}")
            assert example in re.sub(r"\s+", " ", out), f"{example} is broken in\n{out}"


def test_help_fits_80_columns_and_fills_its_lines() -> None:
    assert max(map(len, help_of().splitlines())) <= 80
    for words, each in EVERY.items():
        out = help_of(*words.split())
        assert max(map(len, out.splitlines())) <= 80, words
        assert "<bool>" not in out, "a switch that looks as if it took a value"
        for paragraph in (each.help or "").split("\n\n"):
            assert "\n" not in paragraph.strip(), f"{words}: a paragraph that is cut by hand"
