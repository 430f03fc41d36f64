"""Training of the embedded diffusion transformer: flow matching on cached latents of the codec."""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import torch
import torch.distributed as dist
from diffusers import AutoencoderKLLTXVideo, LTXVideoTransformer3DModel
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, T5EncoderModel

from scripts.embedded.captions import caption, drop
from scripts.embedded.codec import LATENTS
from scripts.embedded.machine import Schedule, device, reduced_precision, seeded
from scripts.embedded.scenes import MOTIONS, SLOTS, Scenes
from scripts.embedded.shards import SHARD, TOKENS, Batch, coordinates, normalise, packed
from scripts.embedded.text import WIDTH, encode, tokenise

CONFIG: dict[str, object] = {
    "in_channels": LATENTS,
    "out_channels": LATENTS,
    "num_attention_heads": 8,
    "attention_head_dim": 32,
    "cross_attention_dim": 256,
    "num_layers": 5,
    "caption_channels": WIDTH,
}
BATCH = 48
# What moves where is decided while the clip is almost all noise: train there first (uniform u, s*u / (1 + (s-1)*u)).
# Outlines are decided later on; every other step of the training's second half gives them their share.
SHIFT, LATE_SHIFT = 3.0, 1.5
RATE = 2e-3


def ranks() -> int:
    """Return how many processes share a batch (``torchrun --nproc-per-node``); on a CPU, better than threads."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Return which of them this is."""
    return dist.get_rank() if dist.is_initialized() else 0


def noisy(batch: Batch, shift: float, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return noisy latents, the target velocity, timesteps per token and which tokens count in the loss.

    Three clips in ten keep their first latent frame (an image), the first two (five frames) or three (nine) clean.
    """
    count, tokens, _ = batch.clean.shape
    uniform = torch.rand(count, 1, generator=generator)
    sigma = (shift * uniform / (1 + (shift - 1) * uniform)).expand(count, tokens)
    chance = torch.rand(count, 1, generator=generator)
    given = (chance < 0.30).long() + (chance < 0.12).long() + (chance < 0.05).long()
    # Negative for the tokens of a still, which are always given.
    frame = (torch.arange(tokens) - batch.stills).div(batch.grid[1] * batch.grid[2], rounding_mode="floor")
    kept = frame < given
    sigma = torch.where(kept, 0.0, sigma)
    noise = torch.randn(batch.clean.shape, generator=generator)
    mixed = batch.clean + sigma[..., None] * (noise - batch.clean)
    return mixed, noise - batch.clean, sigma * 1000, ~kept


class Trainer:
    """The model, its average and its optimisers; saved and restored as one file."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerFast, text_encoder: T5EncoderModel, schedule: Schedule, folder: Path
    ) -> None:
        torch.manual_seed(2)
        self.tokenizer, self.text_encoder, self.schedule, self.folder = tokenizer, text_encoder, schedule, folder
        self.model = LTXVideoTransformer3DModel(**CONFIG)
        _initialise(self.model)
        self.average = copy.deepcopy(self.model).requires_grad_(False)
        matrices = [p for n, p in self.model.named_parameters() if "blocks" in n and p.ndim == 2 and "table" not in n]
        chosen = {id(p) for p in matrices}
        others = [p for p in self.model.parameters() if id(p) not in chosen]
        self.optimisers = [
            torch.optim.Muon(matrices, lr=RATE, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, lr=RATE, betas=(0.9, 0.98), weight_decay=0.0),
        ]
        self.step = self.first = 0
        if self.state.exists():
            self._restore()
        if device().type == "cpu":
            # Here most of a step is memory traffic between small operations, and the flash kernel's backward
            # pass; plain attention, compiled, makes a step about half as long.
            for model in (self.model, self.average):
                model.set_attention_backend("_native_math")
            self.model.compile(dynamic=False)

    @property
    def state(self) -> Path:
        return self.folder / "denoiser.state.pt"

    def _restore(self) -> None:
        saved = torch.load(self.state, weights_only=True, map_location=device())
        self.model.load_state_dict(saved["model"])
        self.average.load_state_dict(saved["average"])
        for optimiser, state in zip(self.optimisers, saved.get("optimisers", ()), strict=False):
            optimiser.load_state_dict(state)
        self.step = saved["step"]
        self.first = 0 if "optimisers" in saved else self.step

    def save(self) -> None:
        """Write the whole state, atomically."""
        saved = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimisers": [o.state_dict() for o in self.optimisers],
            "step": self.step,
        }
        torch.save(saved, self.state.with_suffix(".tmp"))
        self.state.with_suffix(".tmp").replace(self.state)

    def predict(self, model: nn.Module, mixed: Tensor, timesteps: Tensor, batch: Batch) -> Tensor:
        """Return the predicted velocity ``(b, tokens, 128)``."""
        with reduced_precision():
            with torch.no_grad():
                embeds, mask = encode(self.text_encoder, batch.captions)
            positions = batch.positions.expand(len(mixed), -1, -1)
            made = model(mixed, embeds, timesteps, mask, video_coords=positions, return_dict=False)[0]
        return made.float()

    def run(self, data: Iterator[Batch]) -> Iterator[str]:
        """Train until the schedule is over; yield log lines."""
        running: Tensor | None = None
        start, clips = time.time(), 0
        while not self.schedule.over(self.step):
            self.step += 1
            for optimiser in self.optimisers:
                optimiser.param_groups[0]["lr"] = RATE * self.schedule.rate(self.step, self.first)
            batch = next(data)
            loss = self._train_step(batch)
            clips += len(batch.clean) * ranks()
            # Not read here: a GPU would have to finish every step before the next one is prepared.
            running = loss if running is None else running.lerp(loss, 0.03)
            if rank() == 0 and (self.step % 100 == 0 or self.schedule.over(self.step)):
                self.save()
                rate = clips / (time.time() - start)
                yield f"denoiser step {self.step} loss {running.item():.4f} gap {self.gap():.4f} clips/s {rate:.1f}"

    def _train_step(self, batch: Batch) -> Tensor:
        late = self.schedule.progress(self.step) >= 0.5 and self.step % 2 == 0
        generator = seeded(2 * self.step + rank())
        mixed, velocity, timesteps, counted = noisy(batch, LATE_SHIFT if late else SHIFT, generator)
        made = self.predict(self.model, mixed, timesteps, batch)
        error = (made - velocity).pow(2).mean(-1)
        loss = (error * counted).sum() / counted.sum()
        for optimiser in self.optimisers:
            optimiser.zero_grad()
        loss.backward()
        self._share_gradients()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimiser in self.optimisers:
            optimiser.step()
        decay = min(0.998, self.step / (self.step + 10))
        with torch.no_grad():
            for kept, new in zip(self.average.parameters(), self.model.parameters(), strict=True):
                kept.lerp_(new, 1 - decay)
        return loss.detach()

    def _share_gradients(self) -> None:
        if ranks() == 1:
            return
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        flat = torch.cat([g.flatten() for g in gradients])
        dist.all_reduce(flat)
        for gradient, mean in zip(gradients, flat.div_(ranks()).split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))

    @torch.no_grad()
    def gap(self) -> float:
        """How much worse the opposite direction's caption explains a clip at sigma 0.9; 0 means "not learned"."""
        shard = torch.load(self.folder / "latents" / "00000.pt", weights_only=True, map_location=device())
        index = list(SLOTS).index("motion")
        chosen = [i for i in range(SHARD) if MOTIONS[shard["values"][i, index]] in ("left", "right", "up", "down")]
        chosen = chosen[:48]
        opposite = {"left": "right", "right": "left", "up": "down", "down": "up"}
        words = [MOTIONS[shard["values"][i, index]] for i in chosen]
        clean = shard["latents"][chosen].float()
        _, _, f, h, w = clean.shape
        noise = torch.randn(packed(clean).shape, generator=seeded(5))
        mixed = packed(clean) + 0.9 * (noise - packed(clean))
        timesteps = torch.full(mixed.shape[:2], 900.0)
        losses = []
        for texts in ([f"moving {opposite[m]}" for m in words], [f"moving {m}" for m in words]):
            captions = tokenise(self.tokenizer, texts, TOKENS)
            made = self.predict(
                self.average, mixed, timesteps, Batch(packed(clean), coordinates(f, h, w), captions, (f, h, w))
            )
            losses.append((made - noise + packed(clean)).pow(2).mean())
        return (losses[0] - losses[1]).item()


