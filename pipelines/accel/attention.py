"""Attention kernels: which of them run on this machine, found out by running them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from diffusers.models.attention_dispatch import attention_backend, dispatch_attention_fn
from torch import Tensor

_log = logging.getLogger(__name__)

NATIVE = "native"
# Fastest first where nothing has been measured. PyTorch's own choice comes last since it always runs.
CANDIDATES = ("_native_cudnn", "sage", "flash", "xformers", NATIVE)
# Those of them that compute in the numbers they are given; who wants eight bits has to ask for them.
EXACT = tuple(name for name in CANDIDATES if not name.startswith("sage"))


def usable(device: str, dtype: torch.dtype, candidates: Sequence[str] = CANDIDATES) -> list[str]:
    """Return the kernels that give the right answer on a device.

    Packages may be there and still not load beside this PyTorch, or lack code for this card: only running tells.
    """
    return [name for name in candidates if _runs(name, device, dtype)]


def _runs(name: str, device: str, dtype: torch.dtype) -> bool:
    generator = torch.Generator("cpu").manual_seed(0)
    shape = (3, 1, 128, 2, 64)
    query, key, value = torch.randn(shape, generator=generator).to(device, dtype).unbind()
    # Words are padded: half of the models hide some of what is attended to, and one kernel has to serve all.
    hidden = torch.zeros(1, 2, 128, 128, device=device, dtype=dtype)
    hidden[..., 100:] = -10_000.0
    try:
        with attention_backend(name):
            return all(_is_right(query, key, value, mask) for mask in (None, hidden))
    except Exception as error:  # noqa: BLE001 - each library fails in its own way, and any failure is the answer
        _log.info("attention_unusable kernel=%s device=%s reason=%s", name, device, str(error).splitlines()[:1])
        return False


def _is_right(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> bool:
    q, k, v = (part.transpose(1, 2).float() for part in (query, key, value))
    bias = None if mask is None else mask.float()
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(1, 2)
    made = dispatch_attention_fn(query, key, value, attn_mask=mask)
    # Eight-bit kernels are off by a few percent; a broken one by far more.
    return bool((made.float() - expected).abs().mean() < 0.1 * expected.abs().mean())


def use_attention(transformer: Any, name: str) -> None:
    """Let a denoiser use a kernel. diffusers keeps the last choice for all models that make none."""
    if not hasattr(transformer, "set_attention_backend"):
        return
    # At every load it would say that this may change; constraints.txt pins what is known to work.
    library = logging.getLogger("diffusers.models.modeling_utils")
    level = library.level
    library.setLevel(logging.ERROR)
    try:
        transformer.set_attention_backend(name)
    finally:
        library.setLevel(level)
