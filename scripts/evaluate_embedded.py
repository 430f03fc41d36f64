"""Measure the model that ships: does a clip show what its prompt says?

    python scripts/evaluate_embedded.py --prompts 200 --seeds 2 --into scripts/results

Every prompt is a combination of slots that was never drawn for training. Clips are made by the same code that
serves requests, and judged by pixel statistics (``scripts/embedded/judge.py``). Beside the score of the model stand
those of drawn clips (the judge's own ceiling), of their VAE reconstructions and of an untrained copy (chance).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import random
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image

from pipelines.card import ModelCard, Wish
from pipelines.engine import generate
from pipelines.plan import MemoryPlan
from pipelines.registry import load_pipeline, load_registry
from pipelines.types import ImageCondition
from scripts.embedded import decoder
from scripts.embedded.captions import caption
from scripts.embedded.judge import SLOT_ORDER, confusion, judge, score
from scripts.embedded.scenes import (
    COLOURS,
    ENVIRONMENTS,
    LANDSCAPE,
    LIGHTINGS,
    PORTRAIT,
    SLOTS,
    Scenes,
    draw,
    sample_scenes,
)

CARD = "homereel-mini"
Judged: TypeAlias = "tuple[torch.Tensor, torch.Tensor]"
COLUMNS = ("environment", "colour", "lighting", "direction", "camera_balanced", "shape", "motion", "camera")


def make(pipeline: Any, card: ModelCard, wish: Wish) -> torch.Tensor:
    """Return one generated clip, float32 in [0, 1], ``(3, frames, height, width)``."""
    clip = generate(pipeline, card.resolve(wish).request, lambda _progress: None)
    frames = np.concatenate(list(clip.chunks))
    return torch.from_numpy(frames).float().div(255).permute(3, 0, 1, 2)


def size_of(index: int) -> tuple[int, int]:
    """Return (height, width): three landscape clips in five, as in training."""
    return PORTRAIT if index % 5 in (1, 3) else LANDSCAPE


def full_caption(values: list[int], rng: random.Random) -> str:
    named: dict[str, str | None] = {k: v[i] for (k, v), i in zip(SLOTS.items(), values, strict=True)}
    return caption(named, rng)


def drawn_and_reconstructed(pipeline: Any, count: int) -> Iterator[tuple[str, dict[str, float]]]:
    """Judge drawn held-out clips, then the VAE's reconstructions of them."""
    generator = torch.Generator().manual_seed(77)
    wanted, drawn, rebuilt = [], [], []
    vae = pipeline._pipe.vae
    for index in range(0, count, 10):
        scenes = sample_scenes(10, generator, test=True)
        video = draw(scenes, 33, size_of(index // 10), generator)
        with torch.no_grad():
            again = vae.decode(vae.encode(video * 2 - 1).latent_dist.mode()).sample / 2 + 0.5
        wanted.append(scenes.stacked())
        drawn.append(judge(video))
        rebuilt.append(judge(again.clamp(0, 1)))
    truth = torch.cat(wanted)
    yield "drawn clips", score(torch.cat(drawn), truth)
    yield "VAE reconstructions", score(torch.cat(rebuilt), truth)


def generated(pipeline: Any, card: ModelCard, prompts: int, seeds: int, share: slice = slice(None)) -> Judged:
    """Return judged and wanted slots of ``prompts`` held-out combinations times ``seeds``, or of a share of them."""
    scenes = sample_scenes(prompts, torch.Generator().manual_seed(4242), test=True).stacked()
    rng = random.Random(4242)
    every = [(index, full_caption(values.tolist(), rng), values) for index, values in enumerate(scenes)]
    found, wanted = [], []
    for index, prompt, values in every[share]:
        height, width = size_of(index)
        for seed in range(seeds):
            clip = make(pipeline, card, Wish(prompt, size=(width, height), num_frames=33, seed=seed + 10 * index))
            found.append(judge(clip[None])[0])
            wanted.append(values)
    return torch.stack(found), torch.stack(wanted)


def _share(prompts: int, seeds: int, share: slice) -> Judged:
    torch.set_num_threads(1)
    card = load_registry().cards[CARD]
    return generated(load_pipeline(card, MemoryPlan("cpu")), card, prompts, seeds, share)


def generated_in_parallel(prompts: int, seeds: int, processes: int) -> Judged:
    """Do what ``generated`` does, in processes of one thread: twice as fast as one process of two."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        shares = [pool.submit(_share, prompts, seeds, slice(i, None, processes)) for i in range(processes)]
        found, wanted = zip(*(share.result() for share in shares), strict=True)
    return torch.cat(found), torch.cat(wanted)


def negative_prompts(pipeline: Any, card: ModelCard, count: int) -> list[dict[str, Any]]:
    """Measure how often something shows up, without and with a negative prompt that names it."""
    probes = [
        ("a ball moving left", "blue background", "environment", ENVIRONMENTS.index("blue")),
        ("a ball moving left", "green grass", "environment", ENVIRONMENTS.index("green")),
        ("a ball on a grey street", "red", "colour", COLOURS.index("red")),
        ("a ball on a grey street", "blue", "colour", COLOURS.index("blue")),
        ("a red ball moving right", "at night", "lighting", LIGHTINGS.index("night")),
        ("a red ball moving right", "in daylight", "lighting", LIGHTINGS.index("day")),
    ]
    rows = []
    for prompt, negative, slot, value in probes:
        shares = []
        for words in ("", negative):
            clips = [make(pipeline, card, Wish(prompt, words, num_frames=17, seed=seed)) for seed in range(count)]
            found = torch.cat([judge(clip[None]) for clip in clips])[:, SLOT_ORDER.index(slot)]
            shares.append(float((found == value).float().mean()))
        rows.append({"prompt": prompt, "negative": negative, "without": shares[0], "with": shares[1], "n": count})
    return rows


def first_frames(pipeline: Any, card: ModelCard, count: int) -> list[float]:
    """Return the PSNR in dB of each clip's first frame against the image it was given."""
    generator = torch.Generator().manual_seed(31)
    scores = []
    for index in range(count):
        scenes = sample_scenes(1, generator, test=True)
        height, width = size_of(index)
        picture = draw(scenes, 1, (height, width), generator)[0, :, 0]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "first.png"
            Image.fromarray((picture.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)).save(path)
            prompt = full_caption(scenes.stacked()[0].tolist(), random.Random(index))
            clip = make(
                pipeline, card, Wish(prompt, size=(width, height), seed=index, conditions=(ImageCondition(path),))
            )
        scores.append(float(-10 * torch.log10((clip[:, 0] - picture).pow(2).mean())))
    return scores


def references(pipeline: Any, card: ModelCard, count: int) -> dict[str, float]:
    """Return how often a clip has the subject of a still, under a prompt that names neither its shape nor colour."""
    generator, rng = torch.Generator().manual_seed(53), random.Random(53)
    found, wanted = [], []
    for index in range(count):
        pair = sample_scenes(2, generator, test=True)
        values = pair.stacked()
        # What the still shows besides its subject is the other scene's.
        values[1, :2] = values[0, :2]
        height, width = size_of(index)
        picture = draw(Scenes.of(values[1:]), 1, (height, width), generator, start=8)[0, :, 0]
        named = {k: v[i] for (k, v), i in zip(SLOTS.items(), values[0].tolist(), strict=True)}
        prompt = caption({**named, "shape": None, "colour": None}, rng)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "subject.png"
            Image.fromarray((picture.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)).save(path)
            clip = make(pipeline, card, Wish(prompt, size=(width, height), seed=index, references=(path,)))
        found.append(judge(clip[None])[0])
        wanted.append(values[0])
    return score(torch.stack(found), torch.stack(wanted))


def untrained(pipeline: Any) -> None:
    """Replace the denoiser's weights by random ones of the same size."""
    torch.manual_seed(0)
    for parameter in pipeline._pipe.transformer.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)


def table(rows: dict[str, dict[str, float]]) -> str:
    lines = ["| clips | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for name, scores in rows.items():
        lines.append(f"| {name} | " + " | ".join(f"{100 * scores[c]:.1f}" for c in COLUMNS) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--into", type=Path, help="folder for embedded-eval.json and .md")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    card = load_registry().cards[CARD]
    pipeline: Any = load_pipeline(card, MemoryPlan("cpu"))
    rows = dict(drawn_and_reconstructed(pipeline, max(40, args.prompts)))
    print(table(rows), flush=True)
    start = time.perf_counter()
    found, wanted = generated_in_parallel(args.prompts, args.seeds, args.threads)
    rows[f"generated, {args.prompts} x {args.seeds}"] = score(found, wanted)
    print(table(rows), flush=True)
    seconds = (time.perf_counter() - start) / len(found)
    confusions = {slot: confusion(found, wanted, slot) for slot in ("shape", "motion", "environment", "camera")}
    report: dict[str, Any] = {
        "vae_psnr_db": decoder.evaluate(pipeline._pipe.vae),
        "first_frame_psnr_db": first_frames(pipeline, card, max(4, args.prompts // 8)),
        "negative_prompts": negative_prompts(pipeline, card, max(4, args.prompts // 8)),
        "seconds_per_clip": seconds,
        "machine": {"processor": platform.processor() or platform.machine(), "threads": args.threads},
        "torch": torch.__version__,
    }
    subjects = max(8, args.prompts // 4)
    rows[f"with a still of the subject, which the prompt does not name, {subjects}"] = references(
        pipeline, card, subjects
    )
    untrained(pipeline)
    chance = generated(pipeline, card, max(10, args.prompts // 5), 1)
    rows["untrained copy"] = score(*chance)
    report["scores"] = rows
    text = summary(rows, report, confusions)
    print(text)
    if args.into:
        args.into.mkdir(parents=True, exist_ok=True)
        (args.into / "embedded-eval.json").write_text(json.dumps(report, indent=1) + "\n")
        (args.into / "embedded-eval.md").write_text(text + "\n")


def summary(rows: dict[str, dict[str, float]], report: dict[str, Any], confusions: dict[str, str]) -> str:
    firsts = report["first_frame_psnr_db"]
    parts = [
        "Percent judged right. " + (__doc__ or "").split("\n\n")[2].replace("\n", " "),
        table(rows),
        f"VAE on held-out clips: {report['vae_psnr_db']:.2f} dB. First frame of image-to-video against the image: "
        f"median {float(np.median(firsts)):.2f} dB, lowest {min(firsts):.2f} dB (n={len(firsts)}).",
        "| prompt | negative prompt | share without | share with | n |\n|---|---|---|---|---|\n"
        + "\n".join(
            f"| {r['prompt']} | {r['negative']} | {100 * r['without']:.0f} % | {100 * r['with']:.0f} % | {r['n']} |"
            for r in report["negative_prompts"]
        ),
        "What was made instead:\n\n```\n" + "\n".join(f"{k}\n{v}" for k, v in confusions.items()) + "\n```",
        f"{report['seconds_per_clip']:.2f} s per clip, {report['machine']}, torch {report['torch']}.",
    ]
    return "\n\n".join(parts)


if __name__ == "__main__":
    main()
