"""Training of the embedded diffusion transformer: flow matching on cached latents of the codec."""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import torch
import torch.distributed as dist
from diffusers import AutoencoderKLLTXVideo, LTXConditionPipeline, LTXVideoTransformer3DModel
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, T5EncoderModel

from scripts.embedded.captions import caption, drop, nonsense
from scripts.embedded.codec import LATENTS
from scripts.embedded.machine import fast_bfloat16
from scripts.embedded.scenes import FPS, LANDSCAPE, MOTIONS, PORTRAIT, SLOTS, Scenes, draw, held_out, sample_scenes
from scripts.embedded.text import WIDTH, encode

CONFIG: dict[str, object] = {
    "in_channels": LATENTS,
    "out_channels": LATENTS,
    "num_attention_heads": 8,
    "attention_head_dim": 32,
    "cross_attention_dim": 256,
    "num_layers": 5,
    "caption_channels": WIDTH,
}
FRAMES = 33
SHARD = 256
BATCH = 48
TOKENS = 56
# What moves where is decided while the clip is almost all noise: train there first (uniform u, s*u / (1 + (s-1)*u)).
# Outlines are decided later on; every other step of the training's second half gives them their share.
SHIFT, LATE_SHIFT = 3.0, 1.5
RATE = 2e-3
# A still of the subject joins the clip's tokens as a frame from long after the clip's end.
REFERENCE_FRAME = 96
REFERENCE_RATE = 0.2


def ranks() -> int:
    """Return how many processes share a batch (``torchrun --nproc-per-node``); on a CPU, better than threads."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Return which of them this is."""
    return dist.get_rank() if dist.is_initialized() else 0


def write_shard(vae: AutoencoderKLLTXVideo, index: int, folder: Path) -> Path:
    """Draw and encode clips, normalised latents ``(SHARD, 128, 9, h, w)`` float16; the index is the seed.

    Every sixth shard shows scenes that have been going on for a while: what an extension of a clip starts from.
    """
    path = folder / f"{index:05d}.pt"
    if path.exists():
        return path
    generator = torch.Generator().manual_seed(1_000_000 + index)
    size = PORTRAIT if index % 5 in (1, 3) else LANDSCAPE
    scenes = sample_scenes(SHARD, generator)
    values = scenes.stacked()
    parts = []
    for start in range(0, SHARD, 16):
        chosen = Scenes.of(values[start : start + 16])
        late = int(torch.randint(1, 25, (), generator=generator)) if index % 6 == 5 else 0
        video = draw(chosen, FRAMES, size, generator, start=late) * 2 - 1
        parts.append(normalise(vae, vae.encode(video).latent_dist.mode()).half())
    temporary = path.with_suffix(".tmp")
    stills = references(vae, values, size, index)
    torch.save({"latents": torch.cat(parts), "values": values, "references": stills}, temporary)
    temporary.replace(path)
    return path


def references(vae: AutoencoderKLLTXVideo, values: Tensor, size: tuple[int, int], index: int) -> Tensor:
    """Return encoded stills ``(clips, 128, 1, h, w)`` float16: each clip's subject, elsewhere and in another light."""
    generator = torch.Generator().manual_seed(2_000_000 + index)
    parts = []
    for start in range(0, len(values), 32):
        chosen = values[start : start + 32]
        other = sample_scenes(len(chosen), generator).stacked()
        other[:, :2] = chosen[:, :2]
        late = int(torch.randint(0, 25, (), generator=generator))
        still = draw(Scenes.of(other), 1, size, generator, start=late) * 2 - 1
        parts.append(normalise(vae, vae.encode(still).latent_dist.mode()).half())
    return torch.cat(parts)


def normalise(vae: AutoencoderKLLTXVideo, latents: Tensor) -> Tensor:
    """Bring raw latents ``(b, c, f, h, w)`` to the denoiser's scale."""
    return (latents - vae.latents_mean.view(1, -1, 1, 1, 1)) / vae.latents_std.view(1, -1, 1, 1, 1)


def coordinates(frames: int, height: int, width: int, *, at: int = 0) -> Tensor:
    """Return what the pipeline gives the transformer as positions, ``(1, 3, tokens)``; sizes in latents.

    ``at`` is the frame of the clip at which they begin.
    """
    ids = LTXConditionPipeline._prepare_video_ids(1, frames, height, width)
    scaled = LTXConditionPipeline._scale_video_ids(ids, scale_factor=32, scale_factor_t=4, frame_index=at).float()
    scaled[:, 0] /= FPS
    return scaled


