"""LoRAs that requests name: safetensors files in a folder of the data directory, by their names, the suffix or not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipelines import snapshot
from pipelines.types import Lora
from server.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from server.parameters import LoraChoice

PARAM = "lora"
SUFFIX = ".safetensors"


def found(choices: Sequence[LoraChoice] | None, folder: Path) -> tuple[Lora, ...]:
    """Return the files that are meant.

    Raises:
        InvalidRequest: There is none of that name, or it is no LoRA.
    """
    return tuple(
        Lora(name, _path(name, folder), choice.weight)
        for choice in choices or ()
        for name in (choice.name.removesuffix(SUFFIX),)
    )


def names(folder: Path) -> list[str]:
    """Return the names of the LoRAs that are here."""
    return sorted(str(path.relative_to(folder)).removesuffix(SUFFIX) for path in folder.rglob(f"*{SUFFIX}"))


def _path(name: str, folder: Path) -> Path:
    path = folder / f"{name}{SUFFIX}"
    # Names lead nowhere else, whatever they are made of, and neither do links.
    if not path.is_file() or not path.resolve().is_relative_to(folder.resolve()):
        here = ", ".join(names(folder)[:20]) or "none"
        message = f"There is no LoRA '{name}' here; put its safetensors file into {folder.name}/. There are: {here}."
        raise InvalidRequest(message, param=PARAM, code="lora_not_found")
    if not _changes_weights(path):
        raise InvalidRequest(f"'{name}' is no LoRA in safetensors.", param=PARAM, code="invalid_lora")
    return path


def _changes_weights(path: Path) -> bool:
    """Tell whether a file's header names the two factors of a LoRA."""
    try:
        tensors, _ = snapshot.header_of(path)
    except ValueError:
        return False
    return any("lora" in name.lower() for name in tensors)
