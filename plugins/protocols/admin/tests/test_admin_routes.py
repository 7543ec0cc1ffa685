"""Where verbs are: by their names and arguments, without a list."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from warp_admin import openapi, page
from warp_admin.routes import Route, Table, plural, routes_of, split_path
from warp_core.node.control import Nothing, Progress, Role, Verb
from warp_core.node.members import routed
from warp_core.node.verbs import VERBS

ROUTES = routes_of(VERBS)
PLACES = {route.verb: f"{route.method} {route.path}" for route in ROUTES}


@pytest.mark.parametrize(
    ("verb", "place"),
    [
        ("status", "GET /v1/status"),
        ("scrub", "POST /v1/scrub"),
        ("volume.list", "GET /v1/volumes"),
        ("volume.create", "POST /v1/volumes"),
        ("volume.show", "GET /v1/volumes/{name}"),
        ("volume.set", "PATCH /v1/volumes/{name}"),
        ("volume.delete", "DELETE /v1/volumes/{name}"),
        ("volume.rollback", "POST /v1/volumes/{name}/rollback"),
        ("snapshot.delete", "DELETE /v1/snapshots/{name}/{snapshot}"),
        ("disk.show", "GET /v1/disks/{volume}/{path}"),
        ("disk.clone", "POST /v1/disks/{volume}/{path}/clone"),
        ("disk.create", "POST /v1/disks"),
        ("key.revoke", "DELETE /v1/keys/{access_key}"),
        ("kms.rotate", "POST /v1/kms/rotate"),
        ("quota.account.clear", "DELETE /v1/quota/accounts/{account}"),
        ("events.status", "GET /v1/events/status"),
        ("admin.token.create", "POST /v1/admin/tokens"),
        ("audit.entry.verify", "GET /v1/audit/entries/verify"),
    ],
)
def test_a_verb_is_where_its_name_says(verb: str, place: str) -> None:
    assert PLACES[verb] == place


@pytest.mark.parametrize("verbs", [VERBS, routed(VERBS)], ids=["alone", "in a cluster"])
def test_every_verb_has_a_place_of_its_own(verbs: dict[str, Verb[object]]) -> None:
    routes = routes_of(verbs)
    table = Table(routes)  # raises where two share one

    for route in routes:
        values = [f"/{name}é" for name in route.named]
        segments = [f"/{s[1:-1]}é" if s.startswith("{") else s for s in route.segments]
        methods, found = table.find(segments)
        assert methods[route.method] is route
        assert found == values
    assert {route.verb for route in routes} == set(verbs)


async def unknown(node: object, arguments: Nothing, progress: Progress) -> object:
    """Do something that nobody said anything about."""
    return None


def test_a_new_verb_appears_by_itself_for_administrators_only() -> None:
    [route] = routes_of({"tape.rewind": Verb(Nothing, unknown)})
    document = openapi.document([route], secured=True)
    operation = document["paths"]["/v1/tapes/rewind"]["post"]

    assert (route.role, route.reads) == (Role.ADMIN, False)
    assert operation["x-warp-role"] == "admin"
    assert operation["security"]
    assert b"/v1/tapes/rewind" in page.page(document, curl="http://node")
    assert b"Do something that nobody said anything about" in page.page(document, curl="")


def test_viewers_only_look() -> None:
    assert all(route.reads for route in ROUTES if route.role is Role.VIEWER)
    assert {r.verb for r in ROUTES if r.method == "GET" and not r.reads} == set()
    for verb in ("account.create", "key.create", "key.revoke", "kms.disable", "admin.token.list"):
        assert next(r for r in ROUTES if r.verb == verb).role is Role.ADMIN


class OneBox(msgspec.Struct, frozen=True):
    """A box."""

    box: str


WORDS = st.sampled_from(
    ["list", "create", "add", "show", "set", "delete", "remove", "revoke", "go", "box"]
)


@given(st.lists(st.tuples(st.lists(WORDS, min_size=1, max_size=4), st.booleans()), max_size=40))
def test_whatever_verbs_are_called_each_has_a_place_of_its_own(
    drawn: list[tuple[list[str], bool]],
) -> None:
    verbs = {".".join(words): Verb(OneBox if named else Nothing, unknown) for words, named in drawn}
    routes = routes_of(verbs)

    Table(routes)
    assert [route.verb for route in routes] == list(verbs)
    openapi.document(routes, secured=True)


def test_of_two_words_for_removing_the_second_is_an_action() -> None:
    verbs = {f"box.{word}": Verb(OneBox, unknown) for word in ("revoke", "remove")}

    assert {route.verb: f"{route.method} {route.path}" for route in routes_of(verbs)} == {
        "box.remove": "DELETE /v1/boxes/{box}",
        "box.revoke": "POST /v1/boxes/{box}/revoke",
    }


def test_two_verbs_at_one_place_are_an_error() -> None:
    class Other(Nothing):
        """Nothing as well."""

    routes = routes_of({"box.list": Verb(Nothing, unknown)})
    with pytest.raises(ValueError, match=r"both box\.list and box\.list"):
        Table([*routes, *routes])


@pytest.mark.parametrize(
    ("noun", "nouns"),
    [("volume", "volumes"), ("kms", "kms"), ("key", "keys"), ("entry", "entries")],
)
def test_collections_have_plural_names(noun: str, nouns: str) -> None:
    assert plural(noun) == nouns


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=40))
def test_any_path_is_split_or_refused(path: str) -> None:
    try:
        segments = split_path("/" + path)
    except ValueError:
        return
    methods, values = Table(ROUTES).find(segments)
    assert all(isinstance(each, Route) for each in methods.values())
    assert all(values)


def test_the_document_says_of_each_verb_what_it_takes() -> None:
    document = openapi.document(ROUTES, secured=True)
    found = {
        (method, path)
        for path, methods in document["paths"].items()
        for method in methods
        if path.startswith("/v1/")
    }

    assert found == {(route.method.lower(), route.path) for route in ROUTES}
    disk = document["paths"]["/v1/disks/{volume}/{path}"]["delete"]
    assert [(each["name"], each["in"]) for each in disk["parameters"]] == [
        ("volume", "path"),
        ("path", "path"),
        ("snapshot", "query"),
    ]
    made = document["paths"]["/v1/volumes"]["post"]["requestBody"]["content"]["application/json"]
    assert made["schema"]["required"] == ["name"]
    assert made["schema"]["additionalProperties"] is False


def test_the_page_needs_nothing_from_elsewhere() -> None:
    text = page.page(openapi.document(ROUTES, secured=True), curl="https://node:1").decode()

    assert "<script" not in text
    assert "src=" not in text
    assert "@import" not in text
    assert "url(" not in text
    for route in ROUTES:
        assert route.path in text
