"""Frames become files: MP4, thumbnail, spritesheet; and files tell what they are."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import subprocess
import tempfile
import wave
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import imageio_ffmpeg
import numpy as np
from PIL import Image
from pydantic import JsonValue

from pipelines.card import ModelCard
from pipelines.errors import BadOutput
from pipelines.footage import cover, frames, retime
from pipelines.types import Audio, Clip, Frames, GenerationRequest, Progress, Report, SourceClip, Stage, VideoShape

# The package has no type information.
_ffmpeg: Any = imageio_ffmpeg
# Visually lossless at any size that these models make.
CRF = 16
# How long muxing goes on without looking whether it is still wanted.
_LOOK_S = 0.05
THUMBNAIL_SIDE = 640
PREVIEW_SIDE, PREVIEW_FRAMES = 160, 24
SHEET_COLUMNS, SHEET_ROWS, SHEET_TILE = 4, 4, 320
METADATA_KEY = "homereel"


@dataclass(frozen=True)
class VideoFacts:
    """What a video file says of itself. ``provenance`` is what ``write_clip`` put in, or None."""

    shape: VideoShape
    codec: str
    provenance: Mapping[str, JsonValue] | None


def asked(request: GenerationRequest) -> dict[str, JsonValue]:
    """Return what was asked for, as far as it needs no other file, ready for JSON."""
    return {
        "prompt": request.prompt,
        "negative_prompt": request.negative_prompt,
        "seed": request.seed,
        "num_inference_steps": request.num_inference_steps,
        "refine_steps": request.refine_steps,
        "guidance_scale": request.guidance_scale,
        "guidance_scale_2": request.guidance_scale_2,
        "flow_shift": request.flow_shift,
        "step_cache": request.step_cache,
        "sound": request.sound,
        "size": request.delivery.size,
        "native_size": request.shape.size,
        "num_frames": request.delivery.frames,
        "native_frames": request.shape.frames,
        "fps": request.delivery.fps,
    }


def provenance(request: GenerationRequest, card: ModelCard, facts: Mapping[str, str]) -> dict[str, JsonValue]:
    """Return everything a clip was made of, ready for JSON."""
    return {
        **asked(request),
        "source": request.source and _source(request.source),
        "loras": [{"name": lora.name, "weight": lora.weight} for lora in request.loras],
        "references": [path.name for path in request.references],
        "windows": [{"frames": w.frames, "overlap": w.overlap} for w in request.windows],
        "conditions": [{"frame": c.frame, "fit": c.fit, "file": c.path.name} for c in request.conditions],
        "model": card.id,
        "revision": card.weights.revision,
        "weights": card.weights.repo or card.weights.package,
        "licence": card.licence.id,
        "facts": dict(facts),
    }


def _source(source: SourceClip) -> dict[str, JsonValue]:
    return {
        "file": source.path.name,
        "use": source.use,
        "strength": source.strength if source.use == "edit" else None,
        "prompt": source.prompt,
        "num_frames": source.shape.frames,
    }


def write_clip(
    clip: Clip,
    request: GenerationRequest,
    path: Path,
    *,
    metadata: Mapping[str, JsonValue] | None,
    report: Report,
) -> None:
    """Write an MP4 that plays everywhere: H.264 High, yuv420p, BT.709, constant rate, index in front.

    Args:
        clip: Read to its end. Frames past ``request.delivery.frames`` are left out.
        request: Says which size the file has: the clip is scaled to cover it and the overhang is cropped. An
            extension's file begins with the frames of its source, which go from file to file.
        path: Written only when everything has been encoded.
        metadata: Stored in the file as JSON, or None to store nothing.
        report: Told when muxing begins and ends; may raise ``Cancelled`` at any frame.

    Raises:
        BadOutput: ffmpeg could not encode the clip.
        OSError: There is no room for the file.
    """
    temporary = path.with_name(f".{path.name}.partial")
    with _sound_file(clip.audio, path.parent) as sound, metadata_file(metadata, path.parent) as notes:
        command = _encode_command(clip.shape, request, sound, notes)
        _pipe(command, temporary, clip.chunks, request.delivery.frames - request.kept_frames, report)
    temporary.replace(path)
    report(Progress(Stage.MUX, 1, 1))


def _encode_command(made: VideoShape, request: GenerationRequest, sound: Path | None, notes: Path) -> list[str]:
    target = request.delivery
    command = [_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-loglevel", "error", "-nostdin", "-y"]
    command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", made.size, "-r", str(made.fps), "-i", "pipe:0"]
    command += ["-f", "ffmetadata", "-i", str(notes)]
    command += ["-i", str(sound)] if sound else []
    command += ["-i", str(request.source.path)] if request.source and request.kept_frames else []
    command += ["-filter_complex", _filters(request, source_input=3 if sound else 2)]
    command += ["-map", "[out]", "-map_metadata", "1"]
    command += ["-map", "2:a", "-c:a", "aac", "-b:a", "192k"] if sound else []
    command += ["-c:v", "libx264", "-profile:v", "high", "-preset", "medium", "-crf", str(CRF)]
    command += ["-fps_mode", "cfr", "-r", str(target.fps)]
    return [*command, "-movflags", "+faststart", "-f", "mp4"]


def _filters(request: GenerationRequest, source_input: int) -> str:
    """Return ffmpeg's graph from the frames that come in to ``[out]``, an extension's source first."""
    target = request.delivery
    fit = f"{cover(target.width, target.height, to_rgb=False)},format=yuv420p"
    colours = "setparams=range=tv:color_primaries=bt709:color_trc=bt709:colorspace=bt709"
    if request.source is None or not request.kept_frames:
        return f"[0:v]{fit},{colours}[out]"
    there = f"[{source_input}:v:0]{retime(request.source, target.fps)},{fit},setsar=1[there]"
    return f"{there};[0:v]{fit},setsar=1[new];[there][new]concat=n=2:v=1:a=0,{colours}[out]"


def _pipe(command: list[str], into: Path, chunks: Iterator[Frames], frames: int, report: Report) -> None:
    """Feed frames to ffmpeg; whatever goes wrong, no process and no file is left behind."""
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen([*command, str(into)], stdin=subprocess.PIPE, stderr=errors)  # noqa: S603
        stdin = cast("IO[bytes]", process.stdin)
        try:
            left = frames
            # Read to the end even when enough frames are through: the engine checks the whole clip.
            for chunk in chunks:
                kept = chunk[: max(left, 0)]
                left -= len(kept)
                stdin.write(np.ascontiguousarray(kept).tobytes())
            report(Progress(Stage.MUX, 0, 1))
            stdin.close()
            while _goes_on(process):
                report(Progress(Stage.MUX, 0, 1))
        except BrokenPipeError:
            pass  # ffmpeg gave up; its exit status and its words are read below
        except BaseException:
            process.kill()
            raise
        finally:
            with suppress(BrokenPipeError):
                stdin.close()
            process.wait()
            if process.returncode:
                into.unlink(missing_ok=True)
        if process.returncode:
            errors.seek(0)
            raise encoding_failure(errors.read(), process.returncode, into)


def _goes_on(process: subprocess.Popen[bytes]) -> bool:
    """Wait for a process for as long as somebody who has it cancelled should wait."""
    try:
        process.wait(_LOOK_S)
    except subprocess.TimeoutExpired:
        return True
    return False


def encoding_failure(words: bytes, status: int, into: Path) -> Exception:
    """Return what ffmpeg's last words mean, with which it failed to write a clip."""
    reason = words.decode(errors="replace").strip()[-400:]
    for full in (errno.ENOSPC, errno.EDQUOT):
        if os.strerror(full) in reason:
            # The clip is sound; whoever stores it has to make room.
            return OSError(full, os.strerror(full), str(into))
    return BadOutput(f"ffmpeg could not encode the clip: {reason or status}")


