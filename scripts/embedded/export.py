"""Write the trained parts as one checkpoint in the published diffusers layout."""

from __future__ import annotations

import json
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
    for weights in into.rglob("*.safetensors"):
        weights.chmod(0o644)
    steps = {name: _step(work / f"{name}.state.pt") for name in ("denoiser", "decoder")}
    (into / "training.json").write_text(json.dumps({"steps": steps}) + "\n")
    return sum(p.stat().st_size for p in into.rglob("*.safetensors"))


def pack(work: Path, into: Path) -> None:
    """Write the trained weights alone, in float16: what a machine that was lent sends home. ``export`` reads it."""
    for name in ("denoiser", "decoder"):
        state = work / f"{name}.state.pt"
        if state.exists():
            saved = torch.load(state, weights_only=True, map_location="cpu")
            weights = {key: tensor.half() for key, tensor in saved["average"].items()}
            torch.save({"average": weights, "step": saved["step"]}, into / state.name)


def _step(state: Path) -> int:
    return int(torch.load(state, weights_only=True)["step"]) if state.exists() else 0


def unpack(work: Path, checkpoint: Path) -> None:
    """Make a work folder from a finished checkpoint, so that its training goes on without what led to it.

    Only the optimisers start afresh; the encoder is final, so latents are drawn again to the bit.
    """
    pipeline = LTXConditionPipeline.from_pretrained(checkpoint, dtype=torch.float32)
    steps = json.loads((checkpoint / "training.json").read_text())["steps"]
    pipeline.vae.save_pretrained(work / "codec")
    pipeline.tokenizer.save_pretrained(work / "tokenizer")
    pipeline.text_encoder.save_pretrained(work / "text_encoder")
    for name, key, module in (
        ("denoiser", "model", pipeline.transformer),
        ("decoder", "decoder", pipeline.vae.decoder),
    ):
        weights = module.state_dict()
        torch.save({key: weights, "average": weights, "step": steps[name]}, work / f"{name}.state.pt")
