"""Tiny files in the layouts in which others publish what belongs to models: with the names of the original code."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import quantize
from numpy.typing import NDArray
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


def wan_gguf(denoiser: nn.Module, file: Path) -> Path:
    """Write a denoiser of Wan as a GGUF file."""

    def theirs(name: str) -> str:
        layer, _, kind = name.rpartition(".")
        is_linear = isinstance(denoiser.get_submodule(layer), nn.Linear)
        return f"{original_name(layer)}.{kind}" if is_linear else _original_tensor(name)

    return _gguf(denoiser, file, "wan", theirs, inside="blocks.")


def ltx_gguf(denoiser: nn.Module, file: Path, *, beside: Mapping[str, Tensor] | None = None) -> Path:
    """Write a denoiser of LTX-Video or LTX-2 as a GGUF file, with other tensors beside its own."""
    return _gguf(denoiser, file, "ltxv", _original_of_ltx, inside="transformer_blocks.", beside=beside)


def _gguf(
    denoiser: nn.Module,
    file: Path,
    kind: str,
    theirs: Callable[[str], str],
    *,
    inside: str,
    beside: Mapping[str, Tensor] | None = None,
) -> Path:
    """Write a denoiser as converters do: layers of blocks in few bits, the rest as it is.

    Layers whose rows are whole blocks of 256 get four bits and random values, since nobody packs such in Python.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    writer = GGUFWriter(file, kind)
    for name, value in denoiser.state_dict().items():
        layer, _, tensor = name.rpartition(".")
        is_linear = isinstance(denoiser.get_submodule(layer), nn.Linear)
        key, numbers = theirs(name), value.float().numpy()
        if not (is_linear and tensor == "weight" and name.startswith(inside)):
            writer.add_tensor(key, numbers)
        elif numbers.shape[1] % 256 == 0:
            writer.add_tensor(key, _random_q4_k(numbers.shape), raw_dtype=GGMLQuantizationType.Q4_K)
        else:
            writer.add_tensor(key, quantize(numbers, GGMLQuantizationType.Q8_0), raw_dtype=GGMLQuantizationType.Q8_0)
    for name, value in (beside or {}).items():
        writer.add_tensor(name, value.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _original_of_ltx(name: str) -> str:
    """Return what the original code calls a tensor of LTX's denoisers."""
    for ours, theirs in (
        (r"^(audio_)?proj_in\.", r"\1patchify_proj."), (r"^(audio_)?time_embed\.", r"\1adaln_single."),
        (r"^(audio_)?prompt_adaln\.", r"\1prompt_adaln_single."),
        (r"^av_cross_attn_(video|audio)_scale_shift\.", r"av_ca_\1_scale_shift_adaln_single."),
        (r"^av_cross_attn_(?:video|audio)_(a2v|v2a)_gate\.", r"av_ca_\1_gate_adaln_single."),
        (r"(video|audio)_a2v_cross_attn_scale_shift_table", r"scale_shift_table_a2v_ca_\1"),
        (r"norm_(q|k)\.", r"\1_norm."),
    ):  # fmt: skip
        name = re.sub(ours, theirs, name)
    return name


def _original_tensor(name: str) -> str:
    """Return what the original code calls a tensor that is of no linear layer."""
    for ours, theirs in (
        ("scale_shift_table", "modulation"), (".norm2.", ".norm3."), ("attn1", "self_attn"), ("attn2", "cross_attn"),
        ("norm_added_k", "norm_k_img"), ("condition_embedder.image_embedder.norm1", "img_emb.proj.0"),
        ("condition_embedder.image_embedder.norm2", "img_emb.proj.4"),
    ):  # fmt: skip
        name = name.replace(ours, theirs)
    return f"head.{name}" if name == "modulation" else name


def _random_q4_k(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return blocks of 144 bytes: two scales in half precision, twelve bytes of smaller ones, and 256 halves of one."""
    rows, columns = shape
    blocks = np.random.default_rng(0).integers(0, 256, (rows, columns // 256, 144), dtype=np.uint8)
    blocks[..., :4] = np.array([2e-4, 1e-3], dtype=np.float16).view(np.uint8)
    return blocks.reshape(rows, -1)
