"""Decoders of what clients send, run where they can do no harm: in a process with bounded memory and time."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

CPU_S, WALL_S = 20, 40
MEMORY_BYTES = 4 << 30
# What it may write is a still; what it opens is one file, and pipes to a program.
FILE_BYTES = 256 << 20
OPEN_FILES = 64


class Overrun(Exception):
    """The process took more than it may, or died."""


def run(module: str, *arguments: str) -> Mapping[str, Any]:
    """Run a module of ours in a process of its own and return the JSON object that it prints.

    Raises:
        Overrun: It printed none.
    """
    # -P: a folder "server" in the current directory must not be taken for ours.
    command = [sys.executable, "-P", "-m", module, *arguments]
    # The arguments are ours: an interpreter, a module, paths that we made, numbers. A session of its own, so that
    # the programs that the module starts end with it.
    with subprocess.Popen(  # noqa: S603
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        try:
            output, _ = process.communicate(timeout=WALL_S)
        except subprocess.TimeoutExpired as error:
            raise Overrun from error
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode:
        raise Overrun
    return json.loads(output)


def confine() -> None:
    """Bound what this process and those that it starts may take: time, memory, room on the disk, open files."""
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))
    # A dump of it would be written to the disk, and hold somebody's picture.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def tell(findings: Mapping[str, Any]) -> None:
    """Print what ``run`` returns: anything that JSON can say."""
    sys.stdout.write(json.dumps(findings))
