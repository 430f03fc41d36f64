"""The page of a server that wants a key."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from server.keys import KeyStore
from server.settings import Settings
from server.store import JobStore
from tests.acceptance.serving import serving
from tests.browser.conftest import OpenPage
from tests.browser.test_studio import plays


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keyed")


@pytest.fixture(scope="module")
def studio(data_dir: Path) -> Iterator[str]:
    """Serve with a model that takes no time."""
    with serving(data_dir) as url:
        yield url.removesuffix("/v1")


@pytest.fixture
def key(data_dir: Path, studio: str) -> str:
    store = JobStore.open(Settings(data_dir=data_dir).database_url)
    secret = KeyStore(store.engine).create("ann").secret
    store.close()
    return secret


def test_who_has_the_key_sees_everything_play(open_page: OpenPage, key: str) -> None:
    page = open_page(refused=("/v1/models", "/v1/queue", "/v1/videos", "/v1/events", "/estimate"))
    dialog = page.get_by_role("dialog", name="Key")
    dialog.get_by_label("Key").fill("sk-homereel-wrong")
    dialog.get_by_role("button", name="Open").click()
    expect(dialog.get_by_role("alert")).to_contain_text("Incorrect API key")
    dialog.get_by_label("Key").fill(key)
    dialog.get_by_role("button", name="Open").click()
    expect(dialog).to_have_count(0)

    page.get_by_label("Prompt", exact=True).fill("a red ball")
    page.get_by_role("button", name="Generate").click()
    video = page.get_by_label("Stage").locator("video")
    plays(video)
    # Nothing but this page's own script can send the key: what plays has been fetched by it.
    assert str(video.get_attribute("src")).startswith("blob:")
    assert page.evaluate("document.cookie") == ""
    page.reload()
    plays(page.get_by_label("Stage").locator("video"))
    page.goto(f"{page.url.partition('#')[0]}#/gallery")
    clip = page.get_by_role("listitem")
    clip.hover()
    plays(clip.locator("video"))
