"""From a request's parameters to accepted jobs: validate, check what comes along, commit the rows."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, BinaryIO

from pipelines.card import MAX_SEED, ModelCard, Resolved, Wish
from pipelines.types import LAST, ImageCondition, ImageFit, is_clip
from server import images, loras
from server.casting import CAST, CHARACTERS, cast_of, unnamed
from server.errors import InvalidRequest
from server.ids import new_id
from server.jobs import Attempt, Job, JobId, JobStatus, new_job_id
from server.parameters import Making, VideoCreate, VideoVariations
from server.policy import BLOCKED
from server.quota import Quota
from server.references import LAST_FRAME, LAST_PICTURE, PICTURE, chunks, head_of, picture_of
from server.validation import validated

if TYPE_CHECKING:
    from pathlib import Path

    from server.characters import Character
    from server.deps import Caller, Services
    from server.forms import Fields, Value

# Which frame of the video a picture fixes, by the parameter that brings it.
_FRAMES = {images.PARAM: 0, LAST_FRAME: LAST}
MEDIA = {images.PARAM: PICTURE, LAST_FRAME: LAST_PICTURE, CHARACTERS: CAST}
GROUP_PREFIX = "group_"
# Videos of one request are this far apart, so that their ids sort by it: ids know microseconds.
_APART_S = 2e-6


@dataclass(frozen=True)
class _Picture:
    """A picture of a request: the parameter that brought it, its bytes, and the suffix of its kind."""

    param: str
    file: BinaryIO
    suffix: str


@dataclass(frozen=True)
class _Shown:
    """The pictures and the characters that a request brings along, before any of it belongs to a job."""

    pictures: tuple[_Picture, ...]
    fit: ImageFit
    characters: tuple[Character, ...]

    def conditions(self, job_id: JobId, services: Services) -> tuple[ImageCondition, ...]:
        """Return the pictures as the job will find them."""
        # What matches the video exactly may still have to be scaled, if the model makes another size.
        fit = "cover" if self.fit == "exact" else self.fit
        return tuple(
            ImageCondition(services.assets.input_path(job_id, f"{p.param}{p.suffix}"), _FRAMES[p.param], fit)
            for p in self.pictures
        )

    def check_size(self, size: tuple[int, int], job: Job, param: str) -> None:
        """Refuse a picture that is to match the video and does not.

        Raises:
            InvalidRequest: It does not.
        """
        delivery = job.request.delivery
        if self.fit == "exact" and size != (delivery.width, delivery.height):
            message = "Inpaint image must match the requested width and height"
            it_is = f"it is {size[0]}x{size[1]}, the video {delivery.size}"
            message = f"{message}: {it_is}. Or choose another reference_fit."
            raise InvalidRequest(message, param=param, code="image_size_mismatch")

    def cast(self, services: Services) -> Mapping[str, Path]:
        """Return the characters' pictures and clips by the names that they have in a job's folder."""
        found: dict[str, Path] = {}
        for number, character in enumerate(self.characters, start=1):
            picture, clip = services.characters.picture(character), services.characters.clip(character)
            found[f"character_{number}{picture.suffix}"] = picture
            if clip is not None:
                found[f"character_{number}{clip.suffix}"] = clip
        return found

    def references(self, job_id: JobId, services: Services) -> tuple[tuple[Path, ...], Mapping[Path, Path]]:
        """Return the characters' pictures as the job will find them, and by these the clips of who was filmed."""
        paths = [services.assets.input_path(job_id, name) for name in self.cast(services)]
        clips = {path.stem: path for path in paths if is_clip(path)}
        pictures = tuple(path for path in paths if not is_clip(path))
        return pictures, {path: clips[path.stem] for path in pictures if path.stem in clips}


@dataclass(frozen=True)
class _Choice:
    """One video of a request: who makes it, and from which seed; None draws one."""

    model: str
    seed: int | None


