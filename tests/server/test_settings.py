"""Settings come from the environment and from code, and reach the worker unchanged."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from server.settings import Settings, WorkerOrder, visible_gpus, worker_environment


def test_every_setting_is_described() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_the_environment_is_read_with_a_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOMEREEL_PORT", "9000")
    monkeypatch.setenv("HOMEREEL_DEVICES", "cuda:0, cuda:1")
    monkeypatch.setenv("PORT", "1")
    settings = Settings()
    assert (settings.port, settings.devices) == (9000, ("cuda:0", "cuda:1"))


def test_arguments_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOMEREEL_MAX_QUEUED", "5")
    assert Settings(max_queued=6).max_queued == 6


@pytest.mark.parametrize("change", [{"port": 65_536}, {"lease_s": 0}, {"colour": "red"}, {"devices": "gpu"}])
def test_nonsense_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Settings(**change)  # pyright: ignore[reportArgumentType]


def test_data_goes_where_the_desktop_standard_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    settings = Settings()
    assert settings.assets_dir == tmp_path / "homereel" / "assets"
    assert settings.database_url == f"sqlite:///{tmp_path}/homereel/homereel.sqlite3"


def test_a_worker_gets_the_settings_of_its_supervisor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    order = WorkerOrder(worker="cpu-1", device="cpu", settings=Settings(data_dir=tmp_path, threads=2))
    line = order.model_dump_json()
    monkeypatch.setenv("HOMEREEL_DATA_DIR", "/elsewhere")
    monkeypatch.setenv("HOMEREEL_PRELOAD", "sora-2")
    assert WorkerOrder.model_validate_json(line) == order


def test_the_workers_environment_holds_openmp_back(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    monkeypatch.setenv("SOMETHING_ELSE", "kept")
    environment = worker_environment(settings.model_copy(update={"threads": 3}))
    assert environment["OMP_WAIT_POLICY"] == "PASSIVE"
    assert environment["OMP_NUM_THREADS"] == "3"
    assert environment["SOMETHING_ELSE"] == "kept"


@pytest.mark.parametrize(
    ("variable", "visible"),
    [
        (None, None),
        ("0", ("0",)),
        ("0, 2", ("0", "2")),
        ("", ()),
        ("-1", ()),
        ("1,-1,2", ("1",)),
        ("GPU-8932f937", ("GPU-8932f937",)),
    ],
)
def test_visible_gpus(monkeypatch: pytest.MonkeyPatch, variable: str | None, visible: tuple[str, ...] | None) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if variable is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    assert visible_gpus() == visible
