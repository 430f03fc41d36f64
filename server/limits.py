"""How many requests a key may send: a token bucket. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Allowance:
    """What became of one request, and what is left.

    Attributes:
        limit: Requests per minute.
        remaining: How many more may follow at once.
        reset_s: Seconds until ``limit`` requests may come at once again.
        retry_after_s: Seconds until this request may be repeated; 0 if it was let through.
    """

    limit: int
    remaining: int
    reset_s: float
    retry_after_s: float

    def headers(self) -> dict[str, str]:
        """Return the hosted service's headers."""
        return {
            "x-ratelimit-limit-requests": str(self.limit),
            "x-ratelimit-remaining-requests": str(self.remaining),
            "x-ratelimit-reset-requests": duration(self.reset_s),
        }


class Bucket:
    """Lets ``per_minute`` requests through at once, and then one every ``60 / per_minute`` seconds.

    Not safe to use from several threads.
    """

    def __init__(self, per_minute: int, now: float) -> None:
        self._per_minute = per_minute
        self._tokens = float(per_minute)
        self._filled_at = now

    def take(self, now: float) -> Allowance:
        """Count one request at ``now``, in seconds on any clock that does not go backwards."""
        limit, rate = self._per_minute, self._per_minute / 60
        self._tokens = min(limit, self._tokens + (now - self._filled_at) * rate)
        self._filled_at = now
        # A wait of exactly what was announced must do, whatever the last bit of the product says.
        passes = self._tokens > 1 - 1e-9
        if passes:
            self._tokens = max(0.0, self._tokens - 1)
        wait_s = 0.0 if passes else (1 - self._tokens) / rate
        return Allowance(limit, int(self._tokens + 1e-9), (limit - self._tokens) / rate, wait_s)


def duration(seconds: float) -> str:
    """Write a time span as the hosted service does: ``12ms``, ``1s``, ``8.64s``, ``6m0s``."""
    milliseconds = round(seconds * 1000)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes}m{rest / 1000:g}s" if minutes else f"{rest / 1000:g}s"
