"""Progress of videos on a terminal: stage, step, and how long it will still take. Silent when nobody watches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from server.cli.pictures import Screen
from server.jobs import JobStatus

if TYPE_CHECKING:
    from server.cli.client import Client
    from server.schemas import Video

# How far a video has to be for a look at it to say something.
_WORTH_A_LOOK = 50


class Bars:
    """One bar per video, on standard error; above them the videos themselves, if the terminal can show pictures."""

    def __init__(self, count: int) -> None:
        console = Console(stderr=True)
        self._screen = Screen(console)
        self._looked: dict[str, bool] = {}
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

    def show(self, slot: int, video: Video, client: Client) -> None:
        """Draw the state of one video, and what can be seen of it: halfway, and when it is made."""
        self._progress.update(
            self._tasks[slot],
            completed=video.progress,
            description=describe(video),
            remaining=f"{clock(video.eta_s)} left" if video.eta_s is not None else "",
        )
        finished = video.status is JobStatus.COMPLETED
        if self._screen.shows_pictures and (finished or video.progress >= _WORTH_A_LOOK):
            self._look(video.id, client, finished=finished)

    def _look(self, video_id: str, client: Client, *, finished: bool) -> None:
        if self._looked.get(video_id) in (True, finished):
            return
        picture = client.picture(video_id, finished=finished)
        if picture is not None:
            self._looked[video_id] = finished
            self._screen.show(picture)


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
