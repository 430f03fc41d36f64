"""Every method of the official clients, old and new, and LiteLLM's: which are there, and do they work against us?

One server with the model that ships, and a key for each client: what one makes, the others do not see.
Arguments choose among the clients: python, node, litellm or version numbers.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from server.cli.local import own_server
from tests.acceptance import sdks, story, test_litellm

Told = dict[str, Any]


class Client(NamedTuple):
    """A client, what makes it tell its session, and what judges that."""

    language: str
    version: str
    tell: Callable[[str, str, Path], Told]
    check: Callable[[Told], None]


class Outcome(NamedTuple):
    """How each method went, and what was wrong, if anything."""

    methods: Mapping[str, str]
    complaint: str


def clients() -> Iterable[Client]:
    for sdk in sdks.ALL:
        yield Client(*sdk, partial(sdks.session, sdk), story.check)
    for provider in test_litellm.PROVIDERS:
        yield Client("litellm", f"{sdks.LITELLM} {provider}/", partial(litellm_session, provider), test_litellm.check)


def litellm_session(provider: str, url: str, key: str, picture: Path) -> Told:
    return sdks.litellm_sessions([provider], url, key, picture)[provider]


def outcome(client: Client, url: str, key: str, picture: Path) -> Outcome:
    try:
        told = client.tell(url, key, picture)
    except (AssertionError, subprocess.SubprocessError) as error:
        return Outcome({}, str(error))
    called = told["called"]
    went = called if isinstance(called, dict) else dict.fromkeys(called, "ok")
    methods = {snake_case(name): went.get(name, "not called") for name in told["offered"]}
    try:
        client.check(told)
    except AssertionError as error:
        return Outcome(methods, str(error) or "the story differs; see tests/acceptance/story.py")
    return Outcome(methods, "")


def snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z])([A-Z])", lambda match: f"_{match[1].lower()}", name)


def table(title: str, columns: Mapping[str, Outcome]) -> Table:
    """Return method x version. A version without a method has it ``absent``."""
    made = Table(title=title, title_justify="left")
    made.add_column("method")
    for version in columns:
        made.add_column(version)
    rows = dict.fromkeys(name for column in reversed(list(columns.values())) for name in column.methods)
    for name in sorted(rows, key=lambda name: ([*sdks.RESOURCES, name].index(name.split(".")[0]), name)):
        made.add_row(name, *(column.methods.get(name, "absent") for column in columns.values()))
    made.add_row("its whole session", *("FAILED" if column.complaint else "ok" for column in columns.values()))
    return made


def create_key(data_dir: Path, name: str) -> str:
    command = [sys.executable, "-m", "server.cli", "keys", "create", "--name", name, "--data-dir", str(data_dir)]
    return subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True
    ).stdout.strip()


def main(chosen: list[str]) -> int:
    wanted = [client for client in clients() if not chosen or {client.language, client.version} & set(chosen)]
    # The clients' webhook receivers are on this machine.
    os.environ["HOMEREEL_ALLOW_PRIVATE_FETCH"] = "true"
    found: dict[str, dict[str, Outcome]] = {}
    with tempfile.TemporaryDirectory() as folder:
        data_dir = Path(folder) / "data"
        picture = story.draw_picture(Path(folder) / "first.png")
        keys = [create_key(data_dir, f"{client.language} {client.version}") for client in wanted]
        with own_server(data_dir) as url:
            for client, key in zip(wanted, keys, strict=True):
                print(f"{client.language} {client.version} ...", file=sys.stderr)
                found.setdefault(client.language, {})[client.version] = outcome(client, f"{url}/v1", key, picture)
    console = Console(width=160)
    for language, columns in found.items():
        console.print(table(language, columns))
    failed = [
        (f"{language} {version}", column.complaint)
        for language, columns in found.items()
        for version, column in columns.items()
        if column.complaint
    ]
    for name, complaint in failed:
        print(f"\n{name}:\n{complaint}", file=sys.stderr)
    print(f"{len(wanted) - len(failed)} of {len(wanted)} clients conform.")
    return 1 if failed or not wanted else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
