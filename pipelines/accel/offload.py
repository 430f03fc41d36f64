"""Parts that do not fit the device: denoisers a few blocks or one layer at a time, text encoders not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import nn

from pipelines.plan import MemoryPlan, Offload

_FOLDER = "homereel-offload-"


def offload_blocks(transformer: Any, plan: MemoryPlan) -> Path | None:
    """Keep a denoiser in RAM (or on disk) and send its blocks to the device just before they are needed.

    With a GPU the next block travels while the one before computes.

    Returns:
        The folder on the disk, for the caller to remove in the end; None if there is none.
    """
    streams = plan.device.startswith("cuda")
    by_layer = plan.offload is Offload.SEQUENTIAL
    folder = _disk_folder() if plan.offload is Offload.DISK else None
    transformer.enable_group_offload(
        onload_device=torch.device(plan.device),
        offload_device=torch.device("cpu"),
        offload_type="leaf_level" if by_layer else "block_level",
        num_blocks_per_group=None if by_layer else 1,
        use_stream=streams,
        non_blocking=streams,
        low_cpu_mem_usage=streams,
        offload_to_disk_path=None if folder is None else str(folder),
    )
    return folder


def stay_on_cpu(part: nn.Module, device: str) -> None:
    """Let a part compute on the CPU within a pipeline that computes on ``device``: it takes and gives tensors there."""

    def go(_part: nn.Module, _args: Any, output: Any) -> Any:
        return send_to_device(output, device)

    take_on_cpu(part)
    part.register_forward_hook(go)


def take_on_cpu(part: nn.Module) -> None:
    """Let a part that stays on the CPU take tensors from wherever they are; what it gives is left to who called it."""

    def come(_part: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
        return send_to_device(args, "cpu"), send_to_device(kwargs, "cpu")

    part.register_forward_pre_hook(come, with_kwargs=True)


def _disk_folder() -> Path:
    """Return a new folder of this process, after removing those of processes that died and could not."""
    root = Path(tempfile.gettempdir())
    for left in root.glob(f"{_FOLDER}*-*"):
        owner = left.name.removeprefix(_FOLDER).partition("-")[0]
        if owner.isdecimal() and not _lives(int(owner)):
            shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{_FOLDER}{os.getpid()}-"))


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
