"""Measure what the shipped model makes of other clips: extensions, edits and characters.

    python scripts/evaluate_guided.py --into scripts/results

Extensions: a clip of two seconds is extended three times, through files as a server does it; at every seam, the mean
absolute difference of its two frames is put beside the median of such differences inside the clip. Edits: a clip is
made again under a prompt that names another colour; the paths of both subjects are correlated and the colour is judged.
Characters: a drawn still of a subject goes with a prompt that names neither its shape nor its colour. Prompts and
seeds are fixed; clips are judged by pixel statistics (``scripts/embedded/judge.py``).
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from pipelines import footage, media
from pipelines.card import ModelCard, Wish
from pipelines.engine import generate
from pipelines.plan import MemoryPlan
from pipelines.registry import load_pipeline, load_registry
from pipelines.types import Frames, SourceClip
from scripts.embedded import judge as judging
from scripts.embedded.judge import SLOT_ORDER, judge
from scripts.embedded.scenes import COLOURS, LANDSCAPE, LIGHTINGS, SHAPES, draw, sample_scenes

CARD = "homereel-mini"
EXTENDED = (
    "a red ball moving right on a green field in daylight",
    "a blue square moves up over sand dunes at night",
    "a yellow star rests in the snow, the camera pans left",
    "a purple triangle bouncing on a grey street",
    "an orange ball circling over the ocean",
    "a pink star moving left over pink hills at night",
    "a green square standing still on a grey street, static camera",
    "a cyan ball in the desert, the camera zooms in",
)
MOTIONS = ("moving right", "moving left", "rising", "falling", "circling", "bouncing")
PLACES = ("on a green field", "over the ocean", "in the desert", "in the snow", "on a grey street", "over pink hills")
LIGHTS = ("in daylight", "at night")
SLOT = {name: index for index, name in enumerate(SLOT_ORDER)}


@dataclass(frozen=True)
class Studio:
    """A model, and a folder for the files that it makes."""

    pipeline: Any
    card: ModelCard
    folder: Path

    def make(self, name: str, wish: Wish) -> Path:
        """Return the file of a clip."""
        request, path = self.card.resolve(wish).request, self.folder / f"{name}.mp4"
        clip = generate(self.pipeline, request, lambda _progress: None)
        media.write_clip(clip, request, path, metadata=None, report=lambda _progress: None)
        return path


class Edit(NamedTuple):
    """How the edit of a clip went: correlation of the paths, the colour asked for and those judged in both clips."""

    correlation: float
    wanted: str
    before: str
    after: str
    frames: tuple[Frames, Frames]


def read(video: Path) -> Frames:
    return np.stack(list(footage.frames(video)))


def tensor(frames: Frames) -> torch.Tensor:
    """Return ``(3, frames, height, width)``, float32 in [0, 1]."""
    return torch.from_numpy(frames.copy()).float().div(255).permute(3, 0, 1, 2)


def path(clip: torch.Tensor) -> torch.Tensor:
    """Return the subject's centre in every frame, ``(frames, 2)`` as (y, x) in pixels."""
    lighting = int(judge(clip[None])[0, SLOT["lighting"]])
    subject = judging._subject(clip, LIGHTINGS[lighting])  # pyright: ignore[reportPrivateUsage]
    return judging._path(subject)  # pyright: ignore[reportPrivateUsage]


def steps(frames: Frames) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the mean absolute difference of each two frames that follow each other."""
    return np.abs(np.diff(frames.astype(float), axis=0)).mean((1, 2, 3))


def extension(studio: Studio, prompt: str, seed: int, times: int = 3) -> tuple[list[float], Frames]:
    """Return the difference at each seam over the median inside the clip, and the clip itself."""
    path = studio.make("source", Wish(prompt, seconds=2, seed=seed))
    seams: list[int] = []
    for index in range(times):
        shape = media.probe(path).shape
        seams.append(shape.frames - 1)
        source = SourceClip(path, shape, "extend", prompt)
        path = studio.make(f"extended{index}", Wish(prompt, seconds=2, seed=100 + seed, source=source))
    frames = read(path)
    expected = round(2 * (times + 1) * studio.card.shape.fps)
    if len(frames) != expected:
        raise AssertionError(f"{len(frames)} frames instead of {expected}")
    differences = steps(frames)
    inside = np.median(np.delete(differences, seams))
    return [float(differences[seam] / inside) for seam in seams], frames


def edit_prompts(count: int) -> list[tuple[str, str, str]]:
    """Return prompts with a gap for the colour, the colour of the source and that of the edit."""
    rng = random.Random(5)
    made: list[tuple[str, str, str]] = []
    for index in range(count):
        before, after = rng.sample(COLOURS, 2)
        where = f"{MOTIONS[index % 6]} {PLACES[index * 5 % 6]} {LIGHTS[index // 2 % 2]}"
        made.append((f"a {{}} {SHAPES[index % 4]} {where}", before, after))
    return made


def edit(studio: Studio, prompt: tuple[str, str, str], seed: int, *, told: bool = True) -> Edit:
    """Change the colour that a prompt names; ``told`` says whether the source's own prompt is known."""
    text, old, new = prompt
    video = studio.make("source", Wish(text.format(old), seed=seed))
    source = SourceClip(video, media.probe(video).shape, "edit", text.format(old) if told else "")
    frames = read(video), read(studio.make("edit", Wish(text.format(new), seed=70 + seed, source=source)))
    before, after = (tensor(clip) for clip in frames)
    paths = path(before), path(after)
    # Along the direction in which the source's subject goes furthest: the other may hold nothing but noise.
    axis = int(paths[0].std(0).argmax())
    correlation = float(np.corrcoef(paths[0][:, axis], paths[1][:, axis])[0, 1])
    colour_before, colour_after = (COLOURS[int(judge(clip[None])[0, SLOT["colour"]])] for clip in (before, after))
    return Edit(correlation, new, colour_before, colour_after, frames)


