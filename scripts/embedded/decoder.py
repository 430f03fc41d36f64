"""Training of the embedded VAE's decoder: sharp where the closed form blurs, and forgiving of inexact latents."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from diffusers import AutoencoderKLLTXVideo
from torch import Tensor, nn

from scripts.embedded.codec import psnr
from scripts.embedded.machine import fast_bfloat16
from scripts.embedded.scenes import LANDSCAPE, PORTRAIT, draw, sample_scenes

FRAMES = 17
CROP_FRAMES = 9
CELL = 32
# The closed-form path is exact and brittle: it moves slower than the new, empty resnets.
RATE, PATH_RATE = 3e-3, 1e-4
# A denoiser's latents are never exactly on the data. This much noise, relative to their unit size, teaches the
# decoder to draw the nearest whole shape instead of a broken one.
LATENT_NOISE = 0.08


def clips(
    count: int, generator: torch.Generator, *, test: bool = False, frames: int = FRAMES, start: int = 0
) -> Tensor:
    """Return clips ``(count, 3, frames, h, w)`` in [-1, 1], landscape or portrait."""
    size = LANDSCAPE if torch.rand(1, generator=generator) < 0.6 else PORTRAIT
    return draw(sample_scenes(count, generator, test=test), frames, size, generator, start=start) * 2 - 1


def _loss(made: Tensor, wanted: Tensor) -> Tensor:
    """Charbonnier distance of pixels and of their differences: edges count, without rewarding blur."""
    total = _charbonnier(made - wanted)
    for axis in (3, 4):
        total = total + _charbonnier(made.diff(dim=axis) - wanted.diff(dim=axis))
    return total


def _charbonnier(error: Tensor) -> Tensor:
    return (error.pow(2) + 1e-4).sqrt().mean()


class Optimisers:
    """Muon for the resnets' convolutions, each seen as a matrix; AdamW for the closed-form path and the biases."""

    def __init__(self, decoder: nn.Module) -> None:
        kernels = [p for n, p in decoder.named_parameters() if ".resnets." in n and p.ndim == 5]
        chosen = {id(p) for p in kernels}
        rest = [p for p in decoder.parameters() if id(p) not in chosen]
        # A view shares its kernel's memory, so updating the one updates the other.
        self.views = [(kernel, nn.Parameter(kernel.data.flatten(1))) for kernel in kernels]
        matrices = [view for _, view in self.views]
        self.muon = torch.optim.Muon(matrices, lr=RATE, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
        self.adam = torch.optim.AdamW(rest, lr=PATH_RATE, betas=(0.9, 0.98), weight_decay=0.0)

    def step(self, factor: float) -> None:
        """Update all weights at ``factor`` times their rates and clear the gradients."""
        self.muon.param_groups[0]["lr"] = RATE * factor
        self.adam.param_groups[0]["lr"] = PATH_RATE * factor
        for kernel, view in self.views:
            view.grad = None if kernel.grad is None else kernel.grad.flatten(1)
            kernel.grad = None
        self.muon.step()
        self.adam.step()
        self.adam.zero_grad()

    def state_dict(self) -> dict[str, object]:
        return {"muon": self.muon.state_dict(), "adam": self.adam.state_dict()}

    def load_state_dict(self, state: dict[str, dict[str, object]]) -> None:
        self.muon.load_state_dict(state["muon"])
        self.adam.load_state_dict(state["adam"])


def _crop(video: Tensor, latents: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Cut a window of 3x3 cells that holds the subject, nine frames long; the rest of a scene is easy."""
    rows, columns = latents.shape[-2:]
    y, x = (int(torch.randint(max(1, n - 2), (), generator=generator)) for n in (rows, columns))
    if rows > columns:
        y = 1
    elif columns > rows:
        x = 1
    pixels = video[..., y * CELL : (y + 3) * CELL, x * CELL : (x + 3) * CELL]
    return pixels, latents[..., y : y + 3, x : x + 3]


@torch.no_grad()
def evaluate(vae: AutoencoderKLLTXVideo, batches: int = 4, *, noise: float = 0.0) -> float:
    """Return PSNR in dB on held-out scenes, optionally with noise on the normalised latents."""
    generator = torch.Generator().manual_seed(90_000)
    scores = []
    for _ in range(batches):
        video = clips(8, generator, test=True, frames=33)
        latents = vae.encode(video).latent_dist.mode()
        latents = latents + noise * vae.latents_std.view(1, -1, 1, 1, 1) * torch.randn(
            latents.shape, generator=generator
        )
        scores.append(psnr(vae.decode(latents).sample, video))
    return sum(scores) / len(scores)


Imitation = Callable[[int, torch.Generator], tuple[Tensor, Tensor]]
"""Returns clips and latents as a denoiser would have made them: right in the main, wrong in detail."""


def train(
    vae: AutoencoderKLLTXVideo, steps: int, state: Path, log: list[str], imitation: Imitation | None = None
) -> AutoencoderKLLTXVideo:
    """Train the decoder.

    Args:
        vae: Its encoder stays as it is.
        steps: Steps in all, those done before ``state`` was saved included.
        state: Where the run is kept and resumed from.
        log: Takes a line now and then.
        imitation: If given, every other batch comes from it instead of the encoder, so that the decoder learns to
            draw whole shapes from a denoiser's latents.

    Returns:
        The VAE with averaged decoder weights.
    """
    torch.manual_seed(1)
    vae.requires_grad_(False)
    vae.decoder.requires_grad_(True)
    average = copy.deepcopy(vae.decoder)
    optimiser = Optimisers(vae.decoder)
    first = 1
    if state.exists():
        saved = torch.load(state, weights_only=True)
        vae.decoder.load_state_dict(saved["decoder"])
        average.load_state_dict(saved["average"])
        if "optimiser" in saved:
            optimiser.load_state_dict(saved["optimiser"])
        first = saved["step"] + 1
    scale = vae.latents_std.view(1, -1, 1, 1, 1)
    for step in range(first, steps + 1):
        generator = torch.Generator().manual_seed(step)
        factor = min(1.0, step / 100) * max(0.02, 1 - step / steps)
        with torch.no_grad():
            source = imitation if imitation and step % 2 else partial(_batch, vae)
            video, latents = source(step, generator)
            amount = LATENT_NOISE * torch.rand(len(latents), 1, 1, 1, 1, generator=generator)
            latents = latents + amount * scale * torch.randn(latents.shape, generator=generator)
        with torch.autocast("cpu", torch.bfloat16, enabled=fast_bfloat16()):
            made = vae.decoder(latents)
        loss = _loss(made.float(), video)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.decoder.parameters(), 0.5)
        optimiser.step(factor)
        with torch.no_grad():
            decay = min(0.998, step / (step + 20))
            for kept, new in zip(average.parameters(), vae.decoder.parameters(), strict=True):
                kept.lerp_(new, 1 - decay)
        if step % 200 == 0 or step == steps:
            _report(vae, average, step, loss.item(), log)
            saved = {"decoder": vae.decoder.state_dict(), "average": average.state_dict(),
                     "optimiser": optimiser.state_dict(), "step": step}  # fmt: skip
            torch.save(saved, state.with_suffix(".tmp"))
            state.with_suffix(".tmp").replace(state)
    vae.decoder.load_state_dict(average.state_dict())
    return vae


def _batch(vae: AutoencoderKLLTXVideo, step: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return clips and their latents: by turns whole frames at any time, and windows around the subject's start."""
    if step // 2 % 2:
        start = int(torch.randint(25, (), generator=generator))
        video = clips(6, generator, frames=CROP_FRAMES, start=start)
        return video, vae.encode(video).latent_dist.mode()
    video = clips(10, generator, frames=CROP_FRAMES)
    return _crop(video, vae.encode(video).latent_dist.mode(), generator)


def _report(vae: AutoencoderKLLTXVideo, average: nn.Module, step: int, loss: float, log: list[str]) -> None:
    training, vae.decoder = vae.decoder, average
    clean, noisy = evaluate(vae, 2), evaluate(vae, 2, noise=0.1)
    vae.decoder = training
    log.append(f"decoder step {step} loss {loss:.5f} psnr {clean:.2f} noisy {noisy:.2f}")
