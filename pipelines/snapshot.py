"""Checkpoints on disk: where the shared cache of Hugging Face has them, and whether all of one is there.

Reads folders only; ``pipelines.hub`` fills them. The layout is that of ``huggingface_hub``: ``refs`` name commits,
``snapshots/COMMIT`` holds links to blobs, and a blob that is still being downloaded has no link.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

INDEX = "model_index.json"
# What a part of a pipeline is made of. Pickles are programs: they are neither fetched nor loaded.
NEEDED = (".json", ".txt", ".model", ".safetensors")
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


def shared_cache() -> Path:
    """Return the folder of the cache, as the variables of Hugging Face name it."""
    from huggingface_hub import constants  # noqa: PLC0415 - reads the environment, which is its business

    return Path(constants.HF_HUB_CACHE)


def repository_folder(cache: Path, repo: str) -> Path:
    """Return the folder of a repository, which need not be there."""
    return cache / f"models--{repo.replace('/', '--')}"


def find(cache: Path, repo: str, revision: str) -> Path | None:
    """Return the folder of a whole snapshot, or None if it is not there or lacks a file."""
    folder = repository_folder(cache, repo)
    try:
        commit = (folder / "refs" / revision).read_text().strip()
    except OSError:
        commit = revision
    snapshot = folder / "snapshots" / commit
    return snapshot if not missing(snapshot) else None


def parts(index: dict[str, object]) -> list[str]:
    """Return the folders that a pipeline's index names; a part that is null is not there on purpose."""
    lists = {name: cast("list[object]", value) for name, value in index.items() if isinstance(value, list)}
    return [name for name, value in lists.items() if all(value) and not name.startswith("_")]


def missing(folder: Path) -> list[str]:
    """Return the files without which a checkpoint is not whole, as paths below its folder."""
    try:
        index = json.loads((folder / INDEX).read_text())
        names = parts(index)
    except (OSError, ValueError, AttributeError):
        return [INDEX]
    return [lacking for name in names for lacking in _missing_of_part(folder, name)]


def _missing_of_part(folder: Path, name: str) -> list[str]:
    part = folder / name
    if not part.is_dir():
        return [f"{name}/"]
    lacking: list[str] = []
    for index in part.glob("*.safetensors.index.json"):
        try:
            shards = set(json.loads(index.read_text())["weight_map"].values())
        except (OSError, ValueError, KeyError, AttributeError):
            return [f"{name}/{index.name}"]
        lacking += [f"{name}/{shard}" for shard in sorted(shards) if not (part / shard).exists()]
    # Schedulers and tokenizers have a configuration and no weights.
    if (part / "config.json").exists() and not any(part.glob("*.safetensors*")):
        lacking.append(f"{name}/*.safetensors")
    return lacking


def pickles(folder: Path) -> list[str]:
    """Return the files of a checkpoint that are programs, as paths below its folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.suffix in PICKLES)


def size_of(folder: Path) -> int:
    """Return how many bytes the files of a snapshot take."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def is_needed(name: str, names: set[str]) -> bool:
    """Tell whether a file of a repository belongs to its pipeline.

    Args:
        name: Path of the file in the repository.
        names: The parts of the pipeline.
    """
    folder, _, file = name.rpartition("/")
    if name == INDEX:
        return True
    return folder in names and name.endswith(NEEDED) and not _is_variant(file)


def _is_variant(file: str) -> bool:
    """Tell whether a file holds the same weights in other numbers: ``model.fp16-00001-of-2.safetensors``."""
    return ".safetensors" in file and any(f".{dtype}" in file for dtype in ("fp16", "bf16", "fp32", "fp8"))
