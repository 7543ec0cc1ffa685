"""Providers of identities (OpenID Connect) that roles may trust."""

from typing import Final
from urllib.parse import urlsplit

import msgspec

from warp_s3.iam import names
from warp_s3.iam.asking import (
    Ask,
    Result,
    moment,
    page,
    provider,
    shown_tags,
    tag,
    tags_of,
    untag,
)
from warp_s3.iam.directory import Draft
from warp_s3.iam.entities import Provider
from warp_s3.iam.errors import QueryError

PROVIDERS_MAX: Final = 100
CLIENTS_MAX: Final = 100
THUMBPRINTS_MAX: Final = 5
URL_MAX: Final = 255


def create_provider(draft: Draft, ask: Ask) -> Result:
    """Make a provider known."""
    form = ask.form
    url = form.need("Url")
    parts = urlsplit(url)
    if parts.scheme not in {"https", "http"} or not parts.hostname or len(url) > URL_MAX:
        raise QueryError("ValidationError", "Invalid Open ID Connect Provider URL")
    if parts.query or parts.fragment or parts.username is not None:
        raise QueryError("ValidationError", "Invalid Open ID Connect Provider URL")
    name = url.partition("://")[2].rstrip("/")
    if draft.state.find(ask.account.name, Provider, name) is not None:
        raise QueryError("EntityAlreadyExists", f"Provider with url {url} already exists.")
    if len(draft.state.all(ask.account.name, Provider)) >= PROVIDERS_MAX:
        raise QueryError(
            "LimitExceeded",
            f"Cannot exceed quota for OpenIdConnectProvidersPerAccount: {PROVIDERS_MAX}",
        )
    made = Provider(
        account=ask.account.name,
        name=name,
        url=url,
        created_s=draft.now_s,
        clients=_clients(form.texts("ClientIDList")),
        thumbprints=_thumbprints(form.texts("ThumbprintList")),
        tags=tags_of(ask),
    )
    draft.put(made)
    return {
        "OpenIDConnectProviderArn": names.arn_of(made, ask.number),
        "Tags": shown_tags(made.tags),
    }


def get_provider(draft: Draft, ask: Ask) -> Result:
    """Tell a provider."""
    found = provider(draft.state, ask)
    return {
        "Url": found.url,
        "ClientIDList": list(found.clients),
        "ThumbprintList": list(found.thumbprints),
        "CreateDate": moment(found.created_s),
        "Tags": shown_tags(found.tags),
    }


def list_providers(draft: Draft, ask: Ask) -> Result:
    """Tell an account's providers."""
    found = draft.state.all(ask.account.name, Provider)
    return {
        "OpenIDConnectProviderList": [{"Arn": names.arn_of(each, ask.number)} for each in found]
    }


def delete_provider(draft: Draft, ask: Ask) -> Result:
    """Forget a provider."""
    draft.delete(provider(draft.state, ask))
    return None


def add_client(draft: Draft, ask: Ask) -> Result:
    """Let a further client's tokens in."""
    found = provider(draft.state, ask)
    client = ask.form.need("ClientID")
    if client not in found.clients:
        draft.put(msgspec.structs.replace(found, clients=_clients([*found.clients, client])))
    return None


def remove_client(draft: Draft, ask: Ask) -> Result:
    """Let a client's tokens in no more."""
    found = provider(draft.state, ask)
    client = ask.form.need("ClientID")
    kept = tuple(each for each in found.clients if each != client)
    draft.put(msgspec.structs.replace(found, clients=kept))
    return None


def update_thumbprints(draft: Draft, ask: Ask) -> Result:
    """Set the thumbprints of a provider's certificates, which are kept and not used."""
    found = provider(draft.state, ask)
    made = _thumbprints(ask.form.texts("ThumbprintList"))
    draft.put(msgspec.structs.replace(found, thumbprints=made))
    return None


def tag_provider(draft: Draft, ask: Ask) -> Result:
    """Set tags of a provider."""
    found = provider(draft.state, ask)
    return tag(draft, ask, found)


def untag_provider(draft: Draft, ask: Ask) -> Result:
    """Take tags of a provider away."""
    found = provider(draft.state, ask)
    return untag(draft, ask, found)


def list_provider_tags(draft: Draft, ask: Ask) -> Result:
    """Tell the tags of a provider."""
    return page(
        ask,
        "Tags",
        sorted(provider(draft.state, ask).tags.items()),
        lambda pair: pair[0],
        lambda pair: {"Key": pair[0], "Value": pair[1]},
    )


def _clients(found: list[str]) -> tuple[str, ...]:
    if len(found) > CLIENTS_MAX:
        raise QueryError(
            "LimitExceeded",
            f"Cannot exceed quota for ClientIdsPerOpenIdConnectProvider: {CLIENTS_MAX}",
        )
    for each in found:
        if not 1 <= len(each) <= 255:
            raise QueryError("ValidationError", "A client ID has 1 to 255 characters")
    return tuple(found)


def _thumbprints(found: list[str]) -> tuple[str, ...]:
    if len(found) > THUMBPRINTS_MAX:
        raise QueryError(
            "InvalidInput", f"Thumbprint list must contain fewer than {THUMBPRINTS_MAX} entries."
        )
    for each in found:
        if len(each) != 40:
            raise QueryError("ValidationError", "A thumbprint has 40 characters")
    return tuple(found)
