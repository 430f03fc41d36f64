"""``homereel compare``: a contact sheet of videos, a row each, with what they differ in."""

from __future__ import annotations

import json
import tempfile
from argparse import ArgumentTypeError
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageDraw, ImageFont
from rich.console import Console

from pipelines import media
from pipelines.errors import PipelineError
from server.cli.anew import is_file
from server.cli.local import connected_or_own
from server.cli.orders import check_output
from server.cli.outcome import Failure, Outcome
from server.cli.pictures import Screen

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Mapping, Sequence

    from server.cli.client import Client

TILE, LABEL, GAP = 320, 22, 6
_PAPER, _INK = (18, 18, 20), (228, 228, 231)
_SUFFIXES = (".png", ".webp")
_NAME = 20
# What is said of a row where it is not the same in all of them.
_TELLING = ("model", "seed", "num_inference_steps", "guidance_scale", "size", "seconds", "negative_prompt", "prompt")


def configure(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("videos", nargs="+", metavar="VIDEO", help="ids (see: homereel history) or MP4 files")
    parser.add_argument("-o", "--output", type=Path, default=Path("compare.png"), metavar="SHEET", help="PNG or WebP")
    parser.add_argument("--frames", type=_frame_count, default=5, metavar="N", help="pictures a row (default: 5)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


@dataclass(frozen=True)
class _Row:
    """A video: how it is called, what is known of it, its pictures."""

    name: str
    facts: Mapping[str, Any]
    pictures: Sequence[Image.Image]


def run(options: Namespace) -> int:
    """Draw the sheet; print where it is."""
    output: Path = options.output.absolute()
    if output.suffix.lower() not in _SUFFIXES:
        raise Failure(f"cannot write {options.output}: a sheet is a .png or a .webp", Outcome.MISUSED)
    check_output(output)
    files = {video: is_file(video) for video in options.videos}
    with tempfile.TemporaryDirectory() as folder:
        if all(files.values()):
            rows = [_row(video, {}, Path(video), options.frames) for video in options.videos]
        else:
            with connected_or_own() as client:
                rows = [
                    _row(video, {}, Path(video), options.frames)
                    if files[video]
                    else _fetched(video, client, Path(folder), options.frames)
                    for video in options.videos
                ]
    sheet = _sheet(rows)
    sheet.save(output)
    _show(sheet)
    if options.json:
        print(json.dumps({"path": str(output), "differences": _differences(rows)}))
    else:
        print(output)
    return Outcome.DONE


def _frame_count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 16:
        raise ArgumentTypeError("must be a number from 1 to 16")
    return int(text)


def _fetched(video_id: str, client: Client, folder: Path, count: int) -> _Row:
    video, _ = client.retrieve(video_id)
    path = folder / f"{video.id}.mp4"
    client.download(video.id, path)
    facts = video.model_dump(mode="json")
    return _row(video.id, {name: facts[name] for name in _TELLING}, path, count)


def _row(name: str, facts: Mapping[str, Any], path: Path, count: int) -> _Row:
    try:
        frames = media.at_shares(path, [i / max(1, count - 1) for i in range(count)])
    except PipelineError as error:
        raise Failure(f"{name} cannot be read: {error.message}") from error
    pictures = [Image.fromarray(frame) for frame in frames]
    for picture in pictures:
        picture.thumbnail((TILE, TILE))
    return _Row(name, facts, pictures)


def _differences(rows: Sequence[_Row]) -> list[dict[str, Any]]:
    """Return, row by row, the parameters that are not the same in all of those that are known."""
    known = [row.facts for row in rows if row.facts]
    telling = [name for name in _TELLING if len({str(facts[name]) for facts in known}) > 1]
    return [{"video": row.name} | {name: row.facts[name] for name in telling if row.facts} for row in rows]


def _sheet(rows: Sequence[_Row]) -> Image.Image:
    widths = [sum(picture.width + GAP for picture in row.pictures) + GAP for row in rows]
    heights = [LABEL + max(picture.height for picture in row.pictures) + GAP for row in rows]
    sheet = Image.new("RGB", (max(widths), sum(heights) + GAP), _PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    top = GAP
    for row, height, said in zip(rows, heights, _differences(rows), strict=True):
        # Of an id, as much as tells one from another; nobody copies it out of a picture.
        name = row.name if len(row.name) <= _NAME else f"{row.name[:_NAME]}…"
        facts = (f"{parameter} {value}" for parameter, value in said.items() if parameter != "video")
        pen.text((GAP, top + 2), _fitted("   ".join([name, *facts]), sheet.width - 2 * GAP, font), _INK, font)
        left = GAP
        for picture in row.pictures:
            sheet.paste(picture, (left, top + LABEL))
            left += picture.width + GAP
        top += height
    return sheet


def _fitted(text: str, width: int, font: Any) -> str:
    """Return as much of a text as fits on a line of so many pixels."""
    line = " ".join(text.split("\n"))
    if font.getlength(line) <= width:
        return line
    while line and font.getlength(f"{line}…") > width:
        line = line[:-1]
    return f"{line}…"


def _show(sheet: Image.Image) -> None:
    screen = Screen(Console(stderr=True))
    if screen.shows_pictures:
        screen.show_image(sheet)
