"""Files are there whole or not at all, and nowhere but in their job's folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.assets import AssetMissing, AssetStore, Variant
from server.jobs import JobId

ONE, TWO = JobId("video_1"), JobId("video_2")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "clip"
    path.write_bytes(b"first take")
    return path


def everything(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("variant", list(Variant))
def test_what_was_put_is_found(assets: AssetStore, source: Path, variant: Variant) -> None:
    assets.put(ONE, variant, source)
    assert assets.path(ONE, variant).read_bytes() == b"first take"
    assert assets.path(ONE, variant).name == variant.filename
    assert source.exists()


def test_a_second_take_replaces_the_first(assets: AssetStore, source: Path) -> None:
    assets.put(ONE, Variant.VIDEO, source)
    source.write_bytes(b"second")
    assets.put(ONE, Variant.VIDEO, source)
    path = assets.path(ONE, Variant.VIDEO)
    assert path.read_bytes() == b"second"
    assert everything(path.parent) == {"video.mp4"}


def test_what_was_not_put_is_missing(assets: AssetStore, source: Path) -> None:
    assets.put(ONE, Variant.VIDEO, source)
    for job_id, variant in [(ONE, Variant.THUMBNAIL), (TWO, Variant.VIDEO)]:
        with pytest.raises(AssetMissing):
            assets.path(job_id, variant)


def test_an_upload_that_breaks_off_leaves_nothing(assets: AssetStore, tmp_path: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield b"half"
        raise ConnectionError

    with pytest.raises(ConnectionError):
        assets.save_input(ONE, "first.png", broken())
    assert everything(tmp_path) == set()


def test_uploads_are_kept_by_name(assets: AssetStore) -> None:
    saved = assets.save_input(ONE, "first.png", [b"ab", b"c"])
    assert saved == assets.input_path(ONE, "first.png")
    assert saved.read_bytes() == b"abc"


@pytest.mark.parametrize("name", ["", ".", "..", "../other", "a/b", "/etc/passwd", ".hidden", "a\0b", "a\n"])
def test_names_do_not_lead_out(assets: AssetStore, name: str) -> None:
    with pytest.raises(AssetMissing):
        assets.input_path(ONE, name)
    with pytest.raises(AssetMissing):
        assets.delete(JobId(name))


def test_attempts_do_not_share_a_folder(assets: AssetStore) -> None:
    with assets.work_dir(ONE) as mine:
        (mine / "video.mp4").write_bytes(b"mine")
        with assets.work_dir(ONE) as other:
            assert other != mine
        assert (mine / "video.mp4").exists()
    assert not mine.exists()


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_discarding_removes_what_a_dead_attempt_left(
    assets: AssetStore, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = assets.work_dir(ONE)
    folder = attempt.__enter__()
    (folder / "half.mp4").write_bytes(b"half")
    assets.put(ONE, Variant.VIDEO, source)
    # What a process that is killed while it writes leaves behind.
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", interrupted)
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        with pytest.raises(KeyboardInterrupt):
            assets.put(ONE, Variant.THUMBNAIL, source)
    assert len(everything(assets.path(ONE, Variant.VIDEO).parent)) > 1
    assets.discard_work(ONE)
    assert everything(assets.path(ONE, Variant.VIDEO).parent) == {"video.mp4"}
    attempt.__exit__(None, None, None)


def test_deleting_removes_all_of_one_job(assets: AssetStore, source: Path) -> None:
    for job_id in (ONE, TWO):
        assets.put(job_id, Variant.VIDEO, source)
    assets.save_input(ONE, "first.png", [b"x"])
    folder = assets.path(ONE, Variant.VIDEO).parent
    assets.delete(ONE)
    assets.delete(ONE)
    assert not folder.exists()
    assert assets.path(TWO, Variant.VIDEO).exists()
