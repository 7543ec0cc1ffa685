"""Cross-origin resource sharing: which pages of which origins may read answers. Pure.

Source: the Fetch standard, "CORS protocol", and "Using cross-origin resource sharing" in the Amazon S3 user guide.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Final
from xml.etree.ElementTree import Element

import msgspec

from warp_s3.access.conditions import like
from warp_s3.errors import S3Error
from warp_s3.xml_input import parse
from warp_s3.xml_output import document, escape

CORS: Final = "s3.cors"
"""Name of the volume's document: JSON of a list of rules."""

RULES_MAX: Final = 100
"""Rules of a bucket; S3's own figure."""

ORIGIN_MAX: Final = 1024
"""Characters of an Origin header that rules are tried on."""

METHODS: Final = ("GET", "PUT", "POST", "DELETE", "HEAD")
VARY: Final = "Origin, Access-Control-Request-Headers, Access-Control-Request-Method"


class Rule(msgspec.Struct, frozen=True, omit_defaults=True):
    """One rule; origins and headers have at most one `*` each."""

    origins: tuple[str, ...]
    methods: tuple[str, ...]
    headers: tuple[str, ...] = ()
    exposed: tuple[str, ...] = ()
    max_age_s: int | None = None
    id: str = ""

    def origin(self, origin: str) -> str | None:
        """Return what Access-Control-Allow-Origin says to a page of `origin`, None if it is not meant."""
        for pattern in self.origins:
            if pattern == "*":
                return "*"
            if like(pattern, origin):
                return origin
        return None

    def takes(self, header: str) -> bool:
        """Say whether a page may send a header."""
        return any(like(pattern.lower(), header.lower()) for pattern in self.headers)


@lru_cache(maxsize=256)
def rules_of(kept: bytes) -> tuple[Rule, ...]:
    """Read a bucket's document."""
    return msgspec.json.decode(kept, type=tuple[Rule, ...])


def answer_headers(
    rules: Sequence[Rule], origin: str, method: str, asked: Sequence[str] = ()
) -> list[tuple[str, str]] | None:
    """Return the headers of an answer, None if no rule fits.

    Args:
        rules: The bucket's; the first that fits counts.
        origin: What the Origin header says.
        method: The method of the request, or the one that a preflight asks for.
        asked: Headers that a preflight asks for.
    """
    if len(origin) > ORIGIN_MAX:
        return None
    for rule in rules:
        said = rule.origin(origin)
        if said is None or method not in rule.methods or not all(map(rule.takes, asked)):
            continue
        found = [
            ("Access-Control-Allow-Origin", said),
            ("Access-Control-Allow-Methods", ", ".join(rule.methods)),
        ]
        if asked:
            found.append(("Access-Control-Allow-Headers", ", ".join(asked).lower()))
        if rule.exposed:
            found.append(("Access-Control-Expose-Headers", ", ".join(rule.exposed)))
        if rule.max_age_s is not None:
            found.append(("Access-Control-Max-Age", str(rule.max_age_s)))
        if said != "*":
            found.append(("Access-Control-Allow-Credentials", "true"))
        return [*found, ("Vary", VARY)]
    return None


def from_xml(body: bytes) -> bytes:
    """Read a CORSConfiguration document into the form it is kept in.

    Raises:
        S3Error: `MalformedXML` or `InvalidRequest`.
    """
    found: list[Rule] = []
    for element in parse(body, "CORSConfiguration").findall("CORSRule"):

        def texts(name: str, element: Element = element) -> tuple[str, ...]:
            return tuple((one.text or "").strip() for one in element.findall(name))

        age = element.findtext("MaxAgeSeconds")
        if age is not None and not (
            age.strip().isascii() and age.strip().isdigit() and len(age) < 10
        ):
            raise S3Error("MalformedXML")
        rule = Rule(
            texts("AllowedOrigin"),
            texts("AllowedMethod"),
            texts("AllowedHeader"),
            texts("ExposeHeader"),
            None if age is None else int(age),
            element.findtext("ID", ""),
        )
        _check(rule)
        found.append(rule)
    if not found:
        raise S3Error("MalformedXML")
    if len(found) > RULES_MAX:
        raise S3Error("InvalidRequest", f"More than {RULES_MAX} CORS rules")
    return msgspec.json.encode(found)


def to_xml(rules: Sequence[Rule]) -> bytes:
    """Write a CORSConfiguration document."""

    def elements(name: str, values: Sequence[str]) -> str:
        return "".join([f"<{name}>{escape(value)}</{name}>" for value in values])

    rows = [
        "<CORSRule>"
        + (f"<ID>{escape(rule.id)}</ID>" if rule.id else "")
        + elements("AllowedOrigin", rule.origins)
        + elements("AllowedMethod", rule.methods)
        + elements("AllowedHeader", rule.headers)
        + elements("ExposeHeader", rule.exposed)
        + (f"<MaxAgeSeconds>{rule.max_age_s}</MaxAgeSeconds>" if rule.max_age_s is not None else "")
        + "</CORSRule>"
        for rule in rules
    ]
    return document("CORSConfiguration", "".join(rows))


def _check(rule: Rule) -> None:
    if not rule.origins or not rule.methods or len(rule.id) > 255:
        raise S3Error("MalformedXML")
    for method in rule.methods:
        if method not in METHODS:
            raise S3Error(
                "InvalidRequest",
                f"Found unsupported HTTP method in CORS config. Unsupported method is {method}",
            )
    for name, values in (("AllowedOrigin", rule.origins), ("AllowedHeader", rule.headers)):
        for value in values:
            if value.count("*") > 1:
                raise S3Error(
                    "InvalidRequest", f'{name} "{value}" can not have more than one wildcard.'
                )
    for value in (*rule.origins, *rule.headers, *rule.exposed):
        # They come back in headers, which must stay one line each.
        if not value or not value.isascii() or not value.isprintable():
            raise S3Error("InvalidRequest", "CORS values are printable ASCII")
