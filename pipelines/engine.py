"""The one loop over the stages, the same for every family."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pipelines.base import VideoPipeline
from pipelines.errors import BadOutput
from pipelines.types import Clip, Frames, GenerationRequest, Progress, Report, Stage

# A clip whose brightest and darkest values are this close, out of 255, shows nothing.
FLAT = 3


def generate(pipeline: VideoPipeline[Any, Any], request: GenerationRequest, report: Report) -> Clip:
    """Make a clip.

    Encoding and denoising are done when this returns; decoding happens while the clip's chunks are read.

    Args:
        pipeline: A loaded model.
        request: What to make; its shape is valid for the model's card.
        report: Called at the start of every stage with step 0 and after each of its steps. Whatever it raises ends
            the clip at once and leaves the pipeline usable.

    Raises:
        PipelineError: The clip cannot be made.
    """
    report(Progress(Stage.ENCODE, 0, 1))
    conditioning = pipeline.encode(request)
    report(Progress(Stage.ENCODE, 1, 1))
    report(Progress(Stage.DENOISE, 0, request.num_inference_steps))
    latents = pipeline.denoise(request, conditioning, report)
    del conditioning
    chunks = _decoded(pipeline.decode(request, latents), request, report)
    return Clip(request.shape, chunks, pipeline.audio(request, latents), pipeline.facts)


def _decoded(chunks: Iterator[Frames], request: GenerationRequest, report: Report) -> Iterator[Frames]:
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
