"""The vocabulary of generation. Free of tensor libraries, so that the server can speak it too."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

Frames: TypeAlias = npt.NDArray[np.uint8]
"""RGB frames of shape ``(frames, height, width, 3)``."""

ImageFit = Literal["cover", "contain", "exact"]

SourceUse = Literal["edit", "extend"]

DType = Literal["float32", "float16", "bfloat16"]
"""What a part of a model computes in."""


class VideoShape(NamedTuple):
    """A clip in pixel space. The order is that of tensors; ``WIDTHxHEIGHT`` exists only on the wire."""

    frames: int
    height: int
    width: int
    fps: int

    @property
    def seconds(self) -> float:
        """Length of the clip when played."""
        return self.frames / self.fps

    @property
    def size(self) -> str:
        """The wire's spelling, ``WIDTHxHEIGHT``."""
        return f"{self.width}x{self.height}"


LAST = -1


@dataclass(frozen=True)
class ImageCondition:
    """A picture that the clip must pass through.

    Attributes:
        path: The image file; owned by whoever made the request, read when the clip is encoded.
        frame: Index of the frame that it fixes; 0 is the first. ``LAST`` stands for the last in a wish, where nobody
            knows yet how many there will be; a request has its number.
        fit: How it is brought to the clip's size: cropped to cover it, padded to be contained, or refused
            unless it matches exactly.
    """

    path: Path
    frame: int = 0
    fit: ImageFit = "cover"


@dataclass(frozen=True)
class Lora:
    """A small change of a model's weights.

    Attributes:
        name: What the request calls it.
        path: Its safetensors file.
        weight: How strongly it counts; 1 as it was trained.
    """

    name: str
    path: Path
    weight: float = 1.0


@dataclass(frozen=True)
class SourceClip:
    """A finished clip that the new one starts from.

    Attributes:
        path: The video file; owned by whoever made the request, read when the clip is encoded.
        shape: What the file has: frames, size and rate.
        use: ``edit`` makes it anew under another prompt; ``extend`` continues it, and the result holds both.
        prompt: The words that it was made from; empty if nobody knows. An edit changes what the new prompt says
            differently, so knowing the old one helps.
        strength: How far an edit may go from its source: 0 keeps it, 1 forgets it. An extension has no use for it.
    """

    path: Path
    shape: VideoShape
    use: SourceUse
    prompt: str = ""
    strength: float = 1.0

    def frames_at(self, fps: int) -> int:
        """Return how many frames the clip has when it is played at another rate."""
        return max(1, round(self.shape.frames * fps / self.shape.fps))


@dataclass(frozen=True)
class Part:
    """Frames ``start`` up to but without ``end`` of a finished clip, as one of those that are joined.

    Attributes:
        path: The video file; owned by whoever made the request.
        shape: What the file has: frames, size and rate.
        start: Index of the first frame that is taken.
        end: Index of the first frame after those that are taken.
        video: What the clip is called where it comes from.
    """

    path: Path
    shape: VideoShape
    start: int
    end: int
    video: str

    @property
    def frames(self) -> int:
        """How many frames are taken."""
        return self.end - self.start


class Window(NamedTuple):
    """What the model makes in one go: ``frames`` of a clip, the first ``overlap`` of which are there already."""

    frames: int
    overlap: int = 0

    @property
    def new(self) -> int:
        """Frames that it adds to the clip."""
        return self.frames - self.overlap


