"""Fetching weights into the shared cache of Hugging Face, whole and verified."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from pipelines import snapshot
from pipelines.card import ModelCard
from pipelines.errors import PipelineError, WeightsMissing
from pipelines.holdings import Origin, installed, origins, weights_folder

# Left free beside what is fetched: a disk that is full to the last byte takes the database with it.
SPARE_BYTES = 1 << 30
TRIES = 3
# Paths that a request can name, and that lead nowhere else.
_LORA = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*")


class HubError(PipelineError):
    """A checkpoint could not be fetched; the message says what to do."""

    code = "download_failed"


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository at a commit. ``sha256`` is None for small ones, which git keeps itself."""

    repo: str
    commit: str
    name: str
    size: int
    sha256: str | None


@dataclass(frozen=True)
class Source:
    """Where something comes from, and as what people know it.

    Attributes:
        name: What they asked for.
        repo: Of the hub.
        revision: Commit, branch or tag.
        licence: Its id, if it is known.
    """

    name: str
    repo: str
    revision: str
    licence: str = "its own"


@dataclass(frozen=True)
class Listing:
    """What a card's weights consist of.

    Attributes:
        commits: Of the repositories, the checkpoint's first.
        files: Those that are needed.
        there: Those that the cache has, with as many bytes as they should have.
        free_bytes: Room on the cache's disk.
    """

    commits: Mapping[str, str]
    files: tuple[RemoteFile, ...]
    there: frozenset[RemoteFile]
    free_bytes: int

    @property
    def total_bytes(self) -> int:
        """All of it."""
        return sum(file.size for file in self.files)

    @property
    def missing_bytes(self) -> int:
        """What is still to be fetched."""
        return sum(file.size for file in self.files if file not in self.there)


Progress = Callable[[str, int, int], None]
"""Told the file, the bytes that are done of all, and all bytes."""


def look(card: ModelCard, cache: Path) -> Listing:
    """Ask the hub what a card's weights consist of, and the cache what of it is there.

    Raises:
        HubError: The hub does not answer, does not know it, or wants a licence accepted first.
    """
    commits: dict[str, str] = {}
    files: dict[RemoteFile, None] = {}
    for origin in origins(card.weights):
        source = _source(card, origin)
        with _explained(source):
            commit, everything = _files(source)
            parts = _parts(origin.repo, commit, cache) if origin.has_checkpoint else set[str]()
        _check_whole(card, origin, parts, everything)
        commits[origin.repo] = commit
        files |= dict.fromkeys(file for file in everything if origin.needs(file.name, parts))
    return Listing(commits, tuple(files), frozenset(file for file in files if _has(cache, file)), _free(cache))


def pull(card: ModelCard, cache: Path, progress: Progress) -> Path:
    """Fetch what is missing of a card's weights, and check what was fetched and what is there: what is sound is kept.

    Without a hub (HF_HUB_OFFLINE), weights that are whole are taken as they are.

    Args:
        card: Of the model.
        cache: The shared cache; made if it is not there.
        progress: Called when a file begins and ends, and now and then between.

    Returns:
        The checkpoint's folder.

    Raises:
        HubError: It cannot be fetched, there is no room for it, or a file stays damaged however often it is fetched.
    """
    if installed(card) and _is_offline():
        return weights_folder(card)
    listing = look(card, cache)
    sources = {origin.repo: _source(card, origin) for origin in origins(card.weights)}
    _check_room(card.id, listing.missing_bytes, listing.free_bytes, cache)
    done = listing.total_bytes - listing.missing_bytes
    for file in listing.files:
        place = _in_cache(cache, file)
        if file in listing.there and file.sha256 is None:
            continue
        progress(file.name, done, listing.total_bytes)
        if file in listing.there:
            if place.is_file() and _sha256(place) == file.sha256:
                continue
            done -= file.size
        with _explained(sources[file.repo]):
            _fetch(file, cache, _meter(progress, file.name, done, listing.total_bytes))
        done += file.size
        progress(file.name, done, listing.total_bytes)
    for origin in origins(card.weights):
        with _explained(_source(card, origin)):
            # The branch's name is written down last: what it leads to is whole.
            _download(origin.repo, origin.first, revision=origin.revision, cache_dir=cache)
    try:
        return weights_folder(card)
    except WeightsMissing as error:
        raise HubError(f"{card.id} was fetched, and is not whole all the same. {error.message}") from error


