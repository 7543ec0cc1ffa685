"""Entries of a directory in the order of their cookies."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from warp_core.namespace import orders, rows
from warp_core.namespace.orders import Order, cookie_of

NAMES = st.lists(st.binary(min_size=1, max_size=20).filter(orders.expressible), unique=True)


def listed(order: Order, step: int) -> list[orders.Entry]:
    found: list[orders.Entry] = []
    last = False
    while not last:
        page, last = order.page(found[-1].cookie if found else 0, step)
        assert page or last
        found += page
    return found


@given(names=NAMES, step=st.integers(1, 7))
def test_pages_have_each_entry_once_in_the_order_of_cookies(names: list[bytes], step: int) -> None:
    order = Order(0, 0.0)
    for number, name in enumerate(names):
        order.add(name, rows.FILE, number)

    found = listed(order, step)

    assert [each.cookie for each in found] == sorted(map(cookie_of, names))
    assert {(each.name, each.inode) for each in found} == {(b, n) for n, b in enumerate(names)}


@given(names=NAMES, data=st.data())
def test_of_two_with_one_name_the_directory_counts(names: list[bytes], data: st.DataObject) -> None:
    order = Order(0, 0.0)
    for name in names:
        twins = [(rows.FILE, 1), (rows.IMPLIED, 2)]
        for kind, inode in data.draw(st.permutations(twins)):
            order.add(name, kind, inode)

    assert [each.inode for each in listed(order, 3)] == [2] * len(names)


def test_names_whose_hashes_meet_keep_cookies_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orders, "cookie_of", lambda name: 77)
    order = Order(0, 0.0)
    for name in (b"c", b"a", b"ab"):
        order.add(name, rows.FILE, 5)

    assert [(each.cookie, each.name) for each in listed(order, 1)] == [
        (77, b"a"),
        (78, b"ab"),
        (79, b"c"),
    ]
