"""Files that belong to jobs: finished videos by id and variant, uploads, and work in progress."""

from __future__ import annotations

import contextlib
import re
import shutil
import stat
import tempfile
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path

from server.disk import PARTIAL, sync_folder, written_whole
from server.jobs import JOB_ID, JobId

_INPUTS, _WORK = _UNFINISHED = ("inputs", "work")
PREVIEW, PREVIEW_MEDIA_TYPE = "preview.webp", "image/webp"
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Variant(StrEnum):
    """What can be downloaded of a video."""

    VIDEO = "video"
    THUMBNAIL = "thumbnail"
    SPRITESHEET = "spritesheet"

    @property
    def filename(self) -> str:
        """Name of the file on disk."""
        return {"video": "video.mp4", "thumbnail": "thumbnail.webp", "spritesheet": "spritesheet.jpg"}[self]

    @property
    def media_type(self) -> str:
        """Content type on the wire."""
        return {"video": "video/mp4", "thumbnail": "image/webp", "spritesheet": "image/jpeg"}[self]


class AssetMissing(Exception):
    """The job has no such file."""

    def __init__(self, job_id: JobId, name: str) -> None:
        super().__init__(f"{job_id} has no {name}")
        self.job_id = job_id


class AssetDamaged(Exception):
    """The job's file is not what was stored."""

    def __init__(self, job_id: JobId, name: str, size: int, stored: int) -> None:
        super().__init__(f"{name} of {job_id} has {size} bytes of {stored}")


class AssetStore:
    """One folder per job. A file is there whole or not at all, also after a loss of power."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, job_id: JobId, variant: Variant, source: Path) -> None:
        """Store a copy of ``source``; what was there under that variant is replaced."""
        folder = self._folder(job_id)
        with source.open("rb") as content, written_whole(folder / variant.filename) as target:
            shutil.copyfileobj(content, target, 1 << 20)

    def path(self, job_id: JobId, variant: Variant, stored: int | None = None) -> Path:
        """Return the finished file, of which ``stored`` bytes were stored if that is known.

        Raises:
            AssetMissing: It does not exist (yet, or any more).
            AssetDamaged: It does not have as many.
        """
        path = self._folder(job_id) / variant.filename
        if not path.is_file():
            raise AssetMissing(job_id, variant)
        if stored is not None and path.stat().st_size != stored:
            raise AssetDamaged(job_id, variant, path.stat().st_size, stored)
        return path

    def put_preview(self, job_id: JobId, picture: bytes) -> None:
        """Store how the clip looks so far, in place of what was there. It stays when the video is finished."""
        with written_whole(self._folder(job_id) / PREVIEW) as target:
            target.write(picture)

    def discard_preview(self, job_id: JobId) -> None:
        """Remove the preview of a clip that will never be finished."""
        (self._folder(job_id) / PREVIEW).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._folder(job_id).rmdir()

    def preview_path(self, job_id: JobId) -> Path:
        """Return the latest preview.

        Raises:
            AssetMissing: There is none (yet, or any more).
        """
        path = self._folder(job_id) / PREVIEW
        if not path.is_file():
            raise AssetMissing(job_id, "preview")
        return path

    def save_input(self, job_id: JobId, name: str, chunks: Iterable[bytes]) -> Path:
        """Store an upload and return its file, which lives as long as the job."""
        path = self.input_path(job_id, name)
        with written_whole(path) as target:
            for chunk in chunks:
                target.write(chunk)
        return path

    def link_input(self, job_id: JobId, name: str, source: Path) -> Path:
        """Keep a file as an input of the job too, whatever becomes of the place where it is now; return it there.

        Raises:
            AssetMissing: It has gone from where it was.
        """
        path = self.input_path(job_id, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            # Files are replaced and removed here, never changed: another name of the same file is as good as a copy.
            path.hardlink_to(source)
        except FileNotFoundError as error:
            raise AssetMissing(job_id, name) from error
        except OSError:
            with source.open("rb") as content, written_whole(path) as target:
                shutil.copyfileobj(content, target, 1 << 20)
        else:
            sync_folder(path.parent)
        return path

    def input_path(self, job_id: JobId, name: str) -> Path:
        """Return where the upload of this name is, or would be.

        Raises:
            AssetMissing: The name is not a plain file name.
        """
        if not _PLAIN_NAME.fullmatch(name):
            raise AssetMissing(job_id, name)
        return self._folder(job_id) / _INPUTS / name

    @contextmanager
    def work_dir(self, job_id: JobId) -> Generator[Path]:
        """Lend an empty folder for one attempt at the job, on the same disk; no two attempts share one."""
        parent = self._folder(job_id) / _WORK
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=parent, ignore_cleanup_errors=True) as folder:
            yield Path(folder)

    def checkpoints(self, job_id: JobId) -> Path:
        """Return the folder, perhaps not there yet, in which an attempt leaves what the next goes on from."""
        return self._folder(job_id) / _WORK / "checkpoints"

    def discard_work(self, job_id: JobId) -> None:
        """Remove what attempts at the job have left behind, also those that died."""
        folder = self._folder(job_id)
        shutil.rmtree(folder / _WORK, ignore_errors=True)
        for partial in folder.glob(PARTIAL):
            partial.unlink(missing_ok=True)

    def unfinished(self, before: float) -> tuple[JobId, ...]:
        """Return the jobs with uploads or work in progress, none of it touched since the Unix time ``before``."""
        folders = [folder for folder in self._root.glob("*") if JOB_ID.fullmatch(folder.name)]
        return tuple(JobId(folder.name) for folder in folders if 0 < _touched_at(folder) < before)

    def discard_unfinished(self, job_id: JobId) -> None:
        """Remove the job's uploads and work in progress; finished files stay."""
        for name in _UNFINISHED:
            shutil.rmtree(self._folder(job_id) / name, ignore_errors=True)
        with contextlib.suppress(OSError):
            self._folder(job_id).rmdir()

    def sizes(self) -> dict[JobId, int]:
        """Return how many bytes the files of every job take. A file that several jobs share is divided among them."""
        folders = [folder for folder in self._root.glob("*") if JOB_ID.fullmatch(folder.name)]
        return {JobId(folder.name): _size(folder) for folder in folders}

    def delete(self, job_id: JobId) -> None:
        """Remove all files of the job; none being there is fine."""
        shutil.rmtree(self._folder(job_id), ignore_errors=True)

    def _folder(self, job_id: JobId) -> Path:
        # Ids come from URLs: one that is not a plain name must not lead out of the root.
        if not _PLAIN_NAME.fullmatch(job_id):
            raise AssetMissing(job_id, "folder")
        return self._root / job_id


def _size(folder: Path) -> int:
    size = 0
    for path in folder.rglob("*"):
        # Whoever they belong to may be removing them just now.
        with contextlib.suppress(FileNotFoundError):
            facts = path.lstat()
            if stat.S_ISREG(facts.st_mode):
                size += facts.st_size // facts.st_nlink
    return size


def _touched_at(folder: Path) -> float:
    """Return when uploads or work in a job's folder were last changed, or 0 if there are none."""
    paths = [path for name in _UNFINISHED for path in (folder / name, *(folder / name).rglob("*"))]
    times = [0.0]
    for path in paths:
        # Whoever they belong to may be removing them just now.
        with contextlib.suppress(FileNotFoundError):
            times.append(path.stat().st_mtime)
    return max(times)
