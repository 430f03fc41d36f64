"""The one loop over the stages, the same for every family.

A clip that is longer than the model makes in one go is made in windows: each goes on from the last frames of what is
there, be that a window before it or the source of an extension.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np

from pipelines import footage, seam
from pipelines.base import VideoPipeline
from pipelines.checkpoint import Checkpoints, NoCheckpoints
from pipelines.errors import BadOutput
from pipelines.types import (
    Clip,
    Frames,
    GenerationRequest,
    Given,
    Progress,
    Report,
    Show,
    Sketch,
    Stage,
    Step,
    Window,
)

# A clip whose brightest and darkest values are this close, out of 255, shows nothing.
FLAT = 3


def unseen(sketch: Sketch) -> None:
    """Show sketches to nobody."""
    del sketch


def generate(
    pipeline: VideoPipeline[Any, Any],
    request: GenerationRequest,
    report: Report,
    show: Show = unseen,
    checkpoints: Checkpoints | None = None,
) -> Clip:
    """Make a clip.

    Encoding, and denoising of the first window, are done when this returns; the rest happens while the clip's chunks
    are read. An extension's chunks are its new frames alone; ``media.write_clip`` puts the source in front.

    Args:
        pipeline: A loaded model.
        request: What to make; its shape is valid for the model's card.
        report: Called at the start of every stage with step 0 and after each of its steps; steps of denoising and
            decoding count over all windows. Whatever it raises ends the clip at once and leaves the pipeline usable.
        show: Given a sketch of the window that is being made after each of its steps.
        checkpoints: Where the clip goes on if it was begun before, and what is needed for that is kept.

    Raises:
        PipelineError: The clip cannot be made.
    """
    checkpoints = checkpoints or NoCheckpoints()
    checkpoints.begin(request, pipeline.facts)
    reporter = _Reporter(report)
    with reporter.asked_within(pipeline):
        reporter(Progress(Stage.ENCODE, 0, 1))
        run = _Run(pipeline, request, pipeline.encode(request), _Watchers(reporter, show, checkpoints))
        given = Given(_before(request), _edited(request, 0))
        reporter(Progress(Stage.ENCODE, 1, 1))
        latents = run.denoise(0, given)
        audio = None
        if request.sound:
            # It is decoded at once, frames as they are read.
            reporter(Progress(Stage.DECODE, 0, request.shape.frames))
            audio = pipeline.audio(request, latents)
    chunks = _checked(run.frames(latents, given), request, reporter)
    return Clip(request.shape, reporter.through(pipeline, chunks), audio, pipeline.facts)


class _Reporter:
    """Passes progress on, and says it again inside stages of few steps, so that whoever hears it can stop the clip."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._said = Progress(Stage.ENCODE, 0, 1)

    def __call__(self, progress: Progress) -> None:
        self._said = progress
        self._report(progress)

    @contextmanager
    def asked_within(self, pipeline: VideoPipeline[Any, Any]) -> Generator[None]:
        """Let the pipeline's parts ask whether to go on."""
        pipeline.heed(self._again)
        try:
            yield
        finally:
            pipeline.heed(None)

    def through(self, pipeline: VideoPipeline[Any, Any], chunks: Iterator[Frames]) -> Iterator[Frames]:
        """Yield chunks, the making of which can be stopped."""
        with self.asked_within(pipeline):
            yield from chunks

    def _again(self) -> None:
        # A step of denoising stands for a state that can be kept: said twice, it would seem to be the next one.
        if self._said.stage is not Stage.DENOISE:
            self._report(self._said)


class _Watchers(NamedTuple):
    """Who is told of every step."""

    report: Report
    show: Show
    checkpoints: Checkpoints


