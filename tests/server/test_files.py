from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from server.batch_types import new_batch
from server.batches import BatchStore
from server.files import STRAY_S, FileId, FileNotFound, FilesFull, FileStore, StoredFile, new_file, plain_name
from server.jobs import Owner
from server.settings import Settings
from server.store import JobStore
from tests.conftest import Clock

ANN, BOB = Owner("ann"), Owner("bob")
ROOM = 1000


@pytest.fixture
def files(store: JobStore, settings: Settings, clock: Clock) -> FileStore:
    return FileStore(store.engine, settings.files_dir, clock)


@pytest.fixture
def add(files: FileStore, clock: Clock) -> Callable[..., StoredFile]:
    def add(content: bytes = b"abc", purpose: str = "vision", **changes: object) -> StoredFile:
        owner = Owner(str(changes.pop("owner", ANN)))
        clock.advance(1)
        new = new_file(owner, purpose, "a.png", clock(), size=len(content), **changes)  # pyright: ignore[reportArgumentType]
        return files.add(new, [content[:1], content[1:]], max_total_bytes=ROOM)

    return add


def test_a_file_is_what_was_put_in(files: FileStore, add: Callable[..., StoredFile], clock: Clock) -> None:
    file = add(b"content")
    assert files.get(file.id, ANN) == file
    assert (file.bytes, file.purpose, file.filename, file.created_at) == (7, "vision", "a.png", clock())
    assert files.content(file.id, ANN).read_bytes() == b"content"


def test_the_size_is_that_of_the_content_whatever_was_believed(files: FileStore, clock: Clock) -> None:
    new = new_file(ANN, "vision", "a.png", clock(), size=1)
    assert files.add(new, [b"four"], max_total_bytes=ROOM).bytes == 4
    assert files.get(new.id).bytes == 4


def test_somebody_elses_file_does_not_exist(files: FileStore, add: Callable[..., StoredFile]) -> None:
    file = add()
    for look in (files.get, files.content, files.delete):
        with pytest.raises(FileNotFound):
            look(file.id, BOB)
    assert files.list(after=None, limit=9, newest_first=True, owner=BOB).files == ()
    assert files.get(file.id, ANN)


@pytest.mark.parametrize("file_id", ["", "file-1", "../../etc/passwd", "file-" + "0" * 48, "file-\0" + "0" * 47])
def test_what_is_not_there_is_not_found(files: FileStore, file_id: str) -> None:
    for look in (files.get, files.content, files.delete):
        with pytest.raises(FileNotFound):
            look(FileId(file_id))


@pytest.mark.parametrize("newest_first", [True, False])
def test_lists_go_on_where_they_ended_also_while_files_are_deleted(
    files: FileStore, add: Callable[..., StoredFile], *, newest_first: bool
) -> None:
    made = [add().id for _ in range(5)]
    add(purpose="batch")
    seen: list[FileId] = []
    after = None
    has_more = True
    while has_more:
        page = files.list(after=after, limit=2, newest_first=newest_first, owner=ANN, purpose="vision")
        seen += [file.id for file in page.files]
        after, has_more = seen[-1], page.has_more
        files.delete(after, ANN)
    assert seen == (made[::-1] if newest_first else made)


def test_all_files_together_take_no_more_than_they_may(files: FileStore, add: Callable[..., StoredFile]) -> None:
    first = add(b"x" * 600, owner=BOB)
    with pytest.raises(FilesFull) as full:
        add(b"x" * 401)
    assert (full.value.max_bytes, full.value.used_bytes) == (ROOM, 600)
    add(b"x" * 400)
    files.delete(first.id)
    add(b"x" * 600)


def test_nothing_is_left_of_a_file_that_was_refused(files: FileStore, settings: Settings, clock: Clock) -> None:
    new = new_file(ANN, "vision", "a.png", clock(), size=0)
    with pytest.raises(FilesFull):
        files.add(new, [b"x" * 2000], max_total_bytes=ROOM)
    assert list(settings.files_dir.iterdir()) == []


def test_an_upload_that_breaks_off_leaves_nothing(files: FileStore, settings: Settings, clock: Clock) -> None:
    def breaks_off() -> Iterator[bytes]:
        yield b"half"
        raise ConnectionError

    new = new_file(ANN, "vision", "a.png", clock())
    with pytest.raises(ConnectionError):
        files.add(new, breaks_off(), max_total_bytes=ROOM)
    assert list(settings.files_dir.iterdir()) == []
    with pytest.raises(FileNotFound):
        files.get(new.id)


def test_content_without_a_row_is_swept_up_once_no_upload_can_be_at_it(
    files: FileStore, settings: Settings, add: Callable[..., StoredFile], clock: Clock
) -> None:
    """A crash between the content and its row."""
    kept = add()
    with files.writing(new_file(ANN, "vision", "a.png", clock())) as target:
        target.write(b"lost")
    # A crash while the content was being written.
    (settings.files_dir / f".{kept.id}.x1y2z3").write_bytes(b"half")
    now = clock()
    for path in settings.files_dir.iterdir():
        os.utime(path, (now, now))
    assert files.sweep() == 0
    clock.advance(STRAY_S + 1)
    assert files.sweep() == 2
    assert [path.name for path in settings.files_dir.iterdir()] == [kept.id]


def test_a_file_goes_when_its_time_is_over(files: FileStore, add: Callable[..., StoredFile], clock: Clock) -> None:
    stays, goes = add(), add(lifetime_s=3600)
    assert goes.expires_at == goes.created_at + 3600
    path = files.content(goes.id)
    clock.advance(3601)
    with pytest.raises(FileNotFound):
        files.get(goes.id, ANN)
    assert files.list(after=None, limit=9, newest_first=True, owner=ANN).files == (stays,)
    assert files.sweep() == 1
    assert not path.exists()
    assert files.content(stays.id)


def test_the_content_of_a_deleted_file_stays_until_no_batch_reads_it(
    files: FileStore, add: Callable[..., StoredFile], store: JobStore, clock: Clock
) -> None:
    batches = BatchStore(store.engine, clock)
    file = add(purpose="batch")
    batch = new_batch(ANN, file.id, clock())
    batches.add(batch)
    path = files.content(file.id)
    files.delete(file.id, ANN)
    with pytest.raises(FileNotFound):
        files.get(file.id, ANN)
    assert path.exists()
    assert files.sweep() == 0
    assert batches.reject(batch, [])
    assert files.sweep() == 1
    assert not path.exists()


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("clip.mp4", "clip.mp4"),
        ("../../etc/passwd", "passwd"),
        ("C:\\temp\\a b.png", "a b.png"),
        ('a"\r\nset-cookie: x', 'a"set-cookie: x'),
        ("bild ü.png", "bild ü.png"),
        ("a\0\ud800b", "ab"),
        ("", "upload"),
        ("..", "upload"),
        ("ü" * 200, "ü" * 127),
    ],
)
def test_names_are_safe_to_show(given: str, shown: str) -> None:
    assert plain_name(given) == shown


def test_folders_of_files_are_made_when_needed(store: JobStore, tmp_path: Path, clock: Clock) -> None:
    files = FileStore(store.engine, tmp_path / "not" / "yet", clock)
    assert files.sweep() == 0
    assert files.content(files.add(new_file(ANN, "vision", "a", clock()), [b"x"], max_total_bytes=9).id).exists()
