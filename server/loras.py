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
    if not path.is_file() and len(inside := list((folder / name).rglob(f"*{SUFFIX}"))) == 1:
        # A repository with one file is called by its own name.
        path = inside[0]
    # Names lead nowhere else, whatever they are made of, and neither do links.
    if not path.is_file() or not path.resolve().is_relative_to(folder.resolve()):
        here = ", ".join(names(folder)[:20]) or "none"
        ways = f"put its safetensors file into {folder.name}/, or fetch it: homereel pull OWNER/NAME --lora"
        message = f"There is no LoRA '{name}' here; {ways}. There are: {here}."
        raise InvalidRequest(message, param=PARAM, code="lora_not_found")
    if not changes_weights(path):
        raise InvalidRequest(f"'{name}' is no LoRA in safetensors.", param=PARAM, code="invalid_lora")
    return path


def changes_weights(path: Path) -> bool:
    """Tell whether a file's header names the two factors of a LoRA."""
    try:
        tensors, _ = snapshot.header_of(path)
    except ValueError:
        return False
    return any("lora" in name.lower() for name in tensors)
