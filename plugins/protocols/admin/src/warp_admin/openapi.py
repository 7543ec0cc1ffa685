"""The OpenAPI 3.1 document, made of the routes and the structs that verbs take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from warp_core import __version__

from warp_admin.problems import MEDIA_TYPE
from warp_admin.routes import Route

_REF: Final = "#/components/schemas/{name}"
JSON_LINES: Final = "application/jsonl"
EVENTS: Final = "text/event-stream"

_ABOUT: Final = """\
Everything that the command `warp` asks a running node, over HTTP. Paths follow from the names of verbs; errors are problem documents \
(RFC 9457) whose `kind` is a class of WARP's errors.

Work that takes long (`scrub`, `heal`, `fsck`, removing snapshots) can tell of its progress: ask with `Accept: application/jsonl` or \
`Accept: text/event-stream`. Closing the connection cancels it.

A token: `warp admin token create --role viewer|operator|admin`. Each role may do what those before it may."""

PROBLEM: Final[Mapping[str, Any]] = {
    "type": "object",
    "required": ["type", "title", "status", "kind", "detail"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "kind": {"type": "string", "description": "for programs: a class of `warp_core.errors`"},
        "detail": {"type": "string", "description": "for people: what is wrong, and what to do"},
    },
}


def document(
    routes: Sequence[Route], *, secured: bool, open_metrics: bool = False
) -> dict[str, Any]:
    """Return the document.

    Args:
        routes: Of every verb.
        secured: Whether a token or a certificate is needed.
        open_metrics: Not for metrics.
    """
    structs = list(dict.fromkeys(route.arguments for route in routes))
    references, components = msgspec.json.schema_components(structs, ref_template=_REF)
    schemas = {
        struct: components[reference["$ref"].rpartition("/")[2]]
        for struct, reference in zip(structs, references, strict=True)
    }
    used = {reference["$ref"].rpartition("/")[2] for reference in references}
    paths: dict[str, Any] = {}
    for route in routes:
        operation = _operation(route, schemas[route.arguments], secured=secured)
        paths.setdefault(route.path, {})[route.method.lower()] = operation
    for path, operation in _OWN.items():
        paths[path] = {"get": operation}
    paths["/metrics"] = {"get": _metrics(secured=secured and not open_metrics)}
    kept = {name: schema for name, schema in components.items() if name not in used}
    made: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "WARP admin API", "version": __version__, "description": _ABOUT},
        "paths": paths,
        "components": {"schemas": {"Problem": dict(PROBLEM), **kept}},
    }
    if secured:
        made["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    return made


def _operation(route: Route, schema: Mapping[str, Any], *, secured: bool) -> dict[str, Any]:
    properties = schema.get("properties", {})
    required = set(schema.get("required", ()))
    parameters = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {**properties[name], "minLength": 1},
        }
        for name in route.named
    ]
    operation: dict[str, Any] = {
        "operationId": route.verb.replace(".", "_"),
        "summary": route.summary,
        "tags": [route.noun],
        "x-warp-verb": route.verb,
        "x-warp-role": route.role.name.lower(),
    }
    about = schema.get("description", "")
    if about and route.others:
        operation["description"] = about
    if route.queried:
        parameters += [
            {
                "name": name,
                "in": "query",
                "required": name in required,
                "schema": _plain(properties[name]),
            }
            for name in route.others
        ]
    else:
        body: dict[str, Any] = {
            "type": "object",
            "properties": {name: properties[name] for name in route.others},
            "additionalProperties": False,
        }
        needed = [name for name in route.others if name in required]
        if needed:
            body["required"] = needed
        operation["requestBody"] = {
            "required": bool(needed),
            "content": {"application/json": {"schema": body}},
        }
    if parameters:
        operation["parameters"] = parameters
    answer: dict[str, Any] = {"application/json": {}}
    if route.long:
        answer[JSON_LINES] = {"schema": {"type": "string"}}
        answer[EVENTS] = {"schema": {"type": "string"}}
    operation["responses"] = {
        str(route.status): {
            "description": "done",
            "content": answer,
        },
        "4XX": {"description": "refused", "content": _PROBLEM},
        "5XX": {"description": "failed", "content": _PROBLEM},
    }
    if secured:
        operation["responses"]["401"] = {"description": "not known", "content": _PROBLEM}
        operation["security"] = [{"token": []}]
    return operation


def _plain(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of a value that a query can carry: there is no null in it, what is not said is not there."""
    branches = [each for each in schema.get("anyOf", ()) if each.get("type") != "null"]
    made = {key: value for key, value in schema.items() if key != "anyOf"}
    if made.get("default", 0) is None:
        del made["default"]
    if len(branches) == 1:
        made.update(branches[0])
    elif branches:
        made["anyOf"] = branches
    return made


def _text(summary: str, kind: str, *, unwell: bool = False, tag: str = "node") -> dict[str, Any]:
    responses: dict[str, Any] = {"200": {"description": "well", "content": {kind: {}}}}
    if unwell:
        responses["503"] = {"description": "not now", "content": {kind: {}}}
    return {
        "operationId": summary.split(":")[0].replace(" ", "_"),
        "summary": summary,
        "tags": [tag],
        "security": [],
        "responses": responses,
    }


_PROBLEM: Final[Mapping[str, Any]] = {MEDIA_TYPE: {"schema": {"$ref": _REF.format(name="Problem")}}}
_METRICS: Final[Mapping[str, Any]] = {
    **_text("metrics as Prometheus reads them", "text/plain", tag="metrics"),
    "operationId": "prometheus",
}


def _metrics(*, secured: bool) -> dict[str, Any]:
    if not secured:
        return dict(_METRICS)
    responses = {
        **_METRICS["responses"],
        "401": {"description": "not known", "content": _PROBLEM},
        "4XX": {"description": "refused", "content": _PROBLEM},
    }
    return {
        **_METRICS,
        "security": [{"token": []}],
        "x-warp-role": "viewer",
        "responses": responses,
    }


_OWN: Final[Mapping[str, Any]] = {
    "/healthz": _text("alive: the process answers", "application/json"),
    "/readyz": _text("ready: metadata answers, and writes go on", "application/json", unwell=True),
}
