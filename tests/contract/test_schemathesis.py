"""Every answer is one that the API's description promises: all phases of schemathesis, stateful links included."""

from __future__ import annotations

from pathlib import Path

from scripts.fuzz import explore
from tests.acceptance.serving import serving


def test_the_server_keeps_to_its_description(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as base_url:
        explored = explore(base_url, tmp_path, examples=3, scenarios=10, seed=1, timeout_s=200)
    assert explored.returncode == 0, explored.stdout + explored.stderr
