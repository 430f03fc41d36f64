"""Takes pictures of the studio, light and dark, large and small, to be looked at; two of them are README's.

python -m scripts.screenshots [--into build/screenshots] [--data FOLDER]     a FOLDER keeps the clips for the next time
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from scripts.contact_sheet import PROMPTS

ROOT = Path(__file__).resolve().parent.parent
SIZES = {"desktop": (1440, 900), "phone": (390, 844)}
THEMES = ("dark", "light")
MODEL = "homereel-mini"
README = {"studio": "compose-desktop-dark", "gallery": "gallery-desktop-light"}


@contextmanager
def serving(data_dir: Path) -> Iterator[str]:
    """Yield the address of a server with a worker, on any free port. It ends with this process, however that ends."""
    command = [sys.executable, "-m", "server.cli", "serve", "--port", "0", "--devices", "cpu", "--stop-with-stdin"]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with (data_dir / "log").open("ab") as log:
        process = subprocess.Popen([*command, "--data-dir", str(data_dir)], cwd=ROOT, stderr=log, **pipes)
    # Leaving closes the pipes and waits: without its input, the server stops.
    with process:
        assert process.stdout is not None
        yield process.stdout.readline().split()[-1].removesuffix("/v1")


def put_away(api: httpx2.Client) -> None:
    """Cancel what a run that was broken off left in the queue: pictures of rest would show it, or wait for it."""
    for line in api.get("/queue").json()["running"] + api.get("/queue").json()["waiting"]:
        api.post(f"/videos/{line['id']}/cancel")
    wait(api)


def fill(api: httpx2.Client) -> list[str]:
    """Make what the pictures show, unless it is there; return its ids, the newest first."""
    there = api.get("/videos?status=completed&limit=100").json()["data"]
    if len(there) < len(PROMPTS) + 4:
        for number, prompt in enumerate(PROMPTS):
            size = "96x160" if number % 4 == 3 else "160x96"
            api.post("/videos", json={"model": MODEL, "prompt": prompt, "seed": 7, "size": size}).raise_for_status()
        pair = {"model": MODEL, "prompt": PROMPTS[0], "n": 4, "seed": 1}
        api.post("/videos/variations", json=pair).raise_for_status()
        wait(api)
        there = api.get("/videos?status=completed&limit=100").json()["data"]
    for video in there[4::3]:
        api.post(f"/videos/{video['id']}", json={"starred": True})
    return [video["id"] for video in there]


def wait(api: httpx2.Client) -> None:
    for line in api.get("/queue").json()["running"] + api.get("/queue").json()["waiting"]:
        with api.stream("GET", f"/videos/{line['id']}/events", timeout=None) as events:
            events.read()


def open_page(browser: Browser, url: str, size: str, theme: Any) -> Page:
    width, height = SIZES[size]
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=theme)
    page = context.new_page()
    page.on("console", lambda message: print(f"  {message.type}: {message.text}"))
    page.goto(url)
    return page


def settle(page: Page, selector: str) -> None:
    page.locator(selector).first.wait_for()
    page.wait_for_timeout(900)


def views(page: Page, url: str, ids: list[str], shoot: Any) -> None:
    """Go through the views that need no work in progress."""
    page.goto(f"{url}/#/create")
    page.get_by_label("Prompt", exact=True).fill(PROMPTS[1] + ", slow dolly-in, moonlight")
    settle(page, ".player video")
    shoot("compose")
    page.goto(f"{url}/#/gallery")
    settle(page, ".clip img")
    page.locator(".clip").nth(1).hover()
    page.wait_for_timeout(600)
    shoot("gallery")
    page.goto(f"{url}/#/gallery/{ids[-1]}")
    settle(page, ".viewer video")
    shoot("viewer")
    page.goto(f"{url}/#/compare/{ids[0]},{ids[1]}")
    settle(page, ".together video")
    page.get_by_label("Time of all clips").fill("1.4")
    page.wait_for_timeout(500)
    shoot("compare")
    for view in ("library", "system"):
        page.goto(f"{url}/#/{view}")
        settle(page, "main h1")
        if view == "library":
            page.get_by_role("button", name="Tracking shot").click()
            page.wait_for_timeout(500)
        shoot(view)


def work(browser: Browser, url: str, api: httpx2.Client, into: Path) -> None:
    """Take pictures of work in progress, which has to be there for all of them."""
    slow = {"model": MODEL, "num_inference_steps": 100, "seconds": "8", "seed": 3}
    for prompt in (PROMPTS[2], PROMPTS[5], PROMPTS[0]):
        api.post("/videos", json=slow | {"prompt": prompt}).raise_for_status()
    for size in SIZES:
        for theme in THEMES:
            page = open_page(browser, url, size, theme)
            page.get_by_label("Prompt", exact=True).fill(PROMPTS[3])
            page.locator(".forming img.preview").wait_for(timeout=180_000)
            page.wait_for_timeout(1500)
            if size == "phone":
                page.locator("#stage").scroll_into_view_if_needed()
                page.evaluate("document.getElementById('stage').scrollIntoView()")
                page.mouse.wheel(0, -70)
                page.wait_for_timeout(400)
            page.screenshot(path=into / f"queue-{size}-{theme}.png")
            page.context.close()
    put_away(api)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, default=ROOT / "build" / "screenshots")
    parser.add_argument("--results", action="store_true", help="replace README's pictures")
    parser.add_argument("--data", type=Path, help="data folder; default: one that is gone afterwards")
    options = parser.parse_args()
    options.into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        data_dir = options.data or Path(scratch)
        data_dir.mkdir(parents=True, exist_ok=True)
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        with serving(data_dir) as url, httpx2.Client(base_url=f"{url}/v1", timeout=60) as api:
            put_away(api)
            ids = fill(api)
            for size in SIZES:
                for theme in THEMES:
                    page = open_page(browser, url, size, theme)

                    def shoot(name: str, page: Page = page, size: str = size, theme: str = theme) -> None:
                        page.screenshot(path=options.into / f"{name}-{size}-{theme}.png")

                    views(page, url, ids, shoot)
                    page.context.close()
            work(browser, url, api, options.into)
        browser.close()
    for name, picture in README.items() if options.results else ():
        Image.open(options.into / f"{picture}.png").save(ROOT / "scripts" / "results" / f"{name}.webp", quality=84)


if __name__ == "__main__":
    main()
