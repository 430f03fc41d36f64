"""What finished jobs took, kept for those who have to say how long the next one will take."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Engine, delete, insert, select

from pipelines.types import GenerationRequest, Stage, VideoShape
from server import database
from server.tables import timing as timings

Use = Literal["create", "edit", "extend"]


@dataclass(frozen=True)
class Timing:
    """What a job took, by what decides it.

    Attributes:
        card: Id of the model's card.
        device: Where it was made.
        use: What it did; an edit takes other steps than a new clip.
        shape: What the model made.
        steps: Denoising steps, by what they cost: as many at the size of ``shape``.
        stage_s: Seconds per stage. ``load`` is there only if the model had to be loaded.
        peak_memory_bytes: Highest memory of the device (or of the process, on a CPU).
        updated_at: Unix seconds.
    """

    card: str
    device: str
    use: Use
    shape: VideoShape
    steps: int
    stage_s: Mapping[Stage, float]
    peak_memory_bytes: int
    updated_at: float


def use_of(request: GenerationRequest) -> Use:
    """Return what kind of job a request is."""
    return request.source.use if request.source else "create"


def expected_s(timings: Sequence[Timing], request: GenerationRequest, *, loads: bool) -> Mapping[Stage, float] | None:
    """Return the seconds that each stage should take, or None if no such job has been seen.

    Args:
        timings: What is known of the card on this device, the latest first.
        request: What is to be made.
        loads: Whether the model has to be loaded first.
    """
    kind = (use_of(request), request.shape[:3], request.whole_steps)
    alike = next((t.stage_s for t in timings if (t.use, t.shape[:3], t.steps) == kind), None)
    load_s = next((t.stage_s[Stage.LOAD] for t in timings if Stage.LOAD in t.stage_s), None)
    if alike is None or (loads and load_s is None):
        return None
    stage_s = {stage: seconds for stage, seconds in alike.items() if stage is not Stage.LOAD}
    return {Stage.LOAD: load_s, **stage_s} if loads and load_s is not None else stage_s


class TimingStore:
    """The timings of all workers, one for each kind of job."""

    def __init__(self, engine: Engine, now: Callable[[], float] = time.time) -> None:
        self._reads = engine
        # Lost with the power, a timing comes back with the next job.
        self._notes = database.hasty(engine)
        self._now = now

    def learn(
        self, card: str, device: str, request: GenerationRequest, *, stage_s: Mapping[Stage, float], peak: int
    ) -> None:
        """Remember what a finished job took, in place of what the last such job took."""
        shape = request.shape
        kind: dict[str, object] = {
            "card": card, "device": device, "use": use_of(request), "frames": shape.frames,
            "height": shape.height, "width": shape.width, "steps": request.whole_steps,
        }  # fmt: skip
        same = [timings.c[name] == value for name, value in kind.items()]
        with self._notes.begin() as db:
            # A job whose model was loaded already says nothing new about loading.
            last: Mapping[Stage, float] = db.execute(select(timings.c.stage_s).where(*same)).scalar_one_or_none() or {}
            load_s = {key: value for key, value in last.items() if key == Stage.LOAD}
            measured = load_s | {stage.value: round(seconds, 3) for stage, seconds in stage_s.items()}
            db.execute(delete(timings).where(*same))
            db.execute(insert(timings).values(**kind, stage_s=measured, peak_memory_bytes=peak, updated_at=self._now()))

    def of(self, card: str, device: str | None = None) -> tuple[Timing, ...]:
        """Return what is known of a card, the latest first; of one device if it is named."""
        query = select(timings).where(timings.c.card == card)
        if device is not None:
            query = query.where(timings.c.device == device)
        with self._reads.connect() as db:
            rows = db.execute(query.order_by(timings.c.updated_at.desc())).mappings().all()
        return tuple(
            Timing(
                card=row["card"],
                device=row["device"],
                use=row["use"],
                # The rate decides nothing.
                shape=VideoShape(row["frames"], row["height"], row["width"], 1),
                steps=row["steps"],
                stage_s={Stage(stage): seconds for stage, seconds in row["stage_s"].items()},
                peak_memory_bytes=row["peak_memory_bytes"],
                updated_at=row["updated_at"],
            )
            for row in rows
        )