def create_job(
    fields: Fields, caller: Caller, services: Services, *, attempt: Attempt | None = None, group: str | None = None
) -> Job:
    """Accept a video. When this returns, the job survives a crash; when it raises, nothing has been stored.

    Args:
        fields: The request's parameters; taken apart.
        caller: Whose it will be.
        services: Where it goes.
        attempt: By which a repetition is recognised; the job is then perhaps one that was made before.
        group: Id of what it belongs to.

    Raises:
        ApiError: A parameter is unknown, malformed or missing.
        PipelineError: The model is unknown or cannot make what was asked for, or the image cannot be read.
        QueueFull: As many videos are waiting as may.
    """
    brought = _taken_from(fields)
    create = validated(VideoCreate, fields, MEDIA)
    shown = _shown(brought, create.reference_fit, caller, services)
    choices = [_Choice(create.model, create.seed)]
    return _accept(create, choices, shown, _Terms(caller, services, attempt, group))[0]


def create_variations(
    fields: Fields, caller: Caller, services: Services, *, attempt: Attempt | None = None
) -> tuple[Job, ...]:
    """Accept a video for each pair of a model and a seed, all or none. Raises what ``create_job`` does."""
    brought = _taken_from(fields)
    wanted = validated(VideoVariations, fields, MEDIA)
    shown = _shown(brought, wanted.reference_fit, caller, services)
    seeds = wanted.seeds or _seeds(wanted.seed, wanted.n or 1)
    choices = [_Choice(model, seed) for model in wanted.all_models() for seed in seeds]
    group = new_id(GROUP_PREFIX, services.now())
    return _accept(wanted, choices, shown, _Terms(caller, services, attempt, group))


def resolve_only(fields: Fields, caller: Caller, services: Services) -> tuple[str, ModelCard, Resolved]:
    """Return the model that was asked for, what it means, and what would be made; nothing is stored.

    Raises what ``create_job`` does, but for the content of a picture, which is not looked at.
    """
    brought = _taken_from(fields)
    create = validated(VideoCreate, fields, MEDIA)
    shown = _shown(brought, create.reference_fit, caller, services)
    job_id = new_job_id(services.now())
    wish = _wish(create, _Choice(create.model, create.seed), shown, job_id, services)
    card, resolved = services.registry.choose(create.model, wish, services.device())
    warnings = (*resolved.warnings, *unnamed(shown.characters, create.prompt))
    return create.model, card, replace(resolved, warnings=warnings)


@dataclass(frozen=True)
class _Terms:
    """Under which jobs are accepted."""

    caller: Caller
    services: Services
    attempt: Attempt | None
    group: str | None


def _taken_from(fields: Fields) -> Mapping[str, Value]:
    """Take the pictures and the characters out of a request, so that what is left can be validated."""
    return {name: fields.pop(name, None) for name in (*_FRAMES, CHARACTERS)}


def _shown(brought: Mapping[str, Value], fit: ImageFit, caller: Caller, services: Services) -> _Shown:
    characters = cast_of(brought[CHARACTERS], caller, services)
    # Last, since they may have to be fetched from afar.
    files = {param: picture_of(brought[param], caller, services, param) for param in _FRAMES}
    pictures = [_Picture(param, file, images.suffix_of(head_of(file), param)) for param, file in files.items() if file]
    return _Shown(tuple(pictures), fit, characters)


def _seeds(first: int | None, count: int) -> list[int]:
    if first is not None:
        return list(range(first, first + count))
    seeds: set[int] = set()
    while len(seeds) < count:
        seeds.add(secrets.randbelow(MAX_SEED + 1))
    return sorted(seeds)


def _wish(asked: Making, choice: _Choice, shown: _Shown, job_id: JobId, services: Services) -> Wish:
    pictures, clips = shown.references(job_id, services)
    conditions = shown.conditions(job_id, services)
    return replace(told(asked, services), seed=choice.seed, conditions=conditions, references=pictures, clips=clips)


