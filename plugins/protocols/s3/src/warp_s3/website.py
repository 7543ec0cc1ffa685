"""Website configurations as they are served: which page a path means, and where it redirects to. Pure.

Source: "Hosting a static website" and "Configuring a webpage redirect" in the Amazon S3 user guide.
"""

from functools import lru_cache
from typing import Final
from urllib.parse import quote
from xml.etree.ElementTree import Element

import msgspec

from warp_s3.errors import S3Error
from warp_s3.xml_input import parse
from warp_s3.xml_output import document

WEBSITE: Final = "s3.website"
"""Name of the volume's document: what is inside the WebsiteConfiguration, in XML."""

REDIRECT: Final = "x-amz-website-redirect-location"
"""Header of an object that is no page itself, but says where one is."""

LOCATION_MAX: Final = 2048
"""Bytes of that header; S3's own figure."""

MOVED: Final = 301

# What may stand in a Location as it is: of a key whatever separates nothing (RFC 3986, 3.3), of a configuration everything, as
# `#!/` and `?page=` are what people write there.
_OF_KEYS: Final = "/-_.~!$&'()*+,:;=@"
_OF_TEXTS: Final = _OF_KEYS + "#?%[]"


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One routing rule: when it applies, and what it replaces; empty is the request's own."""

    prefix: str = ""
    error: int = 0  # status of an answer; 0: whatever it would be
    protocol: str = ""
    host: str = ""
    status: int = MOVED
    key: str | None = None  # replaces the whole key
    key_prefix: str | None = None  # replaces `prefix`

    def location(self, key: str, protocol: str, host: str) -> str:
        """Return where a request for a key is sent."""
        if self.key is not None:
            path = quote(self.key, safe=_OF_TEXTS)
        elif self.key_prefix is not None:
            rest = key[len(self.prefix) :]
            path = quote(self.key_prefix, safe=_OF_TEXTS) + quote(rest, safe=_OF_KEYS)
        else:
            path = quote(key, safe=_OF_KEYS)
        return f"{self.protocol or protocol}://{self.host or host}/{path}"


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """What a bucket's website configuration says."""

    elsewhere: str = ""  # host that all requests are sent to
    protocol: str = ""  # with which they are
    index: str = ""
    error: str = ""  # key of the page for what went wrong
    rules: tuple[Rule, ...] = ()

    def rule(self, key: str, error: int = 0) -> Rule | None:
        """Return the first rule for a key, before its object is looked for, or once that failed with a status."""
        for rule in self.rules:
            if rule.error == error and key.startswith(rule.prefix):
                return rule
        return None

    def page(self, key: str) -> str:
        """Return the key of the object that a path shows."""
        return key + self.index if not key or key.endswith("/") else key


@lru_cache(maxsize=256)
def site_of(kept: bytes) -> Site:
    """Read a bucket's document."""
    element = parse(document("WebsiteConfiguration", kept.decode()), "WebsiteConfiguration")
    elsewhere = element.find("RedirectAllRequestsTo")
    if elsewhere is not None:
        return Site(
            elsewhere=elsewhere.findtext("HostName", ""),
            protocol=elsewhere.findtext("Protocol", ""),
        )
    return Site(
        index=element.findtext("IndexDocument/Suffix", ""),
        error=element.findtext("ErrorDocument/Key", ""),
        rules=tuple(map(_rule, element.findall("RoutingRules/RoutingRule"))),
    )


def _rule(element: Element) -> Rule:
    return Rule(
        prefix=element.findtext("Condition/KeyPrefixEquals", ""),
        error=int(element.findtext("Condition/HttpErrorCodeReturnedEquals", "0")),
        protocol=element.findtext("Redirect/Protocol", ""),
        host=element.findtext("Redirect/HostName", ""),
        status=int(element.findtext("Redirect/HttpRedirectCode", str(MOVED))),
        key=element.findtext("Redirect/ReplaceKeyWith"),
        key_prefix=element.findtext("Redirect/ReplaceKeyPrefixWith"),
    )


def path_of(key: str) -> str:
    """Write a key as a path."""
    return "/" + quote(key, safe=_OF_KEYS)


def check_location(value: str) -> None:
    """Check what an object says about where its page is.

    Raises:
        S3Error: `InvalidRedirectLocation`, `MetadataTooLarge`.
    """
    if len(value) > LOCATION_MAX:
        raise S3Error(
            "MetadataTooLarge", details={"MaxSizeAllowed": str(LOCATION_MAX), "Header": REDIRECT}
        )
    if not value.startswith(("/", "http://", "https://")):
        raise S3Error("InvalidRedirectLocation")
