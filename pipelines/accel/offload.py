"""Denoisers that do not fit the device as a whole: a few blocks, or one layer, at a time."""

from __future__ import annotations

import tempfile
from typing import Any

import torch

from pipelines.plan import MemoryPlan, Offload


def offload_blocks(transformer: Any, plan: MemoryPlan) -> None:
    """Keep a denoiser in RAM (or on disk) and send its blocks to the device just before they are needed.

    With a GPU the next block travels while the one before computes.
    """
    streams = plan.device.startswith("cuda")
    by_layer = plan.offload is Offload.SEQUENTIAL
    # Goes with the process: the weights are in the checkpoint all the same.
    folder = tempfile.mkdtemp(prefix="homereel-offload-") if plan.offload is Offload.DISK else None
    transformer.enable_group_offload(
        onload_device=torch.device(plan.device),
        offload_device=torch.device("cpu"),
        offload_type="leaf_level" if by_layer else "block_level",
        num_blocks_per_group=None if by_layer else 1,
        use_stream=streams,
        non_blocking=streams,
        low_cpu_mem_usage=streams,
        offload_to_disk_path=folder,
    )
