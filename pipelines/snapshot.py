"""Checkpoints on disk: where the shared cache of Hugging Face has them, and whether all of one is there.

Reads folders only; ``pipelines.hub`` fills them. The layout is that of ``huggingface_hub``: ``refs`` name commits,
``snapshots/COMMIT`` holds links to blobs, and a blob that is still being downloaded has no link.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Collection, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

INDEX = "model_index.json"
CONFIG = "config.json"
# What a part of a pipeline is made of. Pickles are programs: they are neither fetched nor loaded.
NEEDED = (".json", ".txt", ".model", ".safetensors")
GGUF = ".gguf"
SINGLE_FILES = (".safetensors", GGUF)
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
# The largest header that the format allows.
_MAX_HEADER = 100_000_000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


def shared_cache() -> Path:
    """Return the folder of the cache, as the variables of Hugging Face name it."""
    from huggingface_hub import constants  # noqa: PLC0415 - reads the environment, which is its business

    return Path(constants.HF_HUB_CACHE)


def repository_folder(cache: Path, repo: str) -> Path:
    """Return the folder of a repository, which need not be there."""
    return cache / f"models--{repo.replace('/', '--')}"


def snapshot_folder(cache: Path, repo: str, revision: str) -> Path:
    """Return the folder of a repository at a commit, or at what names one; it need not be there."""
    return next(snapshot_folders(cache, repo, revision))


def snapshot_folders(cache: Path, repo: str, revision: str) -> Iterator[Path]:
    """Yield the folder of a repository at a revision, and where that names commits, those of others, newest first.

    A name may have moved on when something else of the repository was fetched; what was whole before still is.
    """
    folder = repository_folder(cache, repo)
    try:
        commit = (folder / "refs" / revision).read_text().strip()
    except OSError:
        yield folder / "snapshots" / revision
        return
    yield folder / "snapshots" / commit
    others = [path for path in (folder / "snapshots").glob("*") if path.name != commit]
    yield from sorted(others, key=lambda path: path.stat().st_mtime, reverse=True)


def parts(index: dict[str, object]) -> list[str]:
    """Return the folders that a pipeline's index names; a part that is null is not there on purpose.

    Raises:
        ValueError: A part is called by what is no name of a folder, such as a path that leads elsewhere.
    """
    names = [name for name, value in index.items() if made_by(value) and not name.startswith("_")]
    wrong = [name for name in names if not _NAME.fullmatch(name)]
    if wrong:
        raise ValueError(f"{wrong[0]!r} is no name of a part")
    return names


def made_by(entry: object) -> tuple[str, str] | None:
    """Return the library and the class that an entry of an index names; None if it names no part.

    Indexes of modular pipelines say more of a part beside the two, or there alone.
    """
    said: list[Any] = cast("list[Any]", entry) if isinstance(entry, list) else []
    if len(said) > 2 and not all(said[:2]):
        said = said[2].get("type_hint") or []
    return (str(said[0]), str(said[1])) if len(said) > 1 and all(said[:2]) else None


def missing(folder: Path, without: Collection[str] = (), bare: Collection[str] = ()) -> list[str]:
    """Return what a checkpoint lacks to be whole: the paths of files below its folder, or a phrase.

    Args:
        folder: The checkpoint's.
        without: Parts that it need not have.
        bare: Parts of which it needs the configuration alone.
    """
    try:
        names = parts(json.loads((folder / INDEX).read_text()))
    except OSError:
        return [INDEX]
    except (ValueError, AttributeError) as error:
        return [f"a sound {INDEX} ({error})"]
    lacking: list[str] = []
    for name in names:
        if name in without:
            continue
        if name not in bare:
            lacking += [f"{name}/{file}" for file in missing_of_part(folder / name)]
        elif not (folder / name / CONFIG).exists():
            lacking.append(f"{name}/{CONFIG}")
    return lacking


def missing_of_part(part: Path) -> list[str]:
    """Return what a part lacks to be whole: the names of files in its folder; an empty one if all of it."""
    if not part.is_dir():
        return [""]
    lacking: list[str] = []
    for index in part.glob("*.safetensors.index.json"):
        try:
            shards = set(json.loads(index.read_text())["weight_map"].values())
        except (OSError, ValueError, KeyError, AttributeError):
            return [index.name]
        lacking += [shard for shard in sorted(shards) if not (part / shard).exists()]
    # Schedulers and tokenizers have a configuration and no weights.
    if (part / CONFIG).exists() and not any(part.glob("*.safetensors*")):
        lacking.append("*.safetensors")
    return lacking


def programs(folder: Path) -> list[str]:
    """Return what of a whole checkpoint would have to be run to be loaded, a phrase each.

    Pickles, modules in Python, configurations that name such modules, and parts whose class is none of diffusers or
    transformers.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    found = [f"{path.relative_to(folder)} is pickled" for path in paths if path.suffix in PICKLES]
    found += [f"{path.relative_to(folder)} is a program" for path in paths if path.suffix == ".py"]
    found += [f"{path.relative_to(folder)} names a program" for path in paths if _has_auto_map(path)]
    index = json.loads((folder / INDEX).read_text())
    makers = {name: made_by(index[name]) for name in parts(index)}
    return found + [
        f"{name} is made by {maker[0]}" for name, maker in makers.items() if maker and not _is_known(maker[0])
    ]