@contextmanager
def _sound_file(audio: Audio | None, folder: Path) -> Generator[Path | None]:
    """Lend the clip's sound as a 16-bit WAV file."""
    if audio is None:
        yield None
        return
    with tempfile.NamedTemporaryFile(suffix=".wav", dir=folder) as file:
        with wave.open(file.name, "wb") as wav:
            wav.setnchannels(len(audio.samples))
            wav.setsampwidth(2)
            wav.setframerate(audio.rate)
            wav.writeframes((audio.samples.T.clip(-1, 1) * 32767).round().astype("<i2").tobytes())
        yield Path(file.name)


@contextmanager
def metadata_file(metadata: Mapping[str, JsonValue] | None, folder: Path) -> Generator[Path]:
    """Lend the metadata as ffmpeg reads it; a prompt may be longer than a command line."""
    with tempfile.NamedTemporaryFile("w", suffix=".ffmeta", dir=folder, encoding="utf-8") as file:
        file.write(";FFMETADATA1\n")
        if metadata is not None:
            text = json.dumps({METADATA_KEY: metadata}, ensure_ascii=False, separators=(",", ":"))
            file.write("comment=" + re.sub(r"([=;#\\\n])", r"\\\1", text) + "\n")
        file.flush()
        yield Path(file.name)


def at_shares(video: Path, shares: Sequence[float]) -> list[Frames]:
    """Return the frames at these shares of a video, 0 being the first and 1 the last, in order.

    Raises:
        BadOutput: The file is not a video.
    """
    last = probe(video).shape.frames - 1
    wanted = [round(share * last) for share in shares]
    # One by one: together they would take gigabytes of a long clip.
    every = enumerate(frames(video))
    found = {number: frame for number, frame in every if number in wanted or number == 0}
    if not found:
        raise BadOutput(f"{video.name} is not a video")
    # What the file's header says of its length may be a frame off.
    return [found.get(number, found[max(found)]) for number in wanted]


