"""``homereel generate``: one prompt becomes one video file, or several that differ by their seed."""

from __future__ import annotations

import secrets
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from server.cli.client import Client
from server.cli.local import connected_or_own
from server.cli.orders import Wanted, add_output, check_output, make
from server.cli.outcome import Failure, Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import JsonValue

MAX_CLIPS = 100
SEEDS = 2**31
# Options that travel as they are: flag, name on the wire, type, help.
_SETTINGS: tuple[tuple[str, str, type, str], ...] = (
    ("--seconds", "seconds", str, "length of the video"),
    ("--size", "size", str, "WIDTHxHEIGHT of the file"),
    ("--negative", "negative_prompt", str, "what to steer away from"),
    ("--model", "model", str, "which model makes it (see: homereel list)"),
    ("--steps", "num_inference_steps", int, "denoising steps"),
    ("--guidance", "guidance_scale", float, "how closely to follow the prompt"),
    ("--flow-shift", "flow_shift", float, "how far noise levels are shifted, for models that let it be chosen"),
    ("--step-cache", "step_cache", float, "lossy: share below which a step takes the last one's results, as 0.05"),
    ("--priority", "priority", int, "how far ahead of others, from -10 to 10"),
)
# Pictures: flag, name on the wire, help.
_PICTURES = (
    ("--image", "input_reference", "picture that becomes the first frame"),
    ("--last-image", "last_frame", "picture that becomes the last frame"),
)


@dataclass(frozen=True)
class Plan:
    """One video to ask for. Without a seed the server draws one; without a path the file is named after it."""

    seed: int | None
    path: Path | None


def configure(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("prompt", nargs="?", metavar="PROMPT", help="what to show; - reads it from standard input")
    parser.add_argument("-f", "--file", type=Path, metavar="FILE", help="read the prompt from a text file")
    add_output(parser)
    parser.add_argument("--seed", type=int, help="same request, same seed, same frames")
    parser.add_argument("--n", type=_clip_count, default=1, metavar="N", help="make N videos with seeds S, S+1, ...")
    for flag, name, summary in _PICTURES:
        parser.add_argument(flag, dest=name, type=Path, metavar="FILE", help=summary)
    parser.add_argument("--character", action="append", metavar="ID", help="character to show; may be given again")
    parser.add_argument("--lora", action="append", metavar="NAME[:WEIGHT]", help="LoRA to use; may be given again")
    parser.add_argument("--no-sound", action="store_true", help="make none, with models that make it")
    for flag, name, kind, summary in _SETTINGS:
        parser.add_argument(flag, dest=name, type=kind, help=summary)


def run(options: Namespace) -> int:
    """Make the videos; print the path of each, or its JSON."""
    fields: dict[str, JsonValue] = {"prompt": _prompt(options)}
    fields |= {name: getattr(options, name) for _, name, _, _ in _SETTINGS if getattr(options, name) is not None}
    if options.character:
        fields["characters"] = [{"id": character} for character in options.character]
    if options.lora:
        fields["lora"] = ",".join(options.lora)
    if options.no_sound:
        fields["generate_sound"] = False
    pictures = {name: getattr(options, name) for _, name, _ in _PICTURES if getattr(options, name) is not None}
    plans = _plans(options.seed, options.output, options.n)
    check_output(options.output)
    wanted = [
        Wanted(partial(Client.create, fields=_seeded(fields, plan.seed), pictures=pictures), plan.path)
        for plan in plans
    ]
    with connected_or_own() as client:
        return make(client, wanted, as_json=options.json)


def _seeded(fields: Mapping[str, JsonValue], seed: int | None) -> Mapping[str, JsonValue]:
    return fields if seed is None else {**fields, "seed": seed}


def _clip_count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MAX_CLIPS:
        raise ArgumentTypeError(f"must be a number from 1 to {MAX_CLIPS}")
    return int(text)


def _prompt(options: Namespace) -> str:
    source: Path | None = Path("-") if options.prompt == "-" else options.file
    if (source is None) == (options.prompt in {None, "-"}):
        raise Failure("give one prompt: as a word in quotes, with --file, or as - on standard input", Outcome.MISUSED)
    if source is None:
        return options.prompt
    try:
        return (sys.stdin.read() if str(source) == "-" else source.read_text(encoding="utf-8")).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"cannot read the prompt from {source}: {error}", Outcome.MISUSED) from error


def _plans(seed: int | None, output: Path | None, count: int) -> list[Plan]:
    if count == 1:
        return [Plan(seed, output)]
    first = secrets.randbelow(SEEDS) if seed is None else seed
    return [
        Plan(first + i, output.with_stem(f"{output.stem}-{i + 1}") if output is not None else None)
        for i in range(count)
    ]
