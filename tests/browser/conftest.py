"""A real server with the model that ships, and a real browser that tells of everything that goes wrong in it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, expect, sync_playwright

from scripts.check_page import tools
from tests.hub_server import Hub, serving
from tests.server.cli.test_pull import REPO, checkpoint

# Playwright's own builds of Chromium play no H.264; a distribution's does.
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# Machines may be slow or busy; nothing here is a measurement.
PATIENCE_MS = 180_000
PHONE, DESKTOP = (390, 844), (1440, 900)


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    """A hub on this machine, with one model."""
    with serving(Hub(REPO, checkpoint())) as served:
        yield served


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory, hub: Hub) -> Iterator[str]:
    """Serve with the model that ships, in a process of its own; return the page's address."""
    data_dir = tmp_path_factory.mktemp("studio")
    with serving_studio(data_dir, "--preload", "homereel-mini", environment=hub.environment(data_dir / "hf")) as url:
        yield url


@contextmanager
def serving_studio(
    data_dir: Path, *options: str, port: int = 0, environment: Mapping[str, str] | None = None
) -> Generator[str]:
    """Serve from a process of its own, on any port that is free unless one is named; yield the page's address."""
    command = [sys.executable, "-m", "server.cli", "serve", "--port", str(port), "--devices", "cpu"]
    whole = os.environ | (environment or {})
    with (data_dir / "log").open("ab") as log:
        arguments = [*command, "--data-dir", str(data_dir), *options]
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=log, text=True, env=whole)
    assert process.stdout is not None
    with process.stdout:
        try:
            yield process.stdout.readline().split()[-1].removesuffix("/v1")
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(PATIENCE_MS / 1000)


@pytest.fixture(scope="module")
def api(studio: str) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=f"{studio}/v1", timeout=60) as client:
        yield client


# Not for the whole session: its event loop lives in this thread, where other tests have loops of their own.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert CHROMIUM, "scripts/test.sh installs Chromium; on Debian: apt-get install chromium"
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        # The sandbox needs what a root user in a container does not have.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@dataclass
class Watch:
    """What a page complained about, and whom it asked."""

    origin: str
    refused: tuple[str, ...] = ()
    """Ends of addresses that the server may refuse: browsers note that by themselves."""
    complaints: list[str] = field(default_factory=list[str])
    foreign: list[str] = field(default_factory=list[str])

    def follow(self, page: Page) -> None:
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", self._asked)
        page.add_init_script("addEventListener('securitypolicyviolation', (it) => console.error(it.blockedURI))")

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"} and not self._is_refusal(message):
            self.complaints.append(f"{message.text} {message.location}")

    def _is_refusal(self, message: ConsoleMessage) -> bool:
        path = urlsplit(message.location["url"]).path
        # A preview may be gone by the time it is asked for: its video has been cancelled.
        return "Failed to load resource" in message.text and path.endswith(("/preview", *self.refused))

    def _asked(self, request: Request) -> None:
        address = urlsplit(request.url)
        if address.scheme not in {"blob", "data"} and f"{address.scheme}://{address.netloc}" != self.origin:
            self.foreign.append(request.url)


OpenPage = Callable[..., Page]


@pytest.fixture
def open_page(browser: Browser, studio: str) -> Iterator[OpenPage]:
    """Open the page in a browser that has never been here; at the end, nothing may have gone wrong in it."""
    contexts, watches = [], []

    def opened(
        address: str = "",
        *,
        at: str = studio,
        size: tuple[int, int] = DESKTOP,
        dark: bool = True,
        refused: tuple[str, ...] = (),
    ) -> Page:
        viewport = {"width": size[0], "height": size[1]}
        context = browser.new_context(viewport=viewport, color_scheme="dark" if dark else "light")  # pyright: ignore[reportArgumentType]
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        page = context.new_page()
        watch = Watch(at, refused)
        watches.append(watch)
        watch.follow(page)
        page.goto(f"{at}/{address}")
        return page

    yield opened
    for context in contexts:
        context.close()
    for watch in watches:
        assert not watch.complaints
        assert not watch.foreign


def serious(page: Page) -> list[str]:
    """Return what axe-core finds that keeps somebody from using the page, each with where."""
    # Through the protocol of the debugger, which the page's policy does not concern.
    if not page.evaluate("'axe' in window"):
        page.evaluate((tools() / "axe-core" / "axe.min.js").read_text())
    found = page.evaluate("axe.run({ resultTypes: ['violations'] })")
    return [
        f"{violation['id']}: {node['html'][:120]} {node['failureSummary']}"
        for violation in found["violations"]
        if violation["impact"] in {"serious", "critical"}
        for node in violation["nodes"]
    ]


def save_to(page: Page, folder: Path, act: Callable[[], None]) -> Path:
    """Return the file that the page gives its user when ``act`` is done."""
    with page.expect_download() as download:
        act()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path
