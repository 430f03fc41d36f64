"""Denoisers from a single file in the layout of the original code, which a card borrows: GGUF, or safetensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import GGUFQuantizationConfig
from diffusers.loaders.single_file_utils import load_single_file_checkpoint

from pipelines.errors import WeightsMissing
from pipelines.snapshot import GGUF

# Layers that LTX-2.3 added, which diffusers 0.42.1 has by another name but does not translate.
_ADDED = {"LTX2VideoTransformer3DModel": ("prompt_adaln_single.", "prompt_adaln.")}

_LACKING = "it lacks weights of this model"


def is_quantised(part: Any) -> bool:
    """Tell whether a part's weights stay as a file has them until a layer computes."""
    return getattr(part, "hf_quantizer", None) is not None


def load_single(kind: Any, file: Path, config: Path, dtype: torch.dtype) -> Any:
    """Load a part.

    Args:
        kind: Its class in diffusers.
        file: GGUF, whose layers keep their bits and are widened one at a time when they compute; or safetensors.
        config: Folder of the part in the checkpoint, of which the configuration alone is read.
        dtype: What it computes in.

    Raises:
        WeightsMissing: The file cannot be read, or is one of another model.
    """
    if not hasattr(kind, "from_single_file"):
        raise WeightsMissing(f"{file.name} cannot be used as {config.name}: diffusers reads no such file of this model")
    packed = {"quantization_config": GGUFQuantizationConfig(compute_dtype=dtype)} if file.suffix == GGUF else {}
    try:
        part = kind.from_single_file(
            _content(kind, file),
            config=str(config.parent),
            subfolder=config.name,
            dtype=dtype,
            local_files_only=True,
            **packed,
        )
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        # Whoever reads files of this format raises whatever goes wrong first in them.
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        if "meta tensor" in reason:
            reason = _LACKING
        raise WeightsMissing(f"{file.name} cannot be used as {config.name}: {reason}") from error
    # Not every class finds out by itself.
    if any(weight.is_meta for weight in part.parameters()):
        raise WeightsMissing(f"{file.name} cannot be used as {config.name}: {_LACKING}")
    return part


def _content(kind: Any, file: Path) -> str | dict[str, Any]:
    """Return what diffusers is given to read: the file, or its tensors by names that it knows."""
    if kind.__name__ not in _ADDED:
        return str(file)
    theirs, ours = _ADDED[kind.__name__]
    tensors: Any = load_single_file_checkpoint(str(file), local_files_only=True)
    return {name.replace(theirs, ours): tensor for name, tensor in tensors.items()}