@dataclass(frozen=True)
class Batch:
    """Clean packed latents ``(b, tokens, 128)`` with their positions, captions and latent shape.

    The first ``stills`` tokens are a picture of the subject, which is given.
    """

    clean: Tensor
    positions: Tensor
    texts: list[str]
    grid: tuple[int, int, int]
    stills: int = 0


def batches(folder: Path, rng: random.Random) -> Iterator[Batch]:
    """Yield batches for ever from the shards there are; new shards join as they appear."""
    loaded: dict[Path, dict[str, Tensor]] = {}
    while True:
        for path in sorted(folder.glob("*.pt")):
            if path not in loaded:
                loaded[path] = torch.load(path, weights_only=True)
        shards = list(loaded.values())
        for _ in range(40):
            # A batch mixes shards of one orientation.
            portrait = rng.random() < 0.4
            pool = [s for s in shards if (s["latents"].shape[3] > s["latents"].shape[4]) == portrait]
            picks = [(rng.choice(pool), rng.randrange(SHARD)) for _ in range(BATCH // ranks())]
            frames = rng.choices((9, 5), (0.85, 0.15))[0]
            clean = torch.stack([s["latents"][i][:, :frames].float() for s, i in picks])
            empty = {"open_rate": 0.12, "empty_rate": 0.08}
            named = [drop(s["values"][i].tolist(), rng, **empty) for s, i in picks]
            _, _, f, h, w = clean.shape
            plain = Batch(clean.flatten(2).transpose(1, 2), coordinates(f, h, w), [], (f, h, w))
            if rng.random() < REFERENCE_RATE:
                stills = torch.stack([s["references"][i].float() for s, i in picks])
                yield _with_reference(plain, stills, named, rng)
            else:
                yield replace(plain, texts=[caption(values, rng) for values in named])


def _with_reference(batch: Batch, stills: Tensor, named: list[dict[str, str | None]], rng: random.Random) -> Batch:
    """Add a picture of the subject; most captions then have a name for it and leave its shape and colour open."""
    texts = []
    for values in named:
        if rng.random() < 0.75:
            text = caption({**values, "shape": None, "colour": None}, rng)
            texts.append(f"{nonsense(rng)} {text}" if rng.random() < 0.7 else text)
        else:
            texts.append(caption(values, rng))
    packed = stills.flatten(2).transpose(1, 2)
    positions = coordinates(1, *batch.grid[1:], at=REFERENCE_FRAME)
    return Batch(
        torch.cat([packed, batch.clean], dim=1),
        torch.cat([positions, batch.positions], dim=2),
        texts,
        batch.grid,
        packed.shape[1],
    )


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
        self, tokenizer: PreTrainedTokenizerFast, text_encoder: T5EncoderModel, steps: int, folder: Path
    ) -> None:
        torch.manual_seed(2)
        self.tokenizer, self.text_encoder, self.steps, self.folder = tokenizer, text_encoder, steps, folder
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
        self.step = 0
        if self.state.exists():
            self._restore()
        # On a CPU most of a step is memory traffic between small operations, and the flash kernel's backward
        # pass; plain attention, compiled, makes a step about half as long.
        for model in (self.model, self.average):
            model.set_attention_backend("_native_math")
        self.model.compile(dynamic=False)

    @property
    def state(self) -> Path:
        return self.folder / "denoiser.state.pt"

    def _restore(self) -> None:
        saved = torch.load(self.state, weights_only=True)
        self.model.load_state_dict(saved["model"])
        self.average.load_state_dict(saved["average"])
        for optimiser, state in zip(self.optimisers, saved.get("optimisers", ()), strict=False):
            optimiser.load_state_dict(state)
        self.step = saved["step"]

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

    def predict(self, model: nn.Module, mixed: Tensor, timesteps: Tensor, batch: Batch, texts: list[str]) -> Tensor:
        """Return the predicted velocity ``(b, tokens, 128)``."""
        with torch.autocast("cpu", torch.bfloat16, enabled=fast_bfloat16()):
            with torch.no_grad():
                embeds, mask = encode(self.tokenizer, self.text_encoder, texts, TOKENS)
            positions = batch.positions.expand(len(mixed), -1, -1)
            made = model(mixed, embeds, timesteps, mask, video_coords=positions, return_dict=False)[0]
        return made.float()

    def run(self, data: Iterator[Batch], until: float) -> Iterator[str]:
        """Train until all steps are done or the clock passes ``until``; yield log lines."""
        running, start, first = 0.0, time.time(), self.step
        while self.step < self.steps and time.time() < until:
            self.step += 1
            factor = min(1.0, self.step / 150) * max(0.02, 1 - max(0.0, self.step / self.steps - 0.4) / 0.6)
            for optimiser in self.optimisers:
                optimiser.param_groups[0]["lr"] = RATE * factor
            loss = self._train_step(next(data))
            running = loss if self.step == first + 1 else 0.97 * running + 0.03 * loss
            if rank() == 0 and (self.step % 100 == 0 or self.step == self.steps):
                self.save()
                rate = (self.step - first) * BATCH / (time.time() - start)
                yield f"denoiser step {self.step} loss {running:.4f} gap {self.gap():.4f} clips/s {rate:.1f}"

    def _train_step(self, batch: Batch) -> float:
        shift = SHIFT if self.step < self.steps / 2 or self.step % 2 else LATE_SHIFT
        mixed, velocity, timesteps, counted = noisy(batch, shift, torch.Generator().manual_seed(2 * self.step + rank()))
        made = self.predict(self.model, mixed, timesteps, batch, batch.texts)
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
        return loss.item()

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
        shard = torch.load(self.folder / "latents" / "00000.pt", weights_only=True)
        index = list(SLOTS).index("motion")
        chosen = [i for i in range(SHARD) if MOTIONS[shard["values"][i, index]] in ("left", "right", "up", "down")]
        chosen = chosen[:48]
        opposite = {"left": "right", "right": "left", "up": "down", "down": "up"}
        words = [MOTIONS[shard["values"][i, index]] for i in chosen]
        clean = shard["latents"][chosen].float()
        _, _, f, h, w = clean.shape
        batch = Batch(clean.flatten(2).transpose(1, 2), coordinates(f, h, w), [], (f, h, w))
        noise = torch.randn(batch.clean.shape, generator=torch.Generator().manual_seed(5))
        mixed = batch.clean + 0.9 * (noise - batch.clean)
        timesteps = torch.full(mixed.shape[:2], 900.0)
        losses = []
        for texts in ([f"moving {opposite[m]}" for m in words], [f"moving {m}" for m in words]):
            made = self.predict(self.average, mixed, timesteps, batch, texts)
            losses.append((made - noise + batch.clean).pow(2).mean())
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
    vae: AutoencoderKLLTXVideo, trainer: Trainer, step: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return windows of clips, nine frames long, and latents that the denoiser rebuilt from noisy ones.

    The noise is low enough (sigma up to 0.5) for the scene to survive and high enough for its details to be the
    denoiser's own work: what the decoder will get when a clip is generated.
    """
    count, rng = 4, random.Random(step)
    size = PORTRAIT if rng.random() < 0.4 else LANDSCAPE
    scenes = sample_scenes(count, generator)
    video = draw(scenes, FRAMES, size, generator) * 2 - 1
    clean = normalise(vae, vae.encode(video).latent_dist.mode())
    _, _, f, h, w = clean.shape
    captions = [caption(drop(v, rng, open_rate=0.0, empty_rate=0.0), rng) for v in scenes.stacked().tolist()]
    batch = Batch(clean.flatten(2).transpose(1, 2), coordinates(f, h, w), captions, (f, h, w))
    levels = torch.linspace(rng.uniform(0.2, 0.5), 0, 4)
    noise = torch.randn(batch.clean.shape, generator=generator)
    tokens = batch.clean + levels[0] * (noise - batch.clean)
    for now, after in pairwise(levels):
        timesteps = torch.full(tokens.shape[:2], float(now) * 1000)
        velocity = trainer.predict(trainer.average, tokens, timesteps, batch, batch.texts)
        tokens = tokens + (after - now) * velocity
    rebuilt = tokens.transpose(1, 2).unflatten(2, (f, h, w))
    start = rng.randrange(f - 2)
    latents = rebuilt * vae.latents_std.view(1, -1, 1, 1, 1) + vae.latents_mean.view(1, -1, 1, 1, 1)
    return video[:, :, 4 * start : 4 * start + 9], latents[:, :, start : start + 3]


def assert_disjoint(values: Tensor) -> None:
    """Fail if a training shard holds a combination that the evaluation uses."""
    if held_out(values).any():
        raise AssertionError("a held-out combination is in the training data")
