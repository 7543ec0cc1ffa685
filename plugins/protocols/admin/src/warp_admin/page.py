"""The docs page: the OpenAPI document as one page for people, without scripts and without anything from elsewhere."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator, Mapping
from hashlib import sha256
from html import escape
from pathlib import Path
from typing import Any, Final

STYLE: Final = Path(__file__).with_name("page.css").read_text()

POLICY: Final = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; style-src 'sha256-"
    + b64encode(sha256(STYLE.encode()).digest()).decode()
    + "'"
)
"""Content-Security-Policy: this style, and nothing else."""


def page(document: Mapping[str, Any], *, curl: str) -> bytes:
    """Return the page.

    Args:
        document: Of OpenAPI.
        curl: How `curl` reaches this server, up to the path.
    """
    groups: dict[str, list[tuple[str, str, Mapping[str, Any]]]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            tag = operation["tags"][0].partition(".")[0]
            groups.setdefault(tag, []).append((method.upper(), path, operation))
    info = document["info"]
    links = "".join(f'<a href="#{escape(tag)}">{escape(tag)}</a>' for tag in groups)
    about = "".join(f"<p>{_words(part)}</p>" for part in info["description"].split("\n\n"))
    parts = "".join(
        f'<section id="{escape(tag)}"><h2>{escape(tag)}</h2>'
        + "".join(_operation(*each, curl=curl) for each in operations)
        + "</section>"
        for tag, operations in groups.items()
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(info['title'])}</title><style>{STYLE}</style></head><body><div class=page>"
        f"<nav><b>{escape(info['title'])}</b>{links}<p><a href=/openapi.json>openapi.json</a></p></nav>"
        f"<main><h1>{escape(info['title'])} <small>{escape(info['version'])}</small></h1>{about}"
        f"{parts}</main></div></body></html>\n"
    ).encode()


def _operation(method: str, path: str, operation: Mapping[str, Any], *, curl: str) -> str:
    fields = [*_fields(operation)]
    rows = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td>{where}</td><td>{escape(kind)}</td><td>{escape(default)}</td></tr>"
        for name, where, kind, default in fields
    )
    table = f"<table><tr><th>name<th>in<th>type<th>default</tr>{rows}</table>" if rows else ""
    role = operation.get("x-warp-role", "")
    tags = f"<span class=tag>{escape(role)}</span>" if role else "<span class=tag>open</span>"
    described = operation.get("description", "")
    return (
        f'<details id="{escape(operation["operationId"])}"><summary><span class="m {method}">{method}</span>'
        f"<span class=p>{escape(path)}</span><span class=w>{escape(operation['summary'].rstrip('.'))}</span>{tags}</summary>"
        f"<div class=body>{f'<p>{_words(described)}</p>' if described else ''}{table}"
        f"<pre>{escape(_example(method, path, operation, curl))}</pre></div></details>"
    )


def _fields(operation: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    for each in operation.get("parameters", ()):
        schema = each["schema"]
        yield each["name"], each["in"], _kind(schema), _default(schema, required=each["required"])
    body = _body(operation)
    for name, schema in body.get("properties", {}).items():
        yield (
            name,
            "body",
            _kind(schema),
            _default(schema, required=name in body.get("required", ())),
        )


def _body(operation: Mapping[str, Any]) -> Mapping[str, Any]:
    content = operation.get("requestBody", {}).get("content", {})
    found: Mapping[str, Any] = content.get("application/json", {}).get("schema", {})
    return found


def _kind(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return " | ".join(json.dumps(each) for each in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(_kind(each) for each in schema["anyOf"])
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    return str(schema.get("type", "any"))


def _default(schema: Mapping[str, Any], *, required: bool) -> str:
    return "required" if required else json.dumps(schema["default"]) if "default" in schema else ""


def _example(method: str, path: str, operation: Mapping[str, Any], curl: str) -> str:
    shown = path
    for each in operation.get("parameters", ()):
        if each["in"] == "path":
            shown = shown.replace(f"{{{each['name']}}}", each["name"].upper())
    words = ["curl", *([] if method == "GET" else [f"-X {method}"])]
    if operation.get("security"):
        words.append("-H 'Authorization: Bearer TOKEN'")
    body = _body(operation)
    needed = {name: _sample(name, body["properties"][name]) for name in body.get("required", ())}
    if needed:
        words.append(f"--json '{json.dumps(needed)}'")
    return " ".join((*words, curl + shown))


def _sample(name: str, schema: Mapping[str, Any]) -> object:
    kind = schema.get("type")
    return {} if kind == "object" else 0 if kind in ("integer", "number") else name.upper()


def _words(text: str) -> str:
    """Return text with what stands between backquotes as code."""
    parts = escape(text, quote=False).split("`")
    return "".join(
        f"<code>{part}</code>" if index % 2 else part for index, part in enumerate(parts)
    )
