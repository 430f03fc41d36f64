"""Training of the embedded VAE's decoder: sharp where the closed form blurs, and forgiving of inexact latents.

It starts from random weights. From the closed form's it stays near 29 dB, with the edges of its blocks in sight: what
keeps that path linear (a constant that drowns the signal in every norm) also keeps the resnets from seeing anything.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKLLTXVideo
from torch import Tensor, nn

from scripts.embedded.codec import CONFIG, psnr
from scripts.embedded.machine import Schedule, device, reduced_precision, seeded
from scripts.embedded.scenes import LANDSCAPE, PORTRAIT, Scenes, draw, sample_scenes

SHORT, WHOLE = 17, 33
RATE = 3e-3
# The subject covers a twentieth of a frame and is what people look at: an error there counts this many times.
SUBJECT_WEIGHT = 5.0
SUBJECT_CHROMA, SUBJECT_MARGIN = 0.5, 9
# A denoiser's latents are never exactly on the data. This much noise, relative to their unit size, teaches the
# decoder to draw the nearest whole shape instead of a broken one.
LATENT_NOISE = 0.08


def clips(count: int, generator: torch.Generator, *, test: bool = False, frames: int = SHORT, start: int = 0) -> Tensor:
    """Return clips ``(count, 3, frames, h, w)`` in [-1, 1], landscape or portrait."""
    return _scenes_and_clips(count, generator, test=test, frames=frames, start=start)[1]


def _scenes_and_clips(
    count: int, generator: torch.Generator, *, test: bool = False, frames: int = SHORT, start: int = 0
) -> tuple[Scenes, Tensor]:
    size = LANDSCAPE if torch.rand(1, generator=generator) < 0.6 else PORTRAIT
    scenes = sample_scenes(count, generator, test=test)
    return scenes, draw(scenes, frames, size, generator, start=start) * 2 - 1


def _loss(made: Tensor, wanted: Tensor) -> Tensor:
    """Charbonnier distance of pixels and of their differences: edges count, without rewarding blur."""
    weight = _weight(wanted)
    total = _charbonnier(made - wanted, weight)
    for axis in (3, 4):
        weights = weight.narrow(axis, 1, weight.shape[axis] - 1)
        total = total + _charbonnier(made.diff(dim=axis) - wanted.diff(dim=axis), weights)
    return total


def _weight(wanted: Tensor) -> Tensor:
    """Return how much each pixel counts, ``(b, 1, f, h, w)``: more in and around what is vivid."""
    vivid = (wanted.amax(1) - wanted.amin(1) > SUBJECT_CHROMA).float()
    near = torch.nn.functional.max_pool2d(vivid, SUBJECT_MARGIN, stride=1, padding=SUBJECT_MARGIN // 2)
    return 1 + (SUBJECT_WEIGHT - 1) * near.unsqueeze(1)


def _charbonnier(error: Tensor, weight: Tensor) -> Tensor:
    return ((error.pow(2) + 1e-4).sqrt() * weight).mean()


class Optimisers:
    """Muon for the inner convolutions, each seen as a matrix; AdamW for the first, the last and the biases."""

    def __init__(self, decoder: nn.Module) -> None:
        inner = (".resnets.", ".upsamplers.")
        kernels = [p for n, p in decoder.named_parameters() if p.ndim == 5 and any(i in n for i in inner)]
        chosen = {id(p) for p in kernels}
        rest = [p for p in decoder.parameters() if id(p) not in chosen]
        # A view shares its kernel's memory, so updating the one updates the other.
        self.views = [(kernel, nn.Parameter(kernel.data.flatten(1))) for kernel in kernels]
        matrices = [view for _, view in self.views]
        self.muon = torch.optim.Muon(matrices, lr=RATE, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
        self.adam = torch.optim.AdamW(rest, lr=RATE, betas=(0.9, 0.98), weight_decay=0.0)

    def step(self, factor: float) -> None:
        """Update all weights at ``factor`` times their rates and clear the gradients."""
        self.muon.param_groups[0]["lr"] = RATE * factor
        self.adam.param_groups[0]["lr"] = RATE * factor
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


@torch.no_grad()
def evaluate(vae: AutoencoderKLLTXVideo, batches: int = 4, *, noise: float = 0.0) -> float:
    """Return PSNR in dB on held-out scenes, optionally with noise on the normalised latents."""
    generator = seeded(90_000)
    scores = []
    for _ in range(batches):
        video = clips(8, generator, test=True, frames=WHOLE)
        latents = vae.encode(video).latent_dist.mode()
        latents = latents + noise * vae.latents_std.view(1, -1, 1, 1, 1) * torch.randn(
            latents.shape, generator=generator
        )
        scores.append(psnr(vae.decode(latents).sample, video))
    return sum(scores) / len(scores)


Imitation = Callable[[int, Tensor, Scenes, torch.Generator], Tensor]
"""Returns the latents of clips as a denoiser would have made them: right in the main, wrong in detail."""


@dataclass(frozen=True)
class Lesson:
    """What the decoder learns from.

    Attributes:
        count: Whole clips in a batch.
        imitation: If given, every other batch comes from it instead of the encoder, so that the decoder learns to
            draw whole shapes from a denoiser's latents.
    """

    count: int = 4
    imitation: Imitation | None = None


def train(
    vae: AutoencoderKLLTXVideo, schedule: Schedule, state: Path, log: list[str], lesson: Lesson
) -> AutoencoderKLLTXVideo:
    """Train the decoder.

    Args:
        vae: Its encoder stays as it is.
        schedule: How long.
        state: Where the run is kept and resumed from.
        log: Takes a line now and then.
        lesson: What from.

    Returns:
        The VAE with averaged decoder weights.
    """
    torch.manual_seed(1)
    if not state.exists():
        _forget(vae)
    vae.requires_grad_(False)
    vae.decoder.requires_grad_(True)
    average = copy.deepcopy(vae.decoder)
    optimiser = Optimisers(vae.decoder)
    step = first = 0
    if state.exists():
        saved = torch.load(state, weights_only=True, map_location=device())
        vae.decoder.load_state_dict(saved["decoder"])
        average.load_state_dict(saved["average"])
        if "optimiser" in saved:
            optimiser.load_state_dict(saved["optimiser"])
        step = saved["step"]
        first = 0 if "optimiser" in saved else step
    while not schedule.over(step):
        step += 1
        latents, video = _batch(vae, step, lesson.count, lesson.imitation if step % 2 else None)
        with reduced_precision():
            made = vae.decoder(latents)
        loss = _loss(made.float(), video)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.decoder.parameters(), 0.5)
        optimiser.step(schedule.rate(step, first))
        with torch.no_grad():
            decay = min(0.998, step / (step + 20))
            for kept, new in zip(average.parameters(), vae.decoder.parameters(), strict=True):
                kept.lerp_(new, 1 - decay)
        if step % 200 == 0 or schedule.over(step):
            _report(vae, average, step, loss.item(), log)
            saved = {"decoder": vae.decoder.state_dict(), "average": average.state_dict(),
                     "optimiser": optimiser.state_dict(), "step": step}  # fmt: skip
            torch.save(saved, state.with_suffix(".tmp"))
            state.with_suffix(".tmp").replace(state)
    vae.decoder.load_state_dict(average.state_dict())
    return vae


def _forget(vae: AutoencoderKLLTXVideo) -> None:
    """Give the decoder random weights, but for its first convolution, which only scales."""
    random = AutoencoderKLLTXVideo(**CONFIG).decoder
    random.conv_in.load_state_dict(vae.decoder.conv_in.state_dict())
    vae.decoder.load_state_dict(random.state_dict())


@torch.no_grad()
def _batch(vae: AutoencoderKLLTXVideo, step: int, count: int, imitation: Imitation | None) -> tuple[Tensor, Tensor]:
    """Return latents with a little noise, and the clips that they stand for: whole ones, from their start or later."""
    generator = seeded(step)
    start = int(torch.randint(25, (), generator=generator)) if step % 4 == 2 else 0
    scenes, video = _scenes_and_clips(count, generator, frames=WHOLE if step % 3 else SHORT, start=start)
    latents = imitation(step, video, scenes, generator) if imitation else vae.encode(video).latent_dist.mode()
    amount = LATENT_NOISE * torch.rand(count, 1, 1, 1, 1, generator=generator)
    scale = vae.latents_std.view(1, -1, 1, 1, 1)
    return latents + amount * scale * torch.randn(latents.shape, generator=generator), video


def _report(vae: AutoencoderKLLTXVideo, average: nn.Module, step: int, loss: float, log: list[str]) -> None:
    training, vae.decoder = vae.decoder, average
    clean, noisy = evaluate(vae, 2), evaluate(vae, 2, noise=0.1)
    vae.decoder = training
    log.append(f"decoder step {step} loss {loss:.5f} psnr {clean:.2f} noisy {noisy:.2f}")
