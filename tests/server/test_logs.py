"""Log lines as text and as JSON."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from server.logs import configure_logging
from server.settings import Settings


@pytest.fixture(autouse=True)
def own_handlers() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def test_text_lines_begin_with_the_time_in_utc(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(settings)
    logging.getLogger("server.test").info("job_finished id=%s", "video_1")
    stamp, level, event = capsys.readouterr().err.strip().split(" ", 2)
    assert stamp.endswith("Z")
    assert (level, event) == ("INFO", "job_finished id=video_1")


def test_json_lines_hold_what_happened(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(settings.model_copy(update={"log_format": "json"}))
    logging.getLogger("server.test").error("job_crashed id=%s", "video_1", exc_info=ZeroDivisionError())
    entry = json.loads(capsys.readouterr().err)
    assert (entry["level"], entry["logger"], entry["event"]) == ("ERROR", "server.test", "job_crashed id=video_1")
    assert "ZeroDivisionError" in entry["exception"]


def test_the_level_is_a_setting(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(settings.model_copy(update={"log_level": "WARNING"}))
    logging.getLogger("server.test").info("unheard")
    assert capsys.readouterr().err == ""
