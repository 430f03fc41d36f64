"""Weights in a byte each: half the memory of a denoiser, computed in what the plan says."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch

from pipelines.accel.single_file import is_quantised
from pipelines.errors import UnsupportedOption
from pipelines.plan import MemoryPlan, Quantisation


def quantize(transformer: Any, plan: MemoryPlan) -> None:
    """Store a denoiser's weights as the plan says; embeddings and norms keep their numbers.

    Raises:
        UnsupportedOption: The package that does it is not installed, or they come in fewer bits already.
    """
    if is_quantised(transformer) and plan.quantisation in (Quantisation.FP8, Quantisation.INT8):
        raise UnsupportedOption(f"These weights come quantised and cannot be stored as {plan.quantisation} as well.")
    match plan.quantisation:
        case Quantisation.NONE | Quantisation.GGUF:
            return
        case Quantisation.FP8:
            transformer.enable_layerwise_casting(
                storage_dtype=torch.float8_e4m3fn, compute_dtype=getattr(torch, plan.dtype)
            )
        case Quantisation.INT8:
            _int8(transformer)


def _int8(transformer: Any) -> None:
    try:
        torchao: Any = import_module("torchao.quantization")
    except ImportError as error:
        raise UnsupportedOption(
            "int8 weights need the package torchao: pip install 'homereel[quantisation]'."
        ) from error
    transformer.requires_grad_(requires_grad=False)
    torchao.quantize_(transformer, torchao.Int8WeightOnlyConfig(version=2))
