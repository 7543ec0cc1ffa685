"""What a webhook sends, and what it takes for an answer."""

from __future__ import annotations

import hashlib
import hmac
import re
import ssl
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from warp_core.certificates import issue, make_authority
from warp_core.config.types import Secret
from warp_core.errors import ConfigError, Unavailable
from warp_core.interfaces.targets import Message, TargetContext
from warp_events import WebhookConfig, build_webhook

MESSAGE = Message("v1-1", b'{"Records":[]}', "photos", "ObjectCreated:Put", "k")
SECRET = "a long shared secret"


def webhook(tmp_path: Path, url: str, **options: Any) -> Any:
    return build_webhook(WebhookConfig(url=url, **options), TargetContext("hook", tmp_path))


async def test_a_message_is_signed_and_says_who_sends_it(hook: Any, tmp_path: Path) -> None:
    options = {"secret": Secret(SECRET), "authorization": Secret("Bearer abcdefgh")}
    async with webhook(tmp_path, hook.url, **options) as target:
        await target.send(MESSAGE)

    [head] = hook.heads
    assert head["authorization"] == "Bearer abcdefgh"
    assert head["content-type"] == "application/json"
    assert head["x-warp-event-id"] == "v1-1"
    match = re.fullmatch(r"t=(\d+),v1=([0-9a-f]{64})", head["x-warp-signature"])
    assert match is not None
    assert abs(int(match[1]) - time.time()) < 60
    text = match[1].encode() + b"." + MESSAGE.body
    assert match[2] == hmac.new(SECRET.encode(), text, hashlib.sha256).hexdigest()


async def test_without_secrets_there_are_no_such_headers(hook: Any, tmp_path: Path) -> None:
    async with webhook(tmp_path, hook.url) as target:
        await target.send(MESSAGE)

    assert not {"authorization", "x-warp-signature"} & set(hook.heads[0])


@pytest.mark.parametrize("answer", [b"201 Created", b"202 Accepted", b"204 No Content"])
async def test_any_status_of_the_200s_is_a_yes(hook: Any, tmp_path: Path, answer: bytes) -> None:
    hook.answer = answer
    async with webhook(tmp_path, hook.url) as target:
        await target.send(MESSAGE)


@pytest.mark.parametrize(
    "answer",
    [
        b"301 Moved\r\nLocation: /elsewhere",
        b"307 T\r\nLocation: /",
        b"400 Bad",
        b"410 Gone",
        b"500 X",
    ],
)
async def test_any_other_status_is_a_no(hook: Any, tmp_path: Path, answer: bytes) -> None:
    hook.answer = answer
    async with webhook(tmp_path, hook.url) as target:
        with pytest.raises(Unavailable, match=f"answered {answer[:3].decode()} no"):
            await target.send(MESSAGE)

    assert len(hook.heads) == 1, "a redirect is not followed"


async def test_what_is_no_http_is_a_no_and_tells_no_secret(hook: Any, tmp_path: Path) -> None:
    hook.answer = b"200 OK\r\nContent-Length: x"
    async with webhook(tmp_path, hook.url) as target:
        with pytest.raises(Unavailable) as told:
            await target.send(MESSAGE)

    assert "in-the-query" not in str(told.value)


async def test_connections_are_kept(hook: Any, tmp_path: Path) -> None:
    async with webhook(tmp_path, hook.url) as target:
        for _ in range(5):
            await target.send(MESSAGE)
        assert len(hook._serving) == 1


async def test_certificates_are_checked(hook_of: Any, tmp_path: Path) -> None:
    make_authority(tmp_path / "ca")
    issue(tmp_path / "ca", "hook", tmp_path, hosts=["127.0.0.1"])
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(tmp_path / "node.pem", tmp_path / "node.key")
    there = hook_of(tls)
    await there.start()
    try:
        async with webhook(tmp_path, there.url) as target:
            with pytest.raises(Unavailable, match="certificate"):
                await target.send(MESSAGE)
        async with webhook(tmp_path, there.url, ca_file="ca.pem") as target:
            await target.send(MESSAGE)
        assert [each.id for each in await there.taken()] == ["v1-1"]
    finally:
        await there.stop()


async def test_a_file_of_certificates_that_is_none_is_told_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="ca_file"):
        await webhook(tmp_path, "https://127.0.0.1/", ca_file="none.pem").__aenter__()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"url": "ftp://example.com/"}, "url"),
        ({"url": "http://"}, "url"),
        ({"url": "http://user:word@example.com/"}, "url"),
        ({"url": "http://example.com/a b"}, "url"),
        ({"url": "http://example.com/", "authorization": "Bearer abcdefgh"}, "authorization"),
        (
            {"url": "https://example.com/", "authorization": "Bearer\r\nX: abcdefgh"},
            "authorization",
        ),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(options: dict[str, str], said: str) -> None:
    from warp_core.config.types import convert

    with pytest.raises((ValueError, msgspec.ValidationError), match=f"{said}: "):
        msgspec.convert(options, WebhookConfig, dec_hook=convert)


def test_a_secret_may_go_in_the_clear_where_the_file_says_so() -> None:
    WebhookConfig(
        url="http://example.com/", authorization=Secret("Bearer abcdefgh"), allow_plaintext=True
    )