def still(video: Path, into: Path) -> None:
    """Write the sharpest frame of a clip's middle half as PNG: what a character's clip is remembered by.

    Raises:
        BadOutput: The file is not a video.
    """
    total = probe(video).shape.frames
    quarter = total // 4
    # One by one: together they would take gigabytes of a clip from a camera.
    middle = (frame for number, frame in enumerate(frames(video)) if quarter <= number < max(total - quarter, 1))
    sharpest = max(middle, key=_sharpness, default=None)
    if sharpest is None:
        raise BadOutput(f"{video.name} is not a video")
    Image.fromarray(sharpest).save(into, "PNG")


def _sharpness(frame: Frames) -> float:
    """Return the mean squared second difference of the brightness: blur has little of it."""
    grey = frame.astype(np.float32).mean(2)
    return float(np.square(np.diff(grey, 2, axis=0)).mean() + np.square(np.diff(grey, 2, axis=1)).mean())


def preview(clip: Frames, fps: int) -> bytes:
    """Return a rough clip ``(f, height, width, 3)`` as a small animated WebP that plays over and over, in real time."""
    every = -(-len(clip) // PREVIEW_FRAMES)
    height, width = clip.shape[1:3]
    scale = PREVIEW_SIDE / max(height, width)
    size = (round(width * scale), round(height * scale))
    pictures = [Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC) for frame in clip[::every]]
    file = io.BytesIO()
    # The fastest method: a preview is looked at once, for a second.
    options: dict[str, Any] = {"duration": round(1000 * every / fps), "loop": 0, "quality": 60, "method": 0}
    pictures[0].save(file, "WEBP", save_all=True, append_images=pictures[1:], **options)
    return file.getvalue()


def thumbnail(video: Path, into: Path) -> None:
    """Write the middle frame as WebP, at most ``THUMBNAIL_SIDE`` pixels on its long side."""
    picture = Image.fromarray(at_shares(video, [0.5])[0])
    picture.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.LANCZOS)
    picture.save(into, "WEBP", quality=85, method=4)


def spritesheet(video: Path, into: Path) -> None:
    """Write sixteen frames at equal distances, first and last included, as a 4x4 JPEG read row by row."""
    count = SHEET_COLUMNS * SHEET_ROWS
    tiles = [Image.fromarray(frame) for frame in at_shares(video, [i / (count - 1) for i in range(count)])]
    for tile in tiles:
        tile.thumbnail((SHEET_TILE, SHEET_TILE), Image.Resampling.LANCZOS)
    width, height = tiles[0].size
    sheet = Image.new("RGB", (SHEET_COLUMNS * width, SHEET_ROWS * height))
    for index, tile in enumerate(tiles):
        sheet.paste(tile, (index % SHEET_COLUMNS * width, index // SHEET_COLUMNS * height))
    sheet.save(into, "JPEG", quality=88)


def probe(video: Path) -> VideoFacts:
    """Read a video's shape and the metadata that ``write_clip`` stored.

    Raises:
        BadOutput: The file is not a video.
    """
    command = [_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-nostdin", "-i", str(video), "-map", "0:v:0", "-c", "copy"]
    command += ["-progress", "pipe:1", "-f", "null", "-"]
    done = subprocess.run(command, capture_output=True, check=False)  # noqa: S603 - our own program
    words = done.stderr.decode(errors="replace")
    stream = re.search(r"Video: (\w+).*?, (\d+)x(\d+).*?, ([\d.]+) fps", words)
    counts = re.findall(r"^frame=\s*(\d+)", done.stdout.decode(errors="replace"), re.MULTILINE)
    if done.returncode or not stream or not counts:
        raise BadOutput(f"{video.name} is not a video")
    codec, width, height, fps = stream.groups()
    # A phone held upright says so beside the picture, which ffmpeg then turns; the size in the header is the sensor's.
    if re.search(r"rotation of -?(90|270)\.", words):
        width, height = height, width
    shape = VideoShape(int(counts[-1]), int(height), int(width), max(1, round(float(fps))))
    return VideoFacts(shape, codec, _read_provenance(video))


def _read_provenance(video: Path) -> Mapping[str, JsonValue] | None:
    command = [_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-i", str(video), "-f", "ffmetadata", "pipe:1"]
    text = subprocess.run(command, capture_output=True, check=True).stdout.decode()  # noqa: S603
    found = re.search(r"^comment=((?:.|\\\n)*?)(?<!\\)$", text, re.MULTILINE)
    if not found:
        return None
    # ffmetadata escapes '=', ';', '#', '\' and line ends with a backslash.
    unescaped = re.sub(r"\\(.)", r"\1", found[1], flags=re.DOTALL)
    try:
        found = json.loads(unescaped)[METADATA_KEY]
    except (ValueError, KeyError, TypeError):
        return None
    # Anybody can write anything into a file.
    return cast("dict[str, JsonValue]", found) if isinstance(found, dict) else None
