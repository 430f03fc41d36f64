"""How tests of event streams read them, and what a running job reports."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from pipelines.types import Stage
from server.jobs import JobProgress


def at_step(step: int, preview: int = 0) -> JobProgress:
    return JobProgress(Stage.DENOISE, step, 20, 5 * step, 20.0 - step, preview)


def parsed(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Read a stream as the standard says, down to what concerns us; comments come as such."""
    block: dict[str, Any] = {}
    for line in lines:
        if not line:
            yield block
            block = {}
            continue
        name, _, value = line.partition(": ")
        block[name] = value
        if name == "data":
            block["data"] = json.loads(value)
