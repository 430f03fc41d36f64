"""``homereel pull``: fetch a model's weights. What has arrived stays when it is interrupted; the next time goes on."""

from __future__ import annotations

import json
import re
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from pipelines import hub, snapshot
from pipelines.holdings import origins, size_of
from server.cli.models import card_of, keep, size_text
from server.cli.outcome import Failure, Outcome
from server.loras import SUFFIX, changes_weights
from server.settings import Settings

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Generator
    from pathlib import Path

    from pipelines.card import ModelCard

# Names of branches and tags, and commits; with no way to lead out of the folder that they name.
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_REPOSITORY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*/[A-Za-z0-9_][A-Za-z0-9._-]*")


def configure(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("model", help="id of the model, as `homereel list` shows it; OWNER/NAME of a LoRA")
    parser.add_argument("--lora", action="store_true", help="fetch a LoRA, which requests then name by OWNER/NAME")
    parser.add_argument("--file", help="which file of the LoRA's repository")
    parser.add_argument("--revision", help="commit or branch to fetch and to use from now on; default: the card's")
    parser.add_argument(
        "--one-stage", action="store_true", help="leave out what only sizes that are made in two stages need"
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would be fetched, and what room there is")
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")


def run(options: Namespace) -> int:
    """Fetch what is missing, and say where it is."""
    if options.lora:
        return _pull_lora(options)
    card = card_of(options.model)
    if not origins(card.weights):
        raise Failure(f"{card.id} is on this machine already, and comes from no hub")
    if options.revision is not None:
        card = _at(card, options.revision)
    wanted, other = (card.in_one_stage(), card) if options.one_stage else (card, card.in_one_stage())
    cache = snapshot.shared_cache()
    for duty in card.licence.duties:
        print(f"Licence {card.licence.id} ({card.licence.url}): {duty}.", file=sys.stderr)
    try:
        if options.dry_run:
            return _dry_run(wanted, other, cache, as_json=options.json)
        _pull(wanted, cache, options.json)
    except hub.HubError as error:
        raise Failure(error.message) from error
    if options.revision is not None:
        keep(card)
        said = f"{card.id} is used at revision {options.revision} now; a running server does so after its next start"
        print(said, file=sys.stderr)
    return Outcome.DONE


def _at(card: ModelCard, revision: str) -> ModelCard:
    return card.model_copy(update={"weights": card.weights.model_copy(update={"revision": _named(revision)})})


def _named(revision: str) -> str:
    if not _REVISION.fullmatch(revision):
        raise Failure(f"{revision!r} is no name of a revision", Outcome.MISUSED)
    return revision


def _dry_run(card: ModelCard, other: ModelCard, cache: Path, *, as_json: bool) -> int:
    """Say what would be fetched, and how much it would be the other way: in one stage, or all of it."""
    listing = hub.look(card, cache)
    otherwise = None if other is card else hub.look(other, cache).missing_bytes
    repositories = [_told(listing, repo) for repo in listing.commits]
    if as_json:
        told = {
            "model": card.id,
            "repo": repositories[0]["repo"],
            "commit": repositories[0]["commit"],
            "files": len(listing.files),
            "total_bytes": listing.total_bytes,
            "missing_bytes": listing.missing_bytes,
            "otherwise_missing_bytes": otherwise,
            "free_bytes": listing.free_bytes,
            "repositories": repositories,
        }
        print(json.dumps(told))
        return Outcome.DONE
    for told in repositories:
        print("{repo} at {commit}: {files} files, ".format(**told) + size_text(told["total_bytes"]))
    way = "with" if card.shape.has_two_stages else "without"
    more = "" if otherwise is None else f" ({way} --one-stage: {size_text(otherwise)})"
    room = size_text(listing.free_bytes)
    print(f"to fetch: {size_text(listing.missing_bytes)}{more}; free on the disk of {cache}: {room}")
    return Outcome.DONE


def _told(listing: hub.Listing, repo: str) -> dict[str, Any]:
    files = [file for file in listing.files if file.repo == repo]
    size = sum(file.size for file in files)
    return {"repo": repo, "commit": listing.commits[repo], "files": len(files), "total_bytes": size}


def _pull_lora(options: Namespace) -> int:
    repo = options.model
    if not _REPOSITORY.fullmatch(repo):
        raise Failure(f"{repo!r} is no repository; say OWNER/NAME", Outcome.MISUSED)
    folder = Settings().loras_dir
    try:
        with _bar(repo) as show:
            source = hub.Source(repo, repo, _named(options.revision or "main"))
            path = hub.pull_lora(source, options.file, snapshot.shared_cache(), folder, show)
    except hub.HubError as error:
        raise Failure(error.message) from error
    if not changes_weights(path):
        path.unlink()
        raise Failure(f"{options.file or repo} is no LoRA in safetensors; it was not kept")
    name = str(path.relative_to(folder)).removesuffix(SUFFIX)
    told = {"lora": name, "path": str(path), "bytes": path.stat().st_size}
    print(json.dumps(told) if options.json else f"{name} is here; requests name it so, as in lora={name}:0.8")
    return Outcome.DONE


@contextmanager
def _bar(what: str) -> Generator[hub.Progress]:
    """Show a bar of progress, and return who is told of it."""
    columns = (
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)

        def show(name: str, done: int, total: int) -> None:
            bar.update(task, description=name, completed=done, total=total)

        yield show


def _pull(card: ModelCard, cache: Path, as_json: bool) -> None:  # noqa: FBT001 - one of its two ways to speak
    with _bar(card.id) as show:
        folder = hub.pull(card, cache, show)
    size = size_of(card)
    if as_json:
        print(json.dumps({"model": card.id, "path": str(folder), "bytes": size}))
    else:
        print(f"{card.id} is here: {size_text(size)} in {folder}")