def _initialise(model: LTXVideoTransformer3DModel) -> None:
    """Start every block as an identity and the output at zero: the first steps then only fit means."""
    for name, parameter in model.named_parameters():
        if "scale_shift_table" in name:
            nn.init.zeros_(parameter)
        elif parameter.ndim == 2:
            nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5 * 0.7)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)
    for block in model.transformer_blocks:
        nn.init.zeros_(block.attn2.to_out[0].weight)
    nn.init.zeros_(model.time_embed.linear.weight)
    nn.init.zeros_(model.proj_out.weight)
    nn.init.normal_(model.proj_in.weight, std=LATENTS**-0.5)


@torch.no_grad()
def imitate(
    vae: AutoencoderKLLTXVideo, trainer: Trainer, step: int, video: Tensor, scenes: Scenes, generator: torch.Generator
) -> Tensor:
    """Return latents ``(b, 128, f, h, w)`` of clips as the denoiser rebuilds them from noisy ones.

    The noise is low enough (sigma up to 0.5) for the scene to survive and high enough for its details to be the
    denoiser's own work: what the decoder will get when a clip is generated.
    """
    rng = random.Random(step)
    clean = normalise(vae, vae.encode(video).latent_dist.mode())
    _, _, f, h, w = clean.shape
    texts = [caption(drop(v, rng, open_rate=0.0, empty_rate=0.0), rng) for v in scenes.stacked().tolist()]
    captions = tokenise(trainer.tokenizer, texts, TOKENS)
    batch = Batch(packed(clean), coordinates(f, h, w), captions, (f, h, w))
    levels = torch.linspace(rng.uniform(0.2, 0.5), 0, 4).tolist()
    noise = torch.randn(batch.clean.shape, generator=generator)
    tokens = batch.clean + levels[0] * (noise - batch.clean)
    for now, after in pairwise(levels):
        timesteps = torch.full(tokens.shape[:2], now * 1000)
        tokens = tokens + (after - now) * trainer.predict(trainer.average, tokens, timesteps, batch)
    rebuilt = tokens.transpose(1, 2).unflatten(2, (f, h, w))
    return rebuilt * vae.latents_std.view(1, -1, 1, 1, 1) + vae.latents_mean.view(1, -1, 1, 1, 1)