def pull_lora(source: Source, file: str | None, cache: Path, folder: Path, progress: Progress) -> Path:
    """Fetch a LoRA into a folder, as ``OWNER/NAME/FILE``, by way of the cache.

    Args:
        source: Its repository.
        file: Its path there; None if there is but one that it can be.
        cache: The shared cache; made if it is not there.
        folder: Where requests find LoRAs.
        progress: Called when the file begins and ends, and now and then between.

    Returns:
        The file.

    Raises:
        HubError: It cannot be fetched, there is no room for it, or nobody knows which of several files is meant.
    """
    with _explained(source):
        _, everything = _files(source)
    able = {one.name: one for one in everything if one.name.endswith(".safetensors") and _LORA.fullmatch(one.name)}
    if file is None and len(able) == 1:
        file = next(iter(able))
    if file is None or file not in able:
        there = ", ".join(sorted(able)) or "none"
        raise HubError(f"Say with --file which safetensors file of {source.repo} is meant. There are: {there}.")
    wanted = able[file]
    _check_room(source.name, 2 * wanted.size, _free(cache), cache)
    progress(file, 0, wanted.size)
    with _explained(source):
        _fetch(wanted, cache, _meter(progress, file, 0, wanted.size))
    target = folder / source.repo / file
    target.parent.mkdir(parents=True, exist_ok=True)
    half = target.with_suffix(".part")
    # Not a link: what requests name has to be in the folder itself.
    shutil.copyfile(_in_cache(cache, wanted), half)
    half.replace(target)
    progress(file, wanted.size, wanted.size)
    return target


def _files(source: Source) -> tuple[str, list[RemoteFile]]:
    """Return the commit that a revision means, and all files there."""
    from huggingface_hub import HfApi  # noqa: PLC0415 - heavy, and seldom needed

    found = HfApi().model_info(source.repo, revision=source.revision, files_metadata=True)
    commit, siblings = str(found.sha), found.siblings or []
    return commit, [
        RemoteFile(source.repo, commit, s.rfilename, s.size or 0, s.lfs.sha256 if s.lfs else None) for s in siblings
    ]


def _source(card: ModelCard, origin: Origin) -> Source:
    # The licence that the card tells is the checkpoint's.
    licence = card.licence.id if origin.has_checkpoint else "its own"
    return Source(card.id, origin.repo, origin.revision, licence)


def _check_room(name: str, missing: int, free: int, cache: Path) -> None:
    if missing + SPARE_BYTES > free:
        raise HubError(
            f"{name} needs {_gb(missing)} more, and {_gb(free)} are free on the disk of "
            f"{cache}, of which {_gb(SPARE_BYTES)} stay free. Make room, or let HF_HUB_CACHE name another disk."
        )


def _download(repo: str, name: str, **how: Any) -> str:
    """Fetch one file into the cache, or find it there."""
    library: Any = import_module("huggingface_hub")
    return library.hf_hub_download(repo, name, **how)


def _parts(repo: str, commit: str, cache: Path) -> set[str]:
    text = Path(_download(repo, snapshot.INDEX, revision=commit, cache_dir=cache)).read_text()
    try:
        return set(snapshot.parts(json.loads(text)))
    except (ValueError, AttributeError) as error:
        raise HubError(f"{repo} has no sound {snapshot.INDEX}: {error}.") from error


