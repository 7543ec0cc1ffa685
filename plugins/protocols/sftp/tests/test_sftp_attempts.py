"""Failed logins by address."""

from __future__ import annotations

from warp_sftp import attempts
from warp_sftp.attempts import Attempts, key_of


def test_each_failure_is_answered_later_than_the_last_up_to_a_bound() -> None:
    counted = Attempts(1000)
    delays = [counted.failed("192.0.2.1", 0.0) for _ in range(12)]

    assert delays[0] == attempts.FIRST_DELAY_S
    assert delays == sorted(delays)
    assert delays[-1] == attempts.DELAY_MAX_S
    assert counted.failed("192.0.2.2", 0.0) == attempts.FIRST_DELAY_S


def test_an_address_is_refused_until_its_failures_are_old() -> None:
    counted = Attempts(4)
    for _ in range(4):
        assert not counted.refuses("192.0.2.1", 0.0)
        counted.failed("192.0.2.1", 0.0)

    assert counted.refuses("192.0.2.1", 0.0)
    assert not counted.refuses("192.0.2.9", 0.0)
    assert not counted.refuses("192.0.2.1", attempts.HALF_LIFE_S * 1.01)


def test_one_subscriber_of_ipv6_is_one_address() -> None:
    assert key_of("2001:db8::1") == key_of("2001:db8::ffff:1") != key_of("2001:db8:0:1::1")
    assert key_of("::ffff:192.0.2.1") == key_of("192.0.2.1")
    assert key_of("fe80::1%eth0") == key_of("fe80::2%eth1")


def test_what_is_remembered_is_bounded() -> None:
    counted = Attempts(10)
    for number in range(attempts.ADDRESSES_MAX + 5):
        counted.failed(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 0.0)

    assert counted.count("10.0.0.0", 0.0) == 0.0
    assert counted.count("10.0.0.9", 0.0) == 1.0
