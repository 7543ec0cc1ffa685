"""WARP plugin: S3 event notifications, delivered; and webhooks to deliver them to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from warp_core.hooks import hookimpl
from warp_core.interfaces.services import Service, ServiceContext
from warp_core.registry import Entry, Registry

from warp_events.config import Config, WebhookConfig

if TYPE_CHECKING:
    from warp_core.interfaces.targets import EventTarget, TargetContext

__all__ = ["Config", "WebhookConfig", "build_webhook", "warp_register_services"]


def _build(config: Config, context: ServiceContext) -> Service:
    from warp_events.service import Events

    return Events(config)


def build_webhook(config: WebhookConfig, context: TargetContext) -> EventTarget:
    """Make a webhook; the HTTP client is imported here, for those who have one."""
    from warp_events.webhook import Webhook

    return Webhook(config, context)


@hookimpl
def warp_register_services(registry: Registry[Service | EventTarget]) -> None:
    """Offer the service `events` and the target `webhook`."""
    registry.add(
        Entry(
            "events",
            build=_build,
            config=Config,
            summary="delivers the events that notification configurations name",
        )
    )
    registry.add(
        Entry(
            "webhook",
            build=build_webhook,
            config=WebhookConfig,
            summary="event target: POST over HTTP or HTTPS",
            sample=lambda folder: WebhookConfig(url="http://127.0.0.1:9/"),
            by_default=False,
            takes_events=True,
        )
    )
