"""Removing weights from the shared cache of Hugging Face: all that no other model on this machine consists of."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterable
from pathlib import Path

from pipelines import snapshot
from pipelines.card import ModelCard
from pipelines.holdings import as_installed, origins


def sharing(card: ModelCard, cards: Iterable[ModelCard]) -> list[ModelCard]:
    """Return the other cards, as far as they are installed, that take something from the same repositories."""
    repositories = _repositories(card)
    here = filter(None, map(as_installed, cards))
    return [other for other in here if other.id != card.id and repositories & _repositories(other)]


def remove(card: ModelCard, others: Iterable[ModelCard], cache: Path) -> int:
    """Remove a card's weights from the cache.

    A repository that only this card needs goes wholly; of one that others need, what they do not consist of.

    Args:
        card: Of the model.
        others: Those that have to stay whole.
        cache: The shared cache.

    Returns:
        The bytes that are free now.
    """
    theirs = [origin for other in others for origin in origins(other.weights)]
    freed = 0
    for repo in sorted(_repositories(card)):
        folder = snapshot.repository_folder(cache, repo)
        if any(origin.repo == repo for origin in theirs):
            kept = {path for origin in theirs if origin.repo == repo for path in origin.held(cache)}
            mine = {path for origin in origins(card.weights) if origin.repo == repo for path in origin.held(cache)}
            freed += _remove_files(folder, mine - kept)
        elif folder.exists():
            freed += _size(folder.rglob("*"))
            shutil.rmtree(folder)
    return freed


def _repositories(card: ModelCard) -> set[str]:
    return {origin.repo for origin in origins(card.weights)}


def _remove_files(folder: Path, paths: Collection[Path]) -> int:
    """Remove files of a repository's snapshots, and the blobs to which nothing leads then."""
    before = _size((folder / "blobs").glob("*"))
    blobs = {path.resolve() for path in paths}
    for path in paths:
        path.unlink()
    for path in sorted((folder / "snapshots").rglob("*"), reverse=True):
        # A part whose folder is empty would count as one that has no weights.
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    needed = {path.resolve() for path in (folder / "snapshots").rglob("*") if path.is_symlink()}
    for blob in [*(blobs - needed), *(folder / "blobs").glob("*.incomplete")]:
        blob.unlink(missing_ok=True)
    return before - _size((folder / "blobs").glob("*"))


def _size(paths: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in paths if path.is_file() and not path.is_symlink())
