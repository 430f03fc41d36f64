"""What a card's weights consist of, in which repositories, and where on this machine they are. Reads folders only."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from pipelines import snapshot
from pipelines.card import ModelCard
from pipelines.errors import WeightsMissing
from pipelines.weights import Borrowed, Weights


@dataclass(frozen=True)
class Origin:
    """What is needed of one repository at one revision.

    Attributes:
        repo: Of the hub.
        revision: A commit, or what names one.
        has_checkpoint: Whether the checkpoint is there, and not only what is borrowed.
        without: Parts of the checkpoint that are not needed.
        bare: Parts of the checkpoint of which the configuration alone is needed.
        files: Paths of files.
        folders: Paths of folders with a configuration and safetensors.
    """

    repo: str
    revision: str
    has_checkpoint: bool = False
    without: frozenset[str] = frozenset()
    bare: frozenset[str] = frozenset()
    files: frozenset[str] = frozenset()
    folders: frozenset[str] = frozenset()

    @property
    def first(self) -> str:
        """A file of it that is always needed."""
        if self.has_checkpoint:
            return snapshot.INDEX
        return min(self.files | {f"{folder}/{snapshot.CONFIG}" for folder in self.folders})

    def needs(self, name: str, parts: Collection[str]) -> bool:
        """Tell whether a file of the repository is needed, ``parts`` being all of the checkpoint."""
        if name in self.files or snapshot.is_weights(name, self.folders):
            return True
        if not self.has_checkpoint:
            return False
        whole = set(parts) - self.without - self.bare
        configured = (self.bare & set(parts)) - self.without
        return (
            name == snapshot.INDEX
            or snapshot.is_weights(name, whole)
            or name in {f"{part}/{snapshot.CONFIG}" for part in configured}
        )

    def held(self, cache: Path) -> Iterator[Path]:
        """Yield the files of it that the cache has, at whichever commit."""
        for commit in sorted((snapshot.repository_folder(cache, self.repo) / "snapshots").glob("*")):
            parts = _parts(commit) if self.has_checkpoint else ()
            for path in sorted(commit.rglob("*")):
                if path.is_file() and self.needs(path.relative_to(commit).as_posix(), parts):
                    yield path


def origins(weights: Weights) -> tuple[Origin, ...]:
    """Return what is needed of the hub, the checkpoint's repository first."""
    places: dict[tuple[str, str], list[Borrowed]] = {}
    own = (weights.repo, weights.revision) if weights.repo is not None else None
    if own is not None:
        places[own] = []
    for thing in weights.borrowed.values():
        if thing.repo is not None:
            places.setdefault((thing.repo, thing.revision), []).append(thing)
    return tuple(
        Origin(
            repo,
            revision,
            has_checkpoint=(repo, revision) == own,
            without=weights.without,
            bare=weights.bare,
            files=frozenset(thing.file for thing in things if thing.file is not None),
            folders=frozenset(thing.folder for thing in things if thing.folder is not None),
        )
        for (repo, revision), things in places.items()
    )


def weights_folder(card: ModelCard) -> Path:
    """Return the card's checkpoint: the folder with ``model_index.json``.

    Raises:
        WeightsMissing: It is not on this machine, or not all of it, or something that the card borrows is not.
    """
    folder = _checkpoint(card.weights)
    if folder is None or any(find_borrowed(thing) is None for thing in card.weights.borrowed.values()):
        raise weights_missing(card)
    return folder


def installed(card: ModelCard) -> bool:
    """Tell whether all of the card's weights are on this machine."""
    try:
        weights_folder(card)
    except WeightsMissing:
        return False
    return True


def as_installed(card: ModelCard) -> ModelCard | None:
    """Return the card as far as its weights are on this machine: as it is, or in one stage; None if it is not here."""
    if installed(card):
        return card
    in_one_stage = card.in_one_stage()
    return in_one_stage if in_one_stage is not card and installed(in_one_stage) else None


def borrowed(card: ModelCard, name: str) -> Path:
    """Return the file or folder that a card borrows under a name.

    Raises:
        WeightsMissing: It is not on this machine, or the card borrows nothing of that name.
    """
    thing = card.weights.borrowed.get(name)
    path = find_borrowed(thing) if thing is not None else None
    if path is None:
        raise weights_missing(card)
    return path


def files_of(card: ModelCard) -> list[Path]:
    """Return every file that an installed card's weights consist of.

    Raises:
        WeightsMissing: Something is not on this machine.
    """
    folder = weights_folder(card)
    own = Origin("", "", has_checkpoint=True, without=card.weights.without, bare=card.weights.bare)
    parts = _parts(folder)
    found = [path for path in sorted(folder.rglob("*")) if own.needs(path.relative_to(folder).as_posix(), parts)]
    for name in card.weights.borrowed:
        path = borrowed(card, name)
        found += sorted(path.rglob("*")) if path.is_dir() else [path]
    return [path for path in dict.fromkeys(found) if path.is_file()]


def size_of(card: ModelCard) -> int:
    """Return how many bytes an installed card's weights take.

    Raises:
        WeightsMissing: Something is not on this machine.
    """
    return sum(path.stat().st_size for path in files_of(card))


def find_borrowed(thing: Borrowed) -> Path | None:
    """Return where a borrowed file or folder is, or None if it is not there or lacks a file."""
    if thing.path is not None:
        return thing.path if _is_whole(thing.path) else None
    folders = snapshot.snapshot_folders(snapshot.shared_cache(), str(thing.repo), thing.revision)
    places = (folder / (thing.file or thing.folder or "") for folder in folders)
    return next(filter(_is_whole, places), None)


def _is_whole(path: Path) -> bool:
    """Tell whether a file of weights is there, or a part with all its files."""
    if path.is_dir():
        return (path / snapshot.CONFIG).exists() and not snapshot.missing_of_part(path)
    return path.is_file() and path.suffix in snapshot.SINGLE_FILES


def _checkpoint(weights: Weights) -> Path | None:
    if weights.package is not None:
        places = iter([Path(str(files(weights.package)))] if find_spec(weights.package) is not None else [])
    elif weights.folder is not None:
        places = iter([weights.folder])
    else:
        places = snapshot.snapshot_folders(snapshot.shared_cache(), str(weights.repo), weights.revision)
    whole = (place for place in places if not snapshot.missing(place, weights.without, weights.bare))
    return next(whole, None)


def _parts(folder: Path) -> list[str]:
    try:
        return snapshot.parts(json.loads((folder / snapshot.INDEX).read_text()))
    except (OSError, ValueError, AttributeError):
        return []


def weights_missing(card: ModelCard) -> WeightsMissing:
    """Return the error that says what is not on this machine, and how to get it."""
    weights = card.weights
    absent = [thing for thing in weights.borrowed.values() if find_borrowed(thing) is None]
    if weights.package is not None and not absent:
        way = f"They ship with the project, in {weights.package.replace('.', '/')}; this copy of it is incomplete."
    elif weights.folder is not None and not absent:
        way = f"They were in {weights.folder}, where something is missing now."
    elif gone := [str(thing.path) for thing in absent if thing.repo is None]:
        way = f"A part of them was {', '.join(gone)}, which is there no more or not whole."
    else:
        needed = [f"{origin.repo} at revision {origin.revision}" for origin in origins(weights)]
        way = f"They are {' and '.join(needed)}; fetch them with: homereel pull {card.id}"
    return WeightsMissing(f"The weights of {card.id} are not on this machine. {way}", param="model")
