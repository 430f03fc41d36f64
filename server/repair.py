"""Finished videos whose records are lost: what they were made of is in their files, so that it can be written again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import Field, JsonValue, ValidationError
from sqlalchemy.exc import IntegrityError

from pipelines import media
from pipelines.errors import BadOutput
from pipelines.types import GenerationRequest, VideoShape
from server.assets import AssetMissing, AssetStore, Variant
from server.jobs import Job, JobId, JobResult, JobStatus
from server.made import Made
from server.store import JobNotFound, JobStore

_UNLIMITED = 2**31


class _Made(Made):
    """With what a record needs."""

    native_size: Annotated[str, Field(pattern=r"^\d+x\d+$")]
    native_frames: int


@dataclass(frozen=True)
class Outcome:
    """What became of a folder of files without a record; ``reason`` says why nothing did."""

    job_id: JobId
    reason: str | None = None


def index_again(store: JobStore, assets: AssetStore) -> Iterator[Outcome]:
    """Write a record for every finished video that has none, and make the pictures beside it that are not there.

    Records that are there are left alone. What files do not say is lost: whose the video was, its metadata, its group,
    and the pictures and clips that it was made from.
    """
    for job_id in sorted(assets.sizes()):
        try:
            store.get(job_id)
        except JobNotFound:
            try:
                video = assets.path(job_id, Variant.VIDEO)
            except AssetMissing:
                # A video that was never finished: nobody knows what was asked for.
                yield Outcome(job_id, "there is no finished video")
                continue
            try:
                facts = media.probe(video)
                job = _job_of(job_id, facts.shape, facts.provenance, video.stat().st_mtime)
            except (BadOutput, ValueError) as error:
                yield Outcome(job_id, str(error).splitlines()[0])
                continue
            try:
                store.add(_with_pictures(job, assets), max_queued=_UNLIMITED)
            except IntegrityError:
                yield Outcome(job_id, "it has been deleted")
            else:
                yield Outcome(job_id)


def _job_of(job_id: JobId, shape: VideoShape, provenance: Mapping[str, JsonValue] | None, finished_at: float) -> Job:
    if provenance is None:
        raise ValueError("the file does not say what it was made of")
    try:
        made = _Made.model_validate(provenance)
    except ValidationError as error:
        raise ValueError("what the file says of itself cannot be read") from error
    width, height = map(int, made.native_size.split("x"))
    request = GenerationRequest(
        prompt=made.prompt,
        negative_prompt=made.negative_prompt,
        shape=VideoShape(made.native_frames, height, width, shape.fps),
        delivery=shape,
        seed=made.seed,
        num_inference_steps=made.num_inference_steps,
        guidance_scale=made.guidance_scale,
        guidance_scale_2=1.0 if made.guidance_scale_2 is None else made.guidance_scale_2,
        flow_shift=1.0 if made.flow_shift is None else made.flow_shift,
        step_cache=made.step_cache,
        sound=made.sound,
    )
    return Job(
        id=job_id,
        model=made.model,
        card=made.model,
        status=JobStatus.COMPLETED,
        request=request,
        created_at=_created_at(job_id),
        warnings=("its record was lost and written again from its file",),
        completed_at=max(finished_at, _created_at(job_id)),
        attempts=1,
        result=JobResult({}, 0, made.facts),
    )


def _created_at(job_id: JobId) -> float:
    """Return the time that is in an id."""
    digits = job_id.removeprefix("video_")
    return int(digits[:8], 16) + int(digits[8:13], 16) / 1_000_000


def _with_pictures(job: Job, assets: AssetStore) -> Job:
    video = assets.path(job.id, Variant.VIDEO)
    for variant, paint in ((Variant.THUMBNAIL, media.thumbnail), (Variant.SPRITESHEET, media.spritesheet)):
        with assets.work_dir(job.id) as folder:
            try:
                assets.path(job.id, variant)
            except AssetMissing:
                paint(video, folder / variant.filename)
                assets.put(job.id, variant, folder / variant.filename)
    assets.discard_work(job.id)
    sizes = {variant.value: assets.path(job.id, variant).stat().st_size for variant in Variant}
    result = JobResult({}, 0, job.result.facts if job.result else {}, sizes=sizes)
    return replace(job, result=result)