class _Run(NamedTuple):
    """One clip on its way through its windows."""

    pipeline: VideoPipeline[Any, Any]
    request: GenerationRequest
    conditioning: Any
    watchers: _Watchers

    def denoise(self, index: int, given: Given) -> Any:
        """Return the latents of a window."""
        per_window = self.request.steps
        total = per_window * len(self.request.pieces)
        report, show, checkpoints = self.watchers

        def on_step(step: Step) -> None:
            show(step.sketch)
            checkpoints.offer(index, step)
            report(Progress(Stage.DENOISE, index * per_window + step.number, total))

        if index == 0:
            report(Progress(Stage.DENOISE, 0, total))
        kept = checkpoints.kept(index)
        if kept.latents is not None:
            report(Progress(Stage.DENOISE, (index + 1) * per_window, total))
            return self.pipeline.thaw(kept.latents)
        window = piece(self.request, index)
        latents = self.pipeline.denoise(window, self.conditioning, replace(given, state=kept.state), on_step)
        checkpoints.finish(index, self.pipeline.freeze(latents))
        return latents

    def frames(self, latents: Any, given: Given) -> Iterator[Frames]:
        """Yield the new frames of all windows in order, from the first one's latents."""
        windows = self.request.pieces
        for index in range(len(windows)):
            if index > 0:
                latents = self.denoise(index, given)
            follows = windows[index + 1].overlap if index + 1 < len(windows) else 0
            last = [] if given.before is None else [given.before]
            made = self.pipeline.decode(piece(self.request, index), latents)
            for chunk in seam.continued(made, given.before):
                last = _last(follows, [*last, chunk])
                yield chunk
            given = Given(np.concatenate(last) if follows else None, _edited(self.request, index + 1))


def piece(request: GenerationRequest, index: int) -> GenerationRequest:
    """Return what the model is asked for in one window: its frames, its share of the pictures, noise of its own."""
    window, start = request.pieces[index], _start(request.pieces, index)
    seed = request.seed
    if index > 0:
        seed = int.from_bytes(blake2b(f"{seed}/{index}".encode(), digest_size=4).digest())
    conditions = tuple(
        replace(condition, frame=condition.frame - start)
        for condition in request.conditions
        if start + window.overlap <= condition.frame < start + window.frames
    )
    shape = request.shape._replace(frames=window.frames)
    return replace(request, shape=shape, seed=seed, conditions=conditions, windows=(window,))


def _start(windows: tuple[Window, ...], index: int) -> int:
    """Return the index of a window's first frame, counted from the first new frame of the clip."""
    return sum(window.new for window in windows[:index]) - windows[index].overlap


def _before(request: GenerationRequest) -> Frames | None:
    """Return the frames of its source that an extension goes on from."""
    if request.source is None or not request.kept_frames:
        return None
    overlap = request.pieces[0].overlap
    return footage.read(request.source, request.shape._replace(frames=overlap), start=request.kept_frames - overlap)


def _edited(request: GenerationRequest, index: int) -> Frames | None:
    """Return the frames of its source that a window of an edit makes anew."""
    if request.source is None or request.source.use != "edit" or index >= len(request.pieces):
        return None
    shape = request.shape._replace(frames=request.pieces[index].frames)
    return footage.read(request.source, shape, start=_start(request.pieces, index))


def _last(count: int, chunks: list[Frames]) -> list[Frames]:
    """Return the last ``count`` frames of chunks that follow each other, as one chunk; no chunk for none."""
    return [np.concatenate(chunks)[-count:]] if count else []


def _checked(chunks: Iterator[Frames], request: GenerationRequest, report: Report) -> Iterator[Frames]:
    """Pass chunks on, with progress in frames; refuse a clip that shows nothing."""
    total, done = request.shape.frames, 0
    darkest, brightest = 255, 0
    report(Progress(Stage.DECODE, 0, total))
    for chunk in chunks:
        darkest, brightest = min(darkest, int(chunk.min())), max(brightest, int(chunk.max()))
        done += len(chunk)
        if done == total and brightest - darkest <= FLAT:
            raise BadOutput(
                f"The model produced {total} flat frames (values {darkest} to {brightest}). Usual causes: "
                "half precision overflowing in this model, or an attention kernel that does not fit the card."
            )
        report(Progress(Stage.DECODE, done, total))
        yield chunk
    if done != total:
        raise BadOutput(f"The model produced {done} frames instead of {total}.")
