"""Progress of videos on a terminal: stage, step, and how long it will still take. Silent when nobody watches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from server.jobs import JobStatus

if TYPE_CHECKING:
    from server.schemas import Video


class Bars:
    """One bar per video, on standard error."""

    def __init__(self, count: int) -> None:
        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description:<24}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[remaining]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._tasks: list[TaskID] = [self._progress.add_task("sending", total=100, remaining="") for _ in range(count)]

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._progress.stop()

    def show(self, index: int, video: Video) -> None:
        """Draw the state of one video."""
        self._progress.update(
            self._tasks[index],
            completed=video.progress,
            description=describe(video),
            remaining=f"{clock(video.eta_s)} left" if video.eta_s is not None else "",
        )


def describe(video: Video) -> str:
    """Say in a few words what happens to a video: ``waiting, 2nd in line`` or ``denoise 12/20``."""
    if video.status is JobStatus.QUEUED:
        return f"waiting, place {video.queue_position}" if video.queue_position else "waiting"
    if video.stage is not None:
        return f"{video.stage} {video.step}/{video.total_steps}" if video.total_steps else video.stage
    return video.status.replace("_", " ")


def clock(seconds: float) -> str:
    """Return minutes and seconds: ``1:05``."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