def _has_auto_map(path: Path) -> bool:
    if path.suffix != ".json" or path.name.endswith(".index.json"):
        return False
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and "auto_map" in config


def _is_known(library: object) -> bool:
    """Tell whether a part's class comes from the two libraries, one of whose folders may be named instead."""
    if library in ("diffusers", "transformers"):
        return True
    spec = find_spec("diffusers")
    roots = spec.submodule_search_locations if spec and spec.submodule_search_locations else ()
    folders = [Path(root) / "pipelines" / str(library) for root in roots]
    return str(library).isidentifier() and any(folder.is_dir() for folder in folders)


def header_of(file: Path) -> tuple[dict[str, Any], int]:
    """Return the header of a safetensors file, each tensor's dtype, shape and offsets, and where the tensors begin.

    Raises:
        ValueError: It has none.
        OSError: It cannot be read.
    """
    try:
        with file.open("rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
            if length > _MAX_HEADER:
                raise ValueError("the header is too long")
            header: dict[str, Any] = json.loads(opened.read(length))
        tensors = {name: tensor for name, tensor in header.items() if name != "__metadata__"}
        for tensor in tensors.values():
            begin, end = tensor["data_offsets"]
            if not 0 <= int(begin) <= int(end):
                raise ValueError("a tensor ends before it begins")
    except (KeyError, TypeError, struct.error, AttributeError) as error:
        raise ValueError("no header of the format") from error
    return tensors, 8 + length


def flaw_of(file: Path) -> str | None:
    """Return what is wrong with a file of weights, judged by its header and its size; None if nothing is."""
    if file.suffix == GGUF:
        return _flaw_of_gguf(file)
    try:
        tensors, start = header_of(file)
        missing = start + max((tensor["data_offsets"][1] for tensor in tensors.values()), default=0)
        missing -= file.stat().st_size
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except ValueError:
        return "is no safetensors file"
    return f"{missing} bytes are missing" if missing > 0 else None


def size_of(path: Path) -> int:
    """Return how many bytes a file takes, or all files in a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def weights_in_gguf(file: Path) -> dict[str, int]:
    """Return how many weights each tensor of a sound GGUF file has."""
    from gguf import GGUFReader  # noqa: PLC0415 - seldom needed

    return {tensor.name: int(tensor.n_elements) for tensor in GGUFReader(file).tensors}


def _flaw_of_gguf(file: Path) -> str | None:
    from gguf import GGUFReader  # noqa: PLC0415 - seldom needed

    try:
        # Every tensor is looked for where the header says, and none is read.
        GGUFReader(file)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except Exception:  # noqa: BLE001 - it raises whatever goes wrong first in what it takes for a header
        return "is no GGUF file, or is cut short"
    return None


def is_weights(name: str, folders: Collection[str]) -> bool:
    """Tell whether a file of a repository belongs to one of the parts in these folders."""
    folder, _, file = name.rpartition("/")
    return folder in folders and name.endswith(NEEDED) and not _is_variant(file)


def _is_variant(file: str) -> bool:
    """Tell whether a file holds the same weights in other numbers: ``model.fp16-00001-of-2.safetensors``."""
    return ".safetensors" in file and any(f".{dtype}" in file for dtype in ("fp16", "bf16", "fp32", "fp8"))
