"""The real commands, run by somebody with a cache of their own, against a hub on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.hub_server import Hub

Command = Callable[..., subprocess.CompletedProcess[str]]


def command_of(hub: Hub, home: Path) -> Command:
    """Return what runs a command as somebody whose cache, in ``home``, is empty at first."""

    def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        own = {"HOMEREEL_DATA_DIR": str(home / "data"), "COLUMNS": "200"}
        variables = os.environ | hub.environment(home / "hf") | own | environment
        command = [sys.executable, "-P", "-m", "server.cli", *words]
        return subprocess.run(
            command, env=variables, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )

    return run