def told(asked: Making, services: Services) -> Wish:
    """Return what was asked for, with the LoRAs that it names and what the operator chose for who says nothing."""
    settings = services.settings
    step_cache = settings.step_cache if asked.step_cache is None else asked.step_cache
    return replace(asked.wish(), loras=loras.found(asked.lora, settings.loras_dir), step_cache=step_cache)


def _accept(asked: Making, choices: Sequence[_Choice], shown: _Shown, terms: _Terms) -> tuple[Job, ...]:
    services = terms.services
    began = services.now()
    jobs: list[Job] = []
    for number, choice in enumerate(choices):
        created_at = began + number * _APART_S
        job_id = new_job_id(created_at)
        wish = _wish(asked, choice, shown, job_id, services)
        card, resolved = services.registry.choose(choice.model, wish, services.device())
        job = draft(asked, resolved, job_id, created_at, model=choice.model, card=card)
        warnings = (*job.warnings, *unnamed(shown.characters, asked.prompt))
        jobs.append(replace(job, warnings=warnings, owner=terms.caller.owner, group=terms.group))
    return admit(jobs, lambda: _keep(shown, jobs, services), services, terms.attempt)


def _keep(shown: _Shown, jobs: Sequence[Job], services: Services) -> None:
    """Put what the jobs share into the folder of each."""
    cast = shown.cast(services)
    for job in jobs:
        for path in job.request.references:
            services.assets.link_input(job.id, path.name, cast[path.name])
    for number, picture in enumerate(shown.pictures):
        names = [job.request.conditions[number].path.name for job in jobs]
        first = services.assets.save_input(jobs[0].id, names[0], chunks(picture.file))
        with services.decoders.taken():
            size = images.check(first, services.settings.max_image_pixels, picture.param)
        for job, name in zip(jobs[1:], names[1:], strict=True):
            services.assets.link_input(job.id, name, first)
        for job in jobs:
            shown.check_size(size, job, picture.param)


def draft(asked: Making, resolved: Resolved, job_id: JobId, created_at: float, *, model: str, card: ModelCard) -> Job:
    """Return the job that a request asks for, which is nobody's yet."""
    return Job(
        id=job_id,
        model=model,
        card=card.id,
        status=JobStatus.QUEUED,
        request=resolved.request,
        created_at=created_at,
        warnings=resolved.warnings,
        priority=asked.priority or 0,
        metadata=asked.metadata or {},
    )


def admit(
    jobs: Sequence[Job], keep: Callable[[], object], services: Services, attempt: Attempt | None
) -> tuple[Job, ...]:
    """Put the jobs of one request into the queue, all or none, once ``keep`` has filled their folders.

    Returns:
        The same jobs; or those that an earlier attempt at the request has made, nothing being kept of these.
    """
    accepted: tuple[Job, ...] = ()
    digest = attempt and attempt.digest
    marked = [replace(_judged(job, services), digest=digest) for job in jobs]
    try:
        # What came along with a video that is never made is neither looked at nor kept.
        if any(job.status is JobStatus.QUEUED for job in marked):
            keep()
        settings = services.settings
        accepted = services.store.add(
            *marked, max_queued=settings.max_queued, attempt=attempt, kept=Quota("videos", settings.max_videos)
        )
    finally:
        kept = {job.id for job in accepted if job.status is not JobStatus.FAILED}
        for job in jobs:
            if job.id not in kept:
                services.assets.delete(job.id)
    return accepted


def _judged(job: Job, services: Services) -> Job:
    """Return the job as the operator's policy lets it be: failed, if that blocks it."""
    verdict = services.policy.judge(job.request, job.id)
    if verdict.blocked:
        return replace(job, status=JobStatus.FAILED, error=BLOCKED, completed_at=job.created_at)
    return replace(job, warnings=(*job.warnings, *verdict.warnings))
