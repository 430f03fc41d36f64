"""The token bucket and the hosted way to write a time span."""

from __future__ import annotations

import pytest

from server.limits import Bucket, duration


def test_a_minutes_worth_may_come_at_once_and_no_more() -> None:
    bucket = Bucket(3, now=100.0)
    taken = [bucket.take(100.0) for _ in range(4)]
    assert [allowance.remaining for allowance in taken] == [2, 1, 0, 0]
    assert [allowance.retry_after_s for allowance in taken] == [0, 0, 0, pytest.approx(20)]
    assert [allowance.reset_s for allowance in taken] == [pytest.approx(s) for s in (20, 40, 60, 60)]


def test_whoever_waits_as_long_as_was_said_gets_through() -> None:
    bucket = Bucket(7, now=0.1)
    now = 0.1
    for _ in range(7):
        bucket.take(now)
    for _ in range(50):
        refused = bucket.take(now)
        assert refused.retry_after_s > 0
        now += refused.retry_after_s
        assert bucket.take(now).retry_after_s == 0


def test_refused_requests_cost_nothing() -> None:
    bucket = Bucket(1, now=0)
    bucket.take(0)
    waits = [bucket.take(second).retry_after_s for second in (10, 20, 30)]
    assert waits == [pytest.approx(s) for s in (50, 40, 30)]


def test_a_quiet_key_saves_up_no_more_than_a_minute() -> None:
    bucket = Bucket(2, now=0)
    bucket.take(0)
    assert bucket.take(10_000).remaining == 1


def test_the_headers_are_those_of_the_hosted_service() -> None:
    bucket = Bucket(60, now=0)
    assert bucket.take(0).headers() == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "1s",
    }


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(0, "0ms"), (0.012, "12ms"), (1, "1s"), (0.9999, "1s"), (8.64, "8.64s"), (59.9999, "1m0s"), (360, "6m0s")],
)
def test_durations(seconds: float, written: str) -> None:
    assert duration(seconds) == written