@dataclass(frozen=True)
class GenerationRequest:
    """What to make, complete: nothing in it means "default".

    Attributes:
        prompt: What to show.
        negative_prompt: What to steer away from; empty for nothing.
        shape: What the model makes: the card's size and rate, and all frames that are new.
        delivery: What the file will be. Its frames are the first of ``shape``'s, for an extension after those of the
            source; its size is reached by scaling to cover and cropping the overhang; the frame rate is the same.
        seed: Decides the noise. The same request with the same seed gives the same frames.
        num_inference_steps: Denoising steps; if the clip is made in two stages, those at half its size.
        guidance_scale: Strength of classifier-free guidance; 1 or less turns it off.
        conditions: Pictures that fix frames.
        source: The clip that this one edits or extends. An extension's ``delivery`` counts the source's frames too.
        references: Files of subjects that the clip shows, at whatever frame and place: pictures, or clips for models
            that look at those.
        windows: The pieces in which the new frames are made, one after the other; empty for all in one go.
        guidance_scale_2: Guidance of the expert for low noise; the same as ``guidance_scale`` where there is but one.
        flow_shift: How far noise levels are shifted upwards; 1 where the model's own schedule decides.
        step_cache: Share of change below which a step takes the last one's results; 0 computes every step.
        sound: Whether the clip gets the sound that the model makes.
        loras: What changes the model for this clip.
        refine_steps: Steps at the clip's size that follow those at half of it; 0 makes the clip at its size at once.
        parts: What the clip is joined from, in order. No model makes such a clip: all that else says how one would
            is that of the last part.
    """

    prompt: str
    negative_prompt: str
    shape: VideoShape
    delivery: VideoShape
    seed: int
    num_inference_steps: int
    guidance_scale: float
    conditions: tuple[ImageCondition, ...] = ()
    source: SourceClip | None = None
    references: tuple[Path, ...] = ()
    windows: tuple[Window, ...] = ()
    guidance_scale_2: float = 1.0
    flow_shift: float = 1.0
    step_cache: float = 0.0
    sound: bool = False
    loras: tuple[Lora, ...] = ()
    parts: tuple[Part, ...] = ()
    refine_steps: int = 0

    @property
    def steps(self) -> int:
        """Denoising steps of one window, of both stages if there are two."""
        return self.num_inference_steps + self.refine_steps

    @property
    def whole_steps(self) -> int:
        """What they cost, in steps at the clip's size: at half of it, a step has a quarter of the tokens."""
        return self.refine_steps + -(-self.num_inference_steps // 4) if self.refine_steps else self.num_inference_steps

    @property
    def pieces(self) -> tuple[Window, ...]:
        """The windows, at least one."""
        return self.windows or (Window(self.shape.frames),)

    @property
    def filmed(self) -> int:
        """How many of the references are clips."""
        return sum(map(is_clip, self.references))

    @property
    def kept_frames(self) -> int:
        """Frames of the source that the result begins with: all of them if it is an extension, else none."""
        extends = self.source is not None and self.source.use == "extend"
        return self.source.frames_at(self.shape.fps) if self.source and extends else 0


def is_clip(reference: Path) -> bool:
    """Tell whether the file of a subject is a clip of it; it is a picture otherwise."""
    return reference.suffix == ".mp4"


@dataclass(frozen=True)
class Given:
    """Frames that a window is made from, each ``(f, height, width, 3)`` at the model's size.

    Attributes:
        before: The window's first frames, which are there already; None at the beginning of a clip.
        edited: What to make anew, one frame for each of the window's; None unless it is an edit.
        state: What a step's ``snapshot`` kept in an earlier attempt, to go on from; None to begin at the beginning.
    """

    before: Frames | None = None
    edited: Frames | None = None
    state: bytes | None = None


NOTHING_GIVEN = Given()


class Stage(StrEnum):
    """The parts of making a clip, in order."""

    LOAD = "load"
    ENCODE = "encode"
    DENOISE = "denoise"
    DECODE = "decode"
    MUX = "mux"


class Progress(NamedTuple):
    """``step`` of ``total`` steps of a stage are done; step 0 says that the stage has begun."""

    stage: Stage
    step: int
    total: int


Report: TypeAlias = Callable[[Progress], None]
"""Called after every step. Raising ``Cancelled`` from it stops the clip there and then."""


Sketch: TypeAlias = Callable[[], Frames | None]
"""Paints the clip as it is so far, small and rough; None if there is nothing to see. Any thread may call it, later."""


Snapshot: TypeAlias = Callable[[], Callable[[], bytes]]
"""Copies what a loop would go on from; what it returns makes bytes of the copy, in whichever thread."""


class Step(NamedTuple):
    """``number`` of ``total`` steps of denoising are done, how to look at what they made, and how to keep it.

    ``snapshot`` is None for a family that cannot go on in the middle.
    """

    number: int
    total: int
    sketch: Sketch
    snapshot: Snapshot | None = None


OnStep: TypeAlias = Callable[[Step], None]
"""Called after every step of denoising. Raising ``Cancelled`` from it stops the clip there and then."""

Show: TypeAlias = Callable[[Sketch], None]
"""Takes a sketch whenever there is a newer one; returns at once."""


@dataclass(frozen=True)
class Audio:
    """Sound of a clip: float32 in [-1, 1], ``(channels, samples)``, and samples per second."""

    samples: npt.NDArray[np.float32]
    rate: int


@dataclass(frozen=True)
class Clip:
    """A finished clip. ``chunks`` yields its frames in order and can be read once.

    Attributes:
        shape: What was made; frames of a source that it extends do not count.
        chunks: Arrays ``(f, height, width, 3)``, f adding up to ``shape.frames``.
        audio: Sound, or None for a silent clip.
        facts: What the family wants recorded beside the request: library versions, dtype, device.
    """

    shape: VideoShape
    chunks: Iterator[Frames]
    audio: Audio | None = None
    facts: Mapping[str, str] = field(default_factory=dict[str, str])
