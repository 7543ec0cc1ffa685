"""Positions: every key of a document has the line that it stands on."""

from __future__ import annotations

import tomli
from hypothesis import given
from hypothesis import strategies as st
from warp_core.config.positions import Path, positions

DOCUMENT = '''# comment with [brackets] = and "quotes"
title = "x"   # line 2

[node]
"name" = 'a'
limits.open = 5
text = """
[not.a.table]
key = 1 \\""" """""
after = 1

[[store]]
kind = "disk"
[[store]]
kind = "disk"
tags = [
  "a",   # 17
  { x = 1, y = [2, 3] },
]
[store.deep]
z = 1
[protocols."s3.v4"]
listen = "127.0.0.1:9000"
inline = { a = 1, b.c = 2 }
'''


def test_every_key_has_its_line() -> None:
    lines = positions(DOCUMENT)

    assert lines["title",] == 2
    assert lines["node",] == 4
    assert lines["node", "name"] == 5
    assert lines["node", "limits", "open"] == 6
    assert lines["node", "text"] == 7
    assert lines["node", "after"] == 10
    assert lines["store", 0] == 12
    assert lines["store", 0, "kind"] == 13
    assert lines["store", 1, "kind"] == 15
    assert lines["store", 1, "tags", 0] == 17
    assert lines["store", 1, "tags", 1, "y", 1] == 18
    assert lines["store", 1, "deep", "z"] == 21
    assert lines["protocols", "s3.v4", "listen"] == 23
    assert lines["protocols", "s3.v4", "inline", "b", "c"] == 24
    assert "not" not in {path[0] for path in lines}


def test_windows_line_ends_count_once() -> None:
    assert positions("a = 1\r\nb = 2\r\n")["b",] == 2


KEYS = st.sampled_from(["a", "b-c", "_9", '"x.y"', "'q\"'", '"\\u00e9\\n"'])
VALUES = st.recursive(
    st.sampled_from(
        [
            "1",
            "-2.5e3",
            "true",
            '"s"',
            "'l'",
            '"""m\n"q" \\""""',
            "'''n\n'''",
            "1979-05-27T07:32:00Z",
        ]
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: "[\n" + ",\n".join(items) + " # c\n]"),
        st.lists(inner, max_size=2).map(lambda items: "[" + ", ".join(items) + "]"),
        inner.map(lambda item: "{ k = " + item.replace("\n", " ").replace("# c", "") + " }"),
    ),
    max_leaves=4,
)


@given(st.lists(st.tuples(st.sampled_from(["", "[t{}]\n", "[[r]]\n"]), KEYS, VALUES), max_size=8))
def test_every_path_of_the_parsed_document_has_a_line(parts: list[tuple[str, str, str]]) -> None:
    text = ""
    for number, (header, key, value) in enumerate(parts):
        unique = key[:-1] + f"{number}" + key[-1] if key[-1] in "\"'" else f"{key}{number}"
        text += header.format(number) + f"{unique} = {value}\n"
    try:
        document = tomli.loads(text)
    except tomli.TOMLDecodeError:
        return

    assert set(positions(text)) == set(paths(document, ()))


def paths(value: object, path: Path) -> list[Path]:
    own = [path] if path else []
    if isinstance(value, dict):
        return own + [deep for key, item in value.items() for deep in paths(item, (*path, key))]
    if isinstance(value, list):
        return own + [
            deep for index, item in enumerate(value) for deep in paths(item, (*path, index))
        ]
    return own
