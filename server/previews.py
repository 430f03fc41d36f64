"""Shows how a clip forms while it is made: the latest sketch becomes a small moving picture, beside the work."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Self

from pipelines import media
from pipelines.types import Sketch
from server.assets import AssetStore
from server.jobs import JobId

_log = logging.getLogger(__name__)

# At most one preview in this time, and at most this share of it spent on them.
EVERY_S = 1.0
SHARE = 0.03


class Previews:
    """The previews of one job while the block runs. Only the newest sketch counts; others are never painted."""

    def __init__(
        self,
        assets: AssetStore,
        job_id: JobId,
        fps: int,
        *,
        wanted: Callable[[], bool] = lambda: True,
        every_s: float = EVERY_S,
    ) -> None:
        """Start before the first step; ``wanted`` says whether the job is still to be made."""
        self._assets, self._job_id, self._fps = assets, job_id, fps
        self._wanted, self._every_s = wanted, every_s
        self._sketch: Sketch | None = None
        self._news = threading.Event()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=f"previews of {job_id}", daemon=True)
        self.count = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._news.set()
        self._thread.join()

    def show(self, sketch: Sketch) -> None:
        """Have this painted instead of any other that still waits."""
        self._sketch = sketch
        self._news.set()

    def _keep(self) -> None:
        pause_s = 0.0
        while not self._done.wait(pause_s):
            self._news.wait()
            self._news.clear()
            sketch, self._sketch = self._sketch, None
            if sketch is None or self._done.is_set():
                continue
            began = time.thread_time()
            try:
                self._paint(sketch)
            except Exception as error:  # noqa: BLE001 - a preview is never worth a video
                _log.warning("preview_failed id=%s error=%s", self._job_id, type(error).__name__)
                return
            pause_s = max(self._every_s, (time.thread_time() - began) / SHARE)

    def _paint(self, sketch: Sketch) -> None:
        clip = sketch()
        if clip is None:
            return
        picture = media.preview(clip, self._fps)
        # Once the job is somebody else's or nobody's, so are its files.
        if self._wanted():
            self._assets.put_preview(self._job_id, picture)
            self.count += 1
