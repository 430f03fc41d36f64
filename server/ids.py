"""Ids that sort by creation."""

from __future__ import annotations

import re
import secrets


def new_id(prefix: str, created_at: float) -> str:
    """Return ``prefix`` and 48 hex digits, so that ids sort by creation to the microsecond.

    The first 8 digits are the second, as in the hosted service's ids; the next 5 are the microsecond, the rest chance.
    """
    second, microsecond = divmod(int(created_at * 1_000_000), 1_000_000)
    return f"{prefix}{second:08x}{microsecond:05x}{secrets.token_hex(18)[1:]}"


def shape_of(prefix: str) -> re.Pattern[str]:
    """Return the pattern of the ids that ``new_id`` makes with this prefix."""
    return re.compile(re.escape(prefix) + r"[0-9a-f]{48}")
