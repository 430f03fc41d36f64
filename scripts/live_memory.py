"""Peaks of live tensors beside the weights, per card and shape, without a GPU and without memory: fake tensors at true
size. What cards say under `memory` comes from here until a GPU says otherwise; cuDNN's workspaces and the allocator's
gaps are not in it.

    python -m scripts.live_memory wan2.1-vace-14b 832x480x81 1280x720x81
"""

from __future__ import annotations

import gc
import math
import sys
import weakref
from collections.abc import Callable
from typing import Any

import diffusers
import torch
import transformers
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers.initialization import no_init_weights

from pipelines.registry import load_registry
from pipelines.types import VideoShape
from scripts import random_weights

Inputs = Callable[[Any, VideoShape, Callable[..., torch.Tensor]], dict[str, Any]]


class Live(TorchDispatchMode):
    """Adds up the storages that operators make, until they are freed; those of a model's weights do not count."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        # Operators hand views of weights around.
        weights = [*model.parameters(), *model.buffers()]
        self._sizes: dict[int, int] = {StorageWeakRef(weight.untyped_storage()).cdata: 0 for weight in weights}
        self.now = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                self._note(tensor.untyped_storage())
        return made

    def _note(self, storage: Any) -> None:
        key = StorageWeakRef(storage).cdata
        if key in self._sizes:
            return
        self._sizes[key] = storage.nbytes()
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, key)

    def _gone(self, key: int) -> None:
        self.now -= self._sizes.pop(key, 0)


def peak_of(model: nn.Module, run: Callable[[], object]) -> int:
    gc.collect()
    with torch.no_grad(), Live(model) as live:
        made = run()
        del made
    return live.peak


def wan(model: Any, shape: VideoShape, tensor: Callable[..., torch.Tensor]) -> dict[str, Any]:
    """What the denoiser of Wan takes at a step; VACE's takes what is given in 96 channels beside."""
    config = model.config
    side = 16 if config.out_channels == 48 else 8
    grid = ((shape.frames - 1) // 4 + 1, shape.height // side, shape.width // side)
    per_token = config.out_channels == 48
    tokens = grid[0] * grid[1] * grid[2] // 4
    inputs: dict[str, Any] = {
        "hidden_states": tensor(1, config.in_channels, *grid),
        "timestep": tensor(1, tokens, dtype=torch.float32) if per_token else tensor(1, dtype=torch.float32),
        "encoder_hidden_states": tensor(1, 512, config.text_dim),
    }
    if config.get("image_dim"):
        inputs["encoder_hidden_states_image"] = tensor(1, 257, config.image_dim)
    if config.get("vace_layers"):
        inputs["control_hidden_states"] = tensor(1, config.vace_in_channels, *grid)
    return inputs


def kandinsky(model: Any, shape: VideoShape, tensor: Callable[..., torch.Tensor]) -> dict[str, Any]:
    """What the denoiser of Kandinsky 5 takes at a step: latents, a picture's and where it is, all in a row."""
    grid = ((shape.frames - 1) // 4 + 1, shape.height // 8, shape.width // 8)
    words = 256
    return {
        "hidden_states": tensor(1, *grid, 2 * model.config.in_visual_dim + 1),
        "encoder_hidden_states": tensor(1, words, model.config.in_text_dim),
        "pooled_projections": tensor(1, model.config.in_text_dim2),
        "timestep": tensor(1),
        "visual_rope_pos": [torch.arange(side) for side in (grid[0], grid[1] // 2, grid[2] // 2)],
        "text_rope_pos": torch.arange(words),
    }


def kandinsky_sounding(model: Any, shape: VideoShape, tensor: Callable[..., torch.Tensor]) -> dict[str, Any]:
    """What the denoiser of Kandinsky 6 takes at a step, with a picture behind the clip's own latents."""
    config, words = model.config, 1024
    grid = ((shape.frames - 1) // 4 + 2, shape.height // 8, shape.width // 8)
    return {
        "hidden_states": tensor(1, *grid, 2 * config.in_visual_dim + 1),
        "audio_hidden_states": tensor(1, math.ceil(shape.seconds * 44100 / 1024), config.in_audio_dim),
        "encoder_hidden_states": tensor(1, words, config.in_text_dim),
        "encoder_attention_mask": torch.ones(1, words, dtype=torch.bool),
        "pooled_projections": tensor(1, config.in_text_dim2),
        "timestep": tensor(1),
        "visual_token_type_ids": torch.zeros(1, grid[0], dtype=torch.long),
        "visual_rope_pos": tuple(torch.arange(side) for side in (grid[0], grid[1] // 2, grid[2] // 2)),
    }


def sana(model: Any, shape: VideoShape, tensor: Callable[..., torch.Tensor]) -> dict[str, Any]:
    """What the denoiser of SANA-Video takes at a step: one prediction, of which guidance makes two at once."""
    grid = ((shape.frames - 1) // 4 + 1, shape.height // 8, shape.width // 8)
    return {
        "hidden_states": tensor(1, model.config.in_channels, *grid),
        "encoder_hidden_states": tensor(1, 300, model.config.caption_channels),
        "encoder_attention_mask": torch.ones(1, 300, dtype=torch.long),
        "timestep": tensor(1, dtype=torch.float32),
    }


def packed(model: Any, shape: VideoShape, tensor: Callable[..., torch.Tensor]) -> dict[str, Any]:
    """What the denoiser of MiniMax-H3 takes at a step: words, sound and pictures in one sequence."""
    latents = (shape.frames - 5) // 17 * 5 + 2
    words, sound, pictures = (
        256,
        2 * round(shape.frames / 24 * 40),
        latents * (shape.height // 32) * (shape.width // 32),
    )
    total, config = words + sound + pictures, model.config
    return {
        "hidden_states": tensor(1, pictures, 4 * config.in_channels, dtype=torch.float32),
        "audio_hidden_states": tensor(1, sound, config.audio_in_channels, dtype=torch.float32),
        "encoder_hidden_states": tensor(1, words, config.text_dim),
        "timestep": tensor(2, dtype=torch.float32),
        "timestep_indices": torch.zeros(total, dtype=torch.long),
        "token_tags": torch.zeros(total, dtype=torch.long),
        "position_ids": torch.zeros(total, 3, dtype=torch.float64),
        "text_indices": torch.arange(words),
        "audio_indices": torch.arange(words, words + sound),
        "video_indices": torch.arange(words + sound, total),
    }


def sounding(model: Any, shape: VideoShape, tensor: Callable[..., torch.Tensor]) -> dict[str, Any]:
    """What the denoiser of LTX-2 takes at a step: every token of pictures has a time of its own."""
    config, words = model.config, 1024
    grid = ((shape.frames - 1) // 8 + 1, shape.height // 32, shape.width // 32)
    pictures, sound = grid[0] * grid[1] * grid[2], round(shape.seconds * 25)
    # The connectors of some make words as wide as the denoiser, which then has no projection of its own.
    heads = (("num_attention_heads", "attention_head_dim"), ("audio_num_attention_heads", "audio_attention_head_dim"))
    wide, wide_sound = (
        config.caption_channels if config.use_prompt_embeddings else config[count] * config[size]
        for count, size in heads
    )
    moment = tensor(1, dtype=torch.float32)
    return {
        "hidden_states": tensor(1, pictures, config.in_channels),
        "audio_hidden_states": tensor(1, sound, config.audio_in_channels),
        "encoder_hidden_states": tensor(1, words, wide),
        "audio_encoder_hidden_states": tensor(1, words, wide_sound),
        "timestep": tensor(1, pictures, dtype=torch.float32),
        **dict.fromkeys(("audio_timestep", "sigma", "audio_sigma"), moment),
        "encoder_attention_mask": tensor(1, words),
        "audio_encoder_attention_mask": tensor(1, words),
        **dict(zip(("num_frames", "height", "width"), grid, strict=True)),
        "fps": float(shape.fps),
        "audio_num_frames": sound,
    }


INPUTS: dict[str, Inputs] = {
    "LTX2VideoTransformer3DModel": sounding,
    "WanTransformer3DModel": wan,
    "WanVACETransformer3DModel": wan,
    "Kandinsky5Transformer3DModel": kandinsky,
    "Kandinsky6Transformer3DModel": kandinsky_sounding,
    "SanaVideoTransformer3DModel": sana,
    "MiniMaxH3Transformer3DModel": packed,
}


def measure(card_id: str, shape: VideoShape) -> None:
    card = load_registry().cards[card_id]
    parts = random_weights.architecture(card_id)["parts"]
    pixels, tokens = shape.width * shape.height, card.shape.tokens(shape)
    with FakeTensorMode(allow_non_fake_inputs=True):
        if (inputs := INPUTS.get(parts["transformer"]["class"])) is not None:
            denoiser = made(parts["transformer"], torch.bfloat16)

            def tensor(*sizes: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
                return torch.empty(sizes, dtype=dtype)

            given = inputs(denoiser, shape, tensor)
            peak = peak_of(denoiser, lambda: denoiser(**given, return_dict=False))
            print(f"denoise: {peak / 2**30:.2f} GiB, {peak / tokens:.0f} bytes per token, {tokens} tokens")
            del denoiser, given
        if "connectors" in parts:
            measure_words(parts)
        own = card.weights.components["vae"].dtype or "bfloat16"
        vae = made(parts["vae"], getattr(torch, own))
        time, space = card.shape.latent_stride or card.shape.frame_stride, vae_side(vae)
        frames = (shape.frames - 1) // time + 1
        if card.shape.latents is not None:
            frames = tokens // (
                (shape.height // card.shape.pixels_per_token) * (shape.width // card.shape.pixels_per_token)
            )
        channels = getattr(vae.config, "z_dim", None) or vae.config.latent_channels
        latents = torch.empty(1, channels, frames, shape.height // space, shape.width // space, dtype=vae.dtype)
        clip = torch.empty(1, 3, shape.frames, shape.height, shape.width, dtype=vae.dtype)
        # Some are cut in time whether anybody asks for it or not.
        in_time = getattr(vae, "use_framewise_decoding", False)
        for tiled in (False, True):
            (vae.enable_tiling if tiled else vae.disable_tiling)()
            if hasattr(vae, "use_framewise_decoding"):
                vae.use_framewise_decoding = tiled or in_time
            ways: list[tuple[str, Callable[[], object]]] = [
                ("decode", lambda: vae.decode(latents, return_dict=False)),
                ("encode", lambda: vae.encode(clip)),
            ]
            for what, run in ways:
                peak = peak_of(vae, run)
                print(
                    f"{what}{', tiled' if tiled else ''} in {own}: {peak / 2**30:.2f} GiB, "
                    f"{peak / pixels:.0f} bytes per pixel, {peak / pixels / shape.frames:.1f} per pixel and frame"
                )


def measure_words(parts: dict[str, Any]) -> None:
    """Encode words as LTX-2 does, which keeps what every layer says, and then connect them, guided and not."""
    encoder, words = made(parts["text_encoder"], torch.bfloat16), torch.ones(1, 1024, dtype=torch.long)

    def encoded() -> torch.Tensor:
        # A mask would be looked into, and fake numbers cannot be.
        said = encoder(input_ids=words, output_hidden_states=True).hidden_states
        return torch.stack(said, dim=-1).flatten(2, 3)

    print(f"encode the words: {peak_of(encoder, encoded) / 2**30:.2f} GiB")
    with torch.no_grad():
        stacked = encoded()
    kept = stacked.untyped_storage().nbytes()
    connectors = made(parts["connectors"], torch.bfloat16)
    for many in (1, 2):
        several, masks = stacked.repeat(many, 1, 1), words.repeat(many, 1)
        peak = peak_of(connectors, lambda several=several, masks=masks: connectors(several, masks))
        print(f"connect {many} of them: {peak / 2**30:.2f} GiB beside {kept / 2**30:.2f} GiB for each that is kept")


def made(part: dict[str, Any], dtype: torch.dtype) -> Any:
    """Return a part whose tensors are fake."""
    usual = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        kind: Any = next(
            found
            for home in (diffusers, diffusers.pipelines.ltx2, transformers)
            if (found := getattr(home, part["class"], None))
        )
        by_config = getattr(kind, "config_class", None)
        config = part["config"]
        # Drawing numbers looks at them, and fake ones cannot be looked at.
        with no_init_weights():
            model: nn.Module = kind(**config) if by_config is None else kind(by_config(**config))
    finally:
        torch.set_default_dtype(usual)
    return model.eval().requires_grad_(requires_grad=False)


def vae_side(vae: Any) -> int:
    """Return how many pixels a latent is wide."""
    for name in ("scale_factor_spatial", "spatial_compression_ratio"):
        if value := vae.config.get(name):
            return int(value)
    return int(getattr(vae, "spatial_compression_ratio", 8))


def main(arguments: list[str]) -> None:
    card_id, *shapes = arguments
    for text in shapes:
        width, height, frames = map(int, text.split("x"))
        print(f"{card_id} {text}")
        measure(card_id, VideoShape(frames, height, width, load_registry().cards[card_id].shape.fps))


if __name__ == "__main__":
    main(sys.argv[1:])