def _check_whole(card: ModelCard, origin: Origin, parts: Collection[str], files: Sequence[RemoteFile]) -> None:
    names = {file.name for file in files}
    absent = sorted((origin.files | {f"{folder}/{snapshot.CONFIG}" for folder in origin.folders}) - names)
    if absent:
        raise HubError(
            f"{origin.repo} at revision {origin.revision} has no {', '.join(absent)}, which {card.id} needs."
        )
    needed = {name.rpartition("/")[::2] for name in names if origin.needs(name, parts)}
    with_config = {folder for folder, file in needed if file == snapshot.CONFIG}
    with_weights = {folder for folder, file in needed if file.endswith(".safetensors")}
    unsafe = sorted(with_config - with_weights - origin.bare)
    if unsafe:
        raise HubError(
            f"{card.id}: {', '.join(unsafe)} comes without safetensors. Pickled weights are programs: none are loaded."
        )


def _has(cache: Path, file: RemoteFile) -> bool:
    """Tell whether a file is in the cache, perhaps by another commit alone, and as long as it should be."""
    blob = snapshot.repository_folder(cache, file.repo) / "blobs" / (file.sha256 or "")
    path = next((path for path in (_in_cache(cache, file), blob) if path.is_file()), None)
    return path is not None and path.stat().st_size == file.size


def _in_cache(cache: Path, file: RemoteFile) -> Path:
    return snapshot.repository_folder(cache, file.repo) / "snapshots" / file.commit / file.name


def _drop(path: Path) -> None:
    """Remove a file of the cache: the blob, not only the link to it."""
    path.resolve().unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def _is_offline() -> bool:
    from huggingface_hub import is_offline_mode  # noqa: PLC0415 - heavy, and seldom needed

    return is_offline_mode()


def _fetch(file: RemoteFile, cache: Path, bar: type) -> None:
    # What the cache has of it is damaged, or else nobody would fetch it.
    _drop(_in_cache(cache, file))
    for _ in range(TRIES):
        path = Path(_download(file.repo, file.name, revision=file.commit, cache_dir=cache, tqdm_class=bar))
        if file.sha256 is None or _sha256(path) == file.sha256:
            return
        _drop(path)
    raise HubError(
        f"{file.name} of {file.repo} arrived damaged {TRIES} times; the connection or the hub's copy is broken."
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _meter(progress: Progress, name: str, before: int, total: int) -> type:
    """Return what huggingface_hub takes for a progress bar, and which draws nothing."""
    bar: type[Any] = import_module("tqdm").tqdm

    class Meter(bar):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.pop("name", None)
            bar.__init__(self, *args, **{**kwargs, "disable": False, "file": _Nowhere()})

        def update(self, n: float | None = 1) -> bool | None:
            shown: bool | None = bar.update(self, n)
            progress(name, before + int(self.n), total)
            return shown

    return Meter


class _Nowhere:
    def write(self, text: str) -> None:
        del text

    def flush(self) -> None: ...


@contextmanager
def _explained(source: Source) -> Generator[None]:
    """Turn what huggingface_hub raises into sentences that say what would help."""
    from huggingface_hub import errors  # noqa: PLC0415 - heavy, and seldom needed

    # What a broken connection raises comes through as it is.
    broken: type[Exception] = import_module("httpx2").TransportError
    repo = source.repo
    try:
        yield
    except errors.GatedRepoError as error:
        raise HubError(
            f"{repo} is gated: accept its licence at https://huggingface.co/{repo} ({source.licence}), then sign in "
            "with `hf auth login`, or set HF_TOKEN."
        ) from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise HubError(
            f"The hub has no {repo} at revision {source.revision}, or shows it only to whom is signed in: "
            "`hf auth login`, or HF_TOKEN."
        ) from error
    except errors.OfflineModeIsEnabled as error:
        raise HubError(f"{repo} is not whole in the cache, and HF_HUB_OFFLINE forbids to fetch it.") from error
    except (OSError, broken) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise HubError(f"The disk was full before {source.name} was whole; what has arrived is kept.") from error
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise HubError(f"{repo} cannot be fetched: {reason} What has arrived is kept; try again.") from error


def _free(cache: Path) -> int:
    there = next(folder for folder in (cache, *cache.parents) if folder.exists())
    return shutil.disk_usage(os.fspath(there)).free


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
