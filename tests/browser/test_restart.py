"""A server that goes and comes back while somebody has its page open."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import OpenPage, serving_studio
from tests.browser.test_studio import plays, write

# What the page asks for all the time; browsers note by themselves that nobody answers.
ASKED = ("/events", "/queue", "/videos", "/estimate", "/models", "/content", "/ready", "/health", "/metrics")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("restarted")


@pytest.fixture(scope="module")
def first_life() -> Iterator[ExitStack]:
    """What is closed when the server shall go."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture(scope="module")
def studio(data_dir: Path, first_life: ExitStack) -> str:
    return first_life.enter_context(serving_studio(data_dir))


def test_the_page_waits_for_the_server_and_goes_on_where_it_was(
    open_page: OpenPage, studio: str, data_dir: Path, first_life: ExitStack
) -> None:
    page = open_page(refused=ASKED)
    write(page, "a red ball over dark sand", steps=60, seconds=4)
    page.get_by_role("button", name="Generate").click()
    stage = page.get_by_label("Stage")
    expect(stage).to_contain_text(re.compile(r"step [1-9]\d* of \d+"))
    page.evaluate("window.isTheSamePage = true")

    first_life.close()
    expect(page.locator(".offline")).to_contain_text("The server does not answer")
    page.get_by_label("Prompt", exact=True).fill("a sentence that took long to find")

    with serving_studio(data_dir, port=urlsplit(studio).port or 0):
        expect(page.locator(".offline")).to_have_count(0)
        plays(stage.locator("video"))
        expect(page).to_have_title("Homereel")
        expect(page.get_by_label("Prompt", exact=True)).to_have_value("a sentence that took long to find")
        assert page.evaluate("window.isTheSamePage")
        # Before the server goes: what a page says when it stands alone has been seen above.
        page.close()
