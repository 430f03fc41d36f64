"""Finished clips, or parts of them, become one: frame by frame, with their sound, and with what each was made of."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, cast

import imageio_ffmpeg
from pydantic import JsonValue

from pipelines import media
from pipelines.errors import BadOutput
from pipelines.pieces import JOINED, Piece, pieces_of
from pipelines.types import GenerationRequest, Part, Progress, Report, Stage

# The package has no type information.
_ffmpeg: Any = imageio_ffmpeg
# Finer than what the parts were encoded with, so that the second time takes nothing away that the first one left.
CRF = 10
_RATE = 48_000


def provenance(request: GenerationRequest, model: str) -> dict[str, JsonValue]:
    """Return what the joined clip was made of, ready for JSON. Pieces of joined parts are listed themselves.

    Beside them stands what ``media.provenance`` says of other clips, here of the last part, which ``model`` made: a
    record that is lost is written again from that.
    """
    pieces: list[Piece] = []
    for part in request.parts:
        made = media.probe(part.path).provenance
        pieces += _flat(part, made)
    listed: list[JsonValue] = [piece.model_dump(mode="json") for piece in pieces]
    return {**media.asked(request), "model": model, JOINED: listed}


def _flat(part: Part, made: Mapping[str, JsonValue] | None) -> list[Piece]:
    inner = pieces_of(made)
    if not inner:
        return [Piece(video=part.video, start_frame=part.start, end_frame=part.end, made=made)]
    kept: list[Piece] = []
    at = 0
    for piece in inner:
        left = piece.cut(part.start - at, part.end - at)
        kept += [left] if left else []
        at += piece.end_frame - piece.start_frame
    return kept


def join(request: GenerationRequest, path: Path, *, metadata: Mapping[str, JsonValue] | None, report: Report) -> None:
    """Write the parts of a request one after the other as one MP4, as ``media.write_clip`` writes others.

    Args:
        request: Its parts all have the size and rate of its delivery.
        path: Written only when everything has been encoded.
        metadata: Stored in the file as JSON, or None to store nothing.
        report: Told several times a second how many frames are written; may raise ``Cancelled``.

    Raises:
        BadOutput: A part is not the video that it was, or ffmpeg could not encode the clip.
        OSError: There is no room for the file.
    """
    temporary = path.with_name(f".{path.name}.partial")
    total = request.delivery.frames
    try:
        with media.metadata_file(metadata, path.parent) as notes:
            _run([*_command(request, notes), str(temporary)], temporary, total, report)
        written = media.probe(temporary).shape.frames
        if written != total:
            raise BadOutput(f"The joined clip has {written} frames instead of {total}.")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    report(Progress(Stage.MUX, total, total))


def _command(request: GenerationRequest, notes: Path) -> list[str]:
    command = [_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-loglevel", "error", "-nostdin", "-y"]
    for part in request.parts:
        command += ["-i", str(part.path)]
    command += ["-f", "ffmetadata", "-i", str(notes)]
    command += ["-filter_complex", _filters(request.parts, request.delivery.fps, sound=request.sound)]
    command += ["-map", "[out]", "-map_metadata", str(len(request.parts))]
    command += ["-map", "[sound]", "-c:a", "aac", "-b:a", "192k"] if request.sound else []
    command += ["-c:v", "libx264", "-profile:v", "high", "-preset", "medium", "-crf", str(CRF)]
    command += ["-fps_mode", "cfr", "-r", str(request.delivery.fps)]
    return [*command, "-progress", "pipe:1", "-stats_period", "0.2", "-movflags", "+faststart", "-f", "mp4"]


def _filters(parts: Sequence[Part], fps: int, *, sound: bool) -> str:
    """Return ffmpeg's graph from the parts to ``[out]``, and to ``[sound]``."""
    graph: list[str] = []
    streams = ""
    for number, part in enumerate(parts):
        chosen = f"trim=start_frame={part.start}:end_frame={part.end},setpts=N/({fps}*TB)"
        graph.append(f"[{number}:v:0]{chosen},setsar=1,format=yuv420p[v{number}]")
        streams += f"[v{number}]"
        if sound:
            start, lasts = part.start / fps, part.frames / fps
            # Sound comes in blocks that end a little before or after the pictures: each part's is as long as those.
            chosen = f"atrim=start={start:.9f}:duration={lasts:.9f},asetpts=PTS-STARTPTS"
            level = f"aresample={_RATE},aformat=channel_layouts=stereo"
            graph.append(f"[{number}:a:0]{level},{chosen},apad=whole_dur={lasts:.9f}[a{number}]")
            streams += f"[a{number}]"
    ends = "[joined][sound]" if sound else "[joined]"
    graph.append(f"{streams}concat=n={len(parts)}:v=1:a={int(sound)}{ends}")
    graph.append("[joined]setparams=range=tv:color_primaries=bt709:color_trc=bt709:colorspace=bt709[out]")
    return ";".join(graph)


def _run(command: list[str], into: Path, total: int, report: Report) -> None:
    """Run ffmpeg to its end; whatever goes wrong, no process is left behind."""
    with tempfile.TemporaryFile() as errors:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors) as process:  # noqa: S603
            try:
                report(Progress(Stage.MUX, 0, total))
                for line in cast("IO[bytes]", process.stdout):
                    key, _, value = line.strip().partition(b"=")
                    if key == b"frame" and value.isdigit():
                        report(Progress(Stage.MUX, min(int(value), total), total))
            except BaseException:
                process.kill()
                raise
        if process.returncode:
            errors.seek(0)
            raise media.encoding_failure(errors.read(), process.returncode, into)