def character(studio: Studio, index: int, num_frames: int | None = None) -> tuple[bool, bool, Frames]:
    """Tell whether shape and colour of a clip's subject are those of a still, and return both, the still first."""
    generator = torch.Generator().manual_seed(900 + index)
    scene = sample_scenes(1, generator, test=True)
    still = draw(scene, 1, LANDSCAPE, generator)[0, :, 0].permute(1, 2, 0).mul(255).round().byte().numpy()
    path = studio.folder / "character.png"
    Image.fromarray(still).save(path)
    prompt = f"Mossy {MOTIONS[index % 4]} {PLACES[index % 6]}"
    frames = read(studio.make("shown", Wish(prompt, num_frames=num_frames, seed=index, references=(path,))))
    found = judge(tensor(frames)[None])[0]
    same = [int(found[SLOT[slot]]) == int(getattr(scene, slot)) for slot in ("shape", "colour")]
    return same[0], same[1], np.concatenate([still[None], frames])


def sheet(clips: list[Frames], path: Path, columns: int = 8) -> None:
    """Write frames of every clip at equal distances, a row each."""
    rows = [np.concatenate([c[round(i * (len(c) - 1) / (columns - 1))] for i in range(columns)], axis=1) for c in clips]
    Image.fromarray(np.concatenate(rows)).save(path, quality=70)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edits", type=int, default=24)
    parser.add_argument("--characters", type=int, default=32)
    parser.add_argument("--into", type=Path, help="folder for embedded-guided.json and its contact sheets")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    card = load_registry().cards[CARD]
    with tempfile.TemporaryDirectory() as folder:
        studio = Studio(load_pipeline(card, MemoryPlan("cpu")), card, Path(folder))
        extensions = [extension(studio, prompt, seed) for seed, prompt in enumerate(EXTENDED)]
        prompts = edit_prompts(args.edits)
        told = [edit(studio, prompt, seed) for seed, prompt in enumerate(prompts)]
        untold = [edit(studio, prompt, seed, told=False) for seed, prompt in enumerate(prompts)]
        characters = [character(studio, index) for index in range(args.characters)]
    report = {
        "seams": {
            prompt: [round(r, 2) for r in ratios] for prompt, (ratios, _) in zip(EXTENDED, extensions, strict=True)
        },
        "edits": {"source_prompt_known": shares(told), "source_prompt_unknown": shares(untold)},
        "characters": {
            "n": len(characters),
            "shape": sum(shape for shape, _, _ in characters),
            "colour": sum(colour for _, colour, _ in characters),
            "both": sum(shape and colour for shape, colour, _ in characters),
        },
    }
    print(json.dumps(report, indent=1))
    if args.into:
        args.into.mkdir(parents=True, exist_ok=True)
        (args.into / "embedded-guided.json").write_text(json.dumps(report, indent=1) + "\n")
        sheet([frames for _, frames in extensions], args.into / "embedded-extensions.webp", 16)
        sheet([frames for done in told for frames in done.frames], args.into / "embedded-edits.webp")
        sheet([frames for _, _, frames in characters], args.into / "embedded-characters.webp")


def shares(edits: list[Edit]) -> dict[str, float]:
    """Return how many edits keep the path, change the colour, and do both."""
    kept = [e.correlation >= 0.8 for e in edits]
    changed = [e.after == e.wanted for e in edits]
    return {
        "n": len(edits),
        "path_kept": sum(kept),
        "colour_changed": sum(changed),
        "both": sum(k and c for k, c in zip(kept, changed, strict=True)),
        "median_correlation": round(float(np.median([e.correlation for e in edits])), 3),
    }


if __name__ == "__main__":
    main()
