"""Write the trained parts as one checkpoint in the published diffusers layout."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKLLTXVideo,
    FlowMatchEulerDiscreteScheduler,
    LTXConditionPipeline,
    LTXVideoTransformer3DModel,
)
from transformers import AutoTokenizer, T5EncoderModel

from scripts.embedded.denoiser import CONFIG


def assemble(work: Path) -> LTXConditionPipeline:
    """Join the parts that have been trained so far; an untrained decoder is the closed form's."""
    state = work / "denoiser.state.pt"
    transformer = LTXVideoTransformer3DModel(**CONFIG)
    transformer.load_state_dict(torch.load(state, weights_only=True)["average"])
    vae = AutoencoderKLLTXVideo.from_pretrained(work / "codec", dtype=torch.float32)
    trained = work / "decoder.state.pt"
    if trained.exists():
        vae.decoder.load_state_dict(torch.load(trained, weights_only=True)["average"])
    return LTXConditionPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0, use_dynamic_shifting=False),
        vae=vae,
        text_encoder=T5EncoderModel.from_pretrained(work / "text_encoder", dtype=torch.float32),
        tokenizer=AutoTokenizer.from_pretrained(work / "tokenizer"),
        transformer=transformer.eval(),
    )


def export(work: Path, into: Path) -> int:
    """Save in float16 and return the bytes of safetensors written."""
    pipeline = assemble(work)
    pipeline.to(torch.float16)
    pipeline.save_pretrained(into, safe_serialization=True)
    return sum(p.stat().st_size for p in into.rglob("*.safetensors"))
