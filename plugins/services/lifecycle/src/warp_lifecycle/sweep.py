"""A sweep over the versions of one volume: page by page, each entry judged by the rules with what came before it.

Versions of a key come newest first. A noncurrent version is so since the one before it was made, and that one may lie on the page
before, so a sweep remembers the last entry that it judged: that is all it takes to go on after a restart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
from warp_core import lifecycle
from warp_core.errors import (
    Corrupt,
    KeyNotFound,
    Locked,
    NoSpace,
    NotFound,
    PreconditionFailed,
    Retained,
    Sealed,
    StoreFailed,
    Unavailable,
)
from warp_core.interfaces.auth import SYSTEM
from warp_core.lifecycle import Lifecycle, Rule
from warp_core.logs import get
from warp_core.namespace.classes import set_storage_class
from warp_core.namespace.namespace import Namespace
from warp_core.namespace.objects import NamespaceObjects
from warp_core.views.objects import Condition, ObjectInfo
from warp_core.views.origin import Origin

PAGE = 500  # entries judged in one pass: about 20 ms where nothing is due
AT_ONCE = 64  # that are removed side by side, to share commits

NOT_MOVED = (NoSpace, StoreFailed, Corrupt, Sealed, KeyNotFound)

log = get("warp_lifecycle")

BY_RULE = Origin(
    actor=SYSTEM.name, via="lifecycle"
)  # what the change feed tells of what is done here

VERSIONS, UPLOADS, DONE = "versions", "uploads", "done"


class Progress(msgspec.Struct, array_like=True):
    """How far a sweep has come, as its row keeps it."""

    started_ns: int
    phase: str = VERSIONS
    key: bytes = b""
    version: str = ""  # empty: after all versions of `key`
    since_ns: int = 0  # when the last version that was judged was made
    newer: int = 0  # noncurrent versions of `key` that were judged


@dataclass(frozen=True, slots=True)
class Act:
    """What is to be done to one version."""

    entry: ObjectInfo
    verb: str  # "expired", "markers", "noncurrent", "moved": what the counters call it
    storage_class: str = ""


class Sweep:
    """One volume's."""

    def __init__(
        self,
        namespace: Namespace,
        objects: NamespaceObjects,
        volume: str,
        rules: Lifecycle,
        progress: Progress,
        *,
        now_ns: int,
        day_ns: int,
    ) -> None:
        self._namespace = namespace
        self._objects = objects
        self._volume = volume
        self._rules = rules
        self._now_ns = now_ns
        self._day_ns = day_ns
        self.progress = progress
        self.counts: dict[str, int] = {}

    async def step(self) -> None:
        """Do one page; afterwards `progress` says where the next one begins."""
        if self.progress.phase == VERSIONS:
            await self._versions()
        elif self.progress.phase == UPLOADS:
            await self._uploads()

    # Versions -------------------------------------------------------------------------------------

    async def _versions(self) -> None:
        here = self.progress
        page = await self._objects.list_versions(
            self._volume, key_marker=here.key, version_marker=here.version, limit=PAGE
        )
        entries: Sequence[ObjectInfo] = list(page.entries)
        more = bool(page.next_key)
        # The last one is judged with the next page, where what comes after it is known.
        judged = entries[:-1] if more and len(entries) > 1 else entries
        acts: list[Act] = []
        for index, entry in enumerate(judged):
            follower = entries[index + 1] if index + 1 < len(entries) else None
            alone = follower is None or follower.key != entry.key
            act = await self._judge(entry, alone=alone)
            if act is not None:
                acts.append(act)
        for start in range(0, len(acts), AT_ONCE):
            await asyncio.gather(*map(self._do, acts[start : start + AT_ONCE]))
        if not more:
            self.progress = Progress(here.started_ns, UPLOADS)
            return
        last, following = judged[-1], entries[-1]
        same = following.key == last.key and last.version != "null"
        here.version = last.version if same else ""

    async def _judge(self, entry: ObjectInfo, *, alone: bool) -> Act | None:
        here = self.progress
        if entry.key != here.key:
            here.key, here.since_ns, here.newer = entry.key, 0, 0
        since_ns, newer = here.since_ns, here.newer
        here.since_ns = entry.modified_ns
        if not entry.latest:
            here.newer += 1
        key = entry.key.decode("utf-8", "replace")
        rules = [rule for rule in self._rules.rules if lifecycle.applies(rule, key, entry.size)]
        if entry.marker:  # neither sizes nor tags name a marker
            rules = [
                rule
                for rule in self._rules.rules
                if rule.enabled and key.startswith(rule.prefix) and not rule.tags
            ]
        if not rules:
            return None
        if entry.latest and entry.marker:
            return self._lone_marker(entry, rules) if alone else None
        if entry.latest:
            return await self._current(entry, rules)
        return await self._noncurrent(entry, rules, since_ns, newer)

    def _lone_marker(self, entry: ObjectInfo, rules: Sequence[Rule]) -> Act | None:
        for rule in rules:
            if lifecycle.drops_marker(rule, entry.modified_ns, self._now_ns, self._day_ns):
                return Act(entry, "markers")
        return None

    async def _current(self, entry: ObjectInfo, rules: Sequence[Rule]) -> Act | None:
        tags: Mapping[str, str] | None = None
        for rule in rules:
            at_ns = lifecycle.expires(rule, entry.modified_ns, self._day_ns)
            if at_ns is not None and at_ns <= self._now_ns:
                tags = await self._tags(entry, rule, tags)
                if tags is not None and lifecycle.tagged(rule, tags):
                    return Act(entry, "expired")
        for rule in rules:
            wanted = lifecycle.due_class(
                rule.moves, entry.modified_ns, self._now_ns, day_ns=self._day_ns
            )
            if self._moves(rule, entry, wanted):
                tags = await self._tags(entry, rule, tags)
                if tags is not None and lifecycle.tagged(rule, tags):
                    return Act(entry, "moved", wanted)
        return None

    async def _noncurrent(
        self, entry: ObjectInfo, rules: Sequence[Rule], since_ns: int, newer: int
    ) -> Act | None:
        tags: Mapping[str, str] | None = None
        for rule in rules:
            if lifecycle.drops_noncurrent(rule, since_ns, newer, self._now_ns, self._day_ns):
                tags = await self._tags(entry, rule, tags)
                if tags is not None and lifecycle.tagged(rule, tags):
                    return Act(entry, "noncurrent")
        for rule in () if entry.marker else rules:
            wanted = lifecycle.due_class(
                rule.noncurrent_moves, since_ns, self._now_ns, newer=newer, day_ns=self._day_ns
            )
            if self._moves(rule, entry, wanted):
                tags = await self._tags(entry, rule, tags)
                if tags is not None and lifecycle.tagged(rule, tags):
                    return Act(entry, "moved", wanted)
        return None

    def _moves(self, rule: Rule, entry: ObjectInfo, wanted: str) -> bool:
        if not wanted or wanted == (entry.storage_class or "STANDARD"):
            return False
        return lifecycle.may_move(self._rules, rule, wanted, entry.size)

    async def _tags(
        self, entry: ObjectInfo, rule: Rule, known: Mapping[str, str] | None
    ) -> Mapping[str, str] | None:
        """Return a version's tags, read where a rule asks for them; None if it is gone."""
        if not rule.tags or known:
            return known or {}
        if entry.marker:
            return None
        try:
            info = await self._objects.head(self._volume, entry.key, version=entry.version)
        except NotFound:
            return None
        return info.attributes.tags

    async def _do(self, act: Act) -> None:
        entry = act.entry
        try:
            if act.verb == "moved":
                await set_storage_class(
                    self._namespace,
                    self._volume,
                    entry.key,
                    entry.version,
                    act.storage_class,
                    BY_RULE,
                )
            elif act.verb == "expired":
                # What was overwritten since the page was read is another object, and young.
                still = Condition(etag=entry.etag, modified_s=entry.modified_ns // 10**9)
                await self._objects.delete(self._volume, entry.key, condition=still, origin=BY_RULE)
            else:
                await self._objects.delete(
                    self._volume, entry.key, version=entry.version, origin=BY_RULE
                )
        except (*NOT_MOVED, Unavailable) as error:
            # It stays of the class that it has; the next sweep tries again.
            log.warning(
                "content is not moved", volume=self._volume, key=entry.key, error=str(error)
            )
            self._count("not_moved")
        except Retained:
            self._count("retained")
        except (NotFound, PreconditionFailed):
            return
        except Locked:  # open as a file that denies it, or a disk in use: the next sweep sees
            self._count("in_use")
        else:
            self._count(act.verb)

    # Uploads --------------------------------------------------------------------------------------

    async def _uploads(self) -> None:
        here = self.progress
        rules = [rule for rule in self._rules.rules if rule.enabled and rule.upload_days]
        if not rules:
            self.progress = Progress(here.started_ns, DONE)
            return
        page, _, more = await self._objects.list_uploads(
            self._volume, key_marker=here.key, upload_marker=here.version, limit=PAGE
        )
        for upload in page:
            key = upload.key.decode("utf-8", "replace")
            due = any(
                key.startswith(rule.prefix)
                and lifecycle.after(upload.initiated_ns, rule.upload_days, self._day_ns)
                <= self._now_ns
                for rule in rules
            )
            if due:
                try:
                    await self._objects.abort_upload(self._volume, upload.key, upload.upload)
                except NotFound:
                    continue
                self._count("uploads")
        if more and page:
            here.key, here.version = page[-1].key, page[-1].upload
        else:
            self.progress = Progress(here.started_ns, DONE)

    def _count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1
