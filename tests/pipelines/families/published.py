"""Tiny files in the layouts in which others publish what belongs to models: with the names of the original code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

# Layers of Wan's denoiser by the names of diffusers, and of the original.
_IN_BLOCKS: Mapping[str, str] = {
    "attn1.to_q": "self_attn.q", "attn1.to_k": "self_attn.k", "attn1.to_v": "self_attn.v",
    "attn1.to_out.0": "self_attn.o", "attn2.to_q": "cross_attn.q", "attn2.to_k": "cross_attn.k",
    "attn2.to_v": "cross_attn.v", "attn2.to_out.0": "cross_attn.o", "attn2.add_k_proj": "cross_attn.k_img",
    "attn2.add_v_proj": "cross_attn.v_img", "ffn.net.0.proj": "ffn.0", "ffn.net.2": "ffn.2",
}  # fmt: skip
_OUTSIDE: Mapping[str, str] = {
    "condition_embedder.text_embedder.linear_1": "text_embedding.0",
    "condition_embedder.text_embedder.linear_2": "text_embedding.2",
    "condition_embedder.time_embedder.linear_1": "time_embedding.0",
    "condition_embedder.time_embedder.linear_2": "time_embedding.2",
    "condition_embedder.time_proj": "time_projection.1",
    "condition_embedder.image_embedder.ff.net.0.proj": "img_emb.proj.1",
    "condition_embedder.image_embedder.ff.net.2": "img_emb.proj.3",
    "proj_out": "head.head",
}


def original_name(name: str) -> str:
    """Return what the original code calls a layer of Wan's denoiser."""
    if not name.startswith("blocks."):
        return _OUTSIDE[name]
    _, number, layer = name.split(".", 2)
    return f"blocks.{number}.{_IN_BLOCKS[layer]}"


def wan_lora(denoiser: nn.Module, file: Path, *, alpha: float | None, everywhere: bool = False, rank: int = 4) -> Path:
    """Write a LoRA with random weights.

    Args:
        denoiser: For whose layers.
        file: Where to.
        alpha: By which, over the rank, it is multiplied; None leaves that out, as some publishers do.
        everywhere: Beside the blocks' layers also those around them, with biases and with what nobody reads.
        rank: Of its matrices.
    """
    tensors: dict[str, Tensor] = {}
    for name, layer in denoiser.named_modules():
        if not isinstance(layer, nn.Linear) or not (everywhere or name.startswith("blocks.")):
            continue
        key = f"diffusion_model.{original_name(name)}"
        tensors[f"{key}.lora_down.weight"] = torch.randn(rank, layer.in_features) / 4
        tensors[f"{key}.lora_up.weight"] = torch.randn(layer.out_features, rank) / 4
        if alpha is not None:
            tensors[f"{key}.alpha"] = torch.tensor(alpha)
        if everywhere:
            tensors[f"{key}.diff_b"] = torch.randn(layer.out_features) / 4
    if everywhere:
        tensors["diffusion_model.blocks.0.diff_m"] = torch.randn(1, 6, 24)
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, file)
    return file
