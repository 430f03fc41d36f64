"""What the embedded diffusion transformer learns from: clips drawn, encoded and described, shard by shard."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKLLTXVideo, LTXConditionPipeline
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from scripts.embedded.captions import caption, drop, nonsense
from scripts.embedded.machine import device, seeded
from scripts.embedded.scenes import FPS, LANDSCAPE, PORTRAIT, Scenes, draw, held_out, sample_scenes
from scripts.embedded.text import tokenise

FRAMES = 33
SHARD = 256
TOKENS = 56
# How often a clip is described anew, and described to go with a still of its subject.
CAPTIONS, STILL_CAPTIONS = 8, 4
# A still of the subject joins the clip's tokens as a frame from long after the clip's end.
REFERENCE_FRAME = 96
REFERENCE_RATE = 0.2


def write_shard(vae: AutoencoderKLLTXVideo, tokenizer: PreTrainedTokenizerFast, index: int, folder: Path) -> Path:
    """Draw, encode and describe clips: normalised latents ``(SHARD, 128, 9, h, w)`` float16; the index is the seed.

    Every sixth shard shows scenes that have been going on for a while: what an extension of a clip starts from.
    """
    path = folder / f"{index:05d}.pt"
    if path.exists():
        return path
    generator = seeded(1_000_000 + index)
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
    shard = {"latents": torch.cat(parts), "values": values, "references": stills}
    torch.save(shard | descriptions(tokenizer, values.tolist(), random.Random(index)), temporary)
    temporary.replace(path)
    return path


def descriptions(tokenizer: PreTrainedTokenizerFast, scenes: list[list[int]], rng: random.Random) -> dict[str, Tensor]:
    """Return the token ids of each scene's captions, int16 ``(scenes, captions, TOKENS)``, without and with a still."""
    texts: dict[str, list[str]] = {"captions": [], "still_captions": []}
    for values in scenes:
        for _ in range(CAPTIONS):
            texts["captions"].append(caption(_named(values, rng), rng))
        for _ in range(STILL_CAPTIONS):
            texts["still_captions"].append(_caption_beside_still(_named(values, rng), rng))
    return {
        name: tokenise(tokenizer, said, TOKENS).short().unflatten(0, (len(scenes), -1)) for name, said in texts.items()
    }


def _named(values: list[int], rng: random.Random) -> dict[str, str | None]:
    return drop(values, rng, open_rate=0.12, empty_rate=0.08)


def _caption_beside_still(named: dict[str, str | None], rng: random.Random) -> str:
    """Most captions have a name for the subject of the still and leave its shape and colour open."""
    if rng.random() >= 0.75:
        return caption(named, rng)
    text = caption({**named, "shape": None, "colour": None}, rng)
    return f"{nonsense(rng)} {text}" if rng.random() < 0.7 else text


def references(vae: AutoencoderKLLTXVideo, values: Tensor, size: tuple[int, int], index: int) -> Tensor:
    """Return encoded stills ``(clips, 128, 1, h, w)`` float16: each clip's subject, elsewhere and in another light."""
    generator = seeded(2_000_000 + index)
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
    """Clean packed latents ``(b, tokens, 128)`` with their positions, captions ``(b, TOKENS)`` and latent shape.

    The first ``stills`` tokens are a picture of the subject, which is given.
    """

    clean: Tensor
    positions: Tensor
    captions: Tensor
    grid: tuple[int, int, int]
    stills: int = 0


def packed(latents: Tensor) -> Tensor:
    """Turn ``(b, 128, f, h, w)`` into the transformer's ``(b, f*h*w, 128)``."""
    return latents.flatten(2).transpose(1, 2)


class Shards:
    """All shards of a folder in the memory of the device, by orientation; new ones join as they appear."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[Path, dict[str, Tensor]] = {}
        self._pools: dict[bool, dict[str, Tensor]] = {}

    def look(self) -> None:
        """Read what is new."""
        fresh = [path for path in sorted(self._folder.glob("*.pt")) if path not in self._read]
        for path in fresh:
            shard = torch.load(path, weights_only=True, map_location=device())
            self._read[path] = {name: tensor for name, tensor in shard.items() if name != "values"}
        if fresh:
            for portrait in (False, True):
                shards = [s for s in self._read.values() if _is_portrait(s["latents"]) == portrait]
                self._pools[portrait] = {name: torch.cat([s[name] for s in shards]) for name in shards[0]}

    def batch(self, count: int, rng: random.Random) -> Batch:
        """Draw ``count`` clips of one orientation, in seven of eight batches whole, now and then with a still."""
        pool = self._pools[rng.random() < 0.4]
        generator = seeded(rng.getrandbits(62))
        picks = torch.randint(len(pool["latents"]), (count,), generator=generator)
        frames = rng.choices((9, 5), (0.85, 0.15))[0]
        latents = pool["latents"][picks, :, :frames].float()
        grid = (int(latents.shape[2]), int(latents.shape[3]), int(latents.shape[4]))
        clean, positions = packed(latents), coordinates(*grid)
        with_still = rng.random() < REFERENCE_RATE
        words = pool["still_captions" if with_still else "captions"]
        captions = words[picks, torch.randint(words.shape[1], (count,), generator=generator)].long()
        if not with_still:
            return Batch(clean, positions, captions, grid)
        stills = packed(pool["references"][picks].float())
        positions = torch.cat([coordinates(1, *grid[1:], at=REFERENCE_FRAME), positions], dim=2)
        return Batch(torch.cat([stills, clean], dim=1), positions, captions, grid, stills.shape[1])


def _is_portrait(latents: Tensor) -> bool:
    return latents.shape[-2] > latents.shape[-1]


def batches(folder: Path, count: int, rng: random.Random) -> Iterator[Batch]:
    """Yield batches of ``count`` clips for ever."""
    shards = Shards(folder)
    while True:
        shards.look()
        for _ in range(40):
            yield shards.batch(count, rng)


def assert_disjoint(values: Tensor) -> None:
    """Fail if a training shard holds a combination that the evaluation uses."""
    if held_out(values).any():
        raise AssertionError("a held-out combination is in the training data")
