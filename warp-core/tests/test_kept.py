"""A bounded memory keeps everything that fits, and what is asked for often where not everything does."""

from __future__ import annotations

from warp_core.kept import KEPT_EVERY, Kept


def ask(kept: Kept[int, int], key: int) -> bool:
    """Ask for a key; offer it if it was not there. Returns whether it was."""
    found = kept.get(key)
    if found is None:
        kept.offer(key, -key)
    return found is not None


def test_all_is_kept_that_fits() -> None:
    kept: Kept[int, int] = Kept(100)
    for key in range(1, 101):
        assert not ask(kept, key)
    for key in range(1, 101):
        assert ask(kept, key)


def test_there_is_never_more_than_the_limit() -> None:
    kept: Kept[int, int] = Kept(100)
    for key in range(1, 5000):
        ask(kept, key)
        assert len(kept) <= 100


def test_of_what_is_asked_for_once_little_is_taken_and_of_what_is_asked_for_often_all() -> None:
    kept: Kept[int, int] = Kept(100)
    for key in range(1, 102):
        ask(kept, key)
    for key in range(1000, 1000 + 60 * KEPT_EVERY):
        ask(kept, key)
    assert len(kept) <= 61
    for _ in range(20 * KEPT_EVERY):
        for key in range(1, 21):
            ask(kept, key)

    assert all(ask(kept, key) for key in range(1, 21))
