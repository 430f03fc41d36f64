"""Measures the gallery with 10,000 clips: how soon it paints, and how it scrolls. Prints Markdown.

python -m scripts.page_speed [--clips 10000] [--rounds 5]
"""

import argparse
import itertools
import os
import random
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import imageio_ffmpeg
from playwright.sync_api import Browser, Page, sync_playwright

from pipelines.card import Wish
from pipelines.registry import load_registry
from scripts.bench_server import machine, spread
from scripts.contact_sheet import PROMPTS
from scripts.screenshots import serving
from server.assets import Variant
from server.ids import new_id
from server.jobs import Job, JobId, JobResult, JobStatus
from server.settings import Settings
from server.store import JobStore

MODEL, KINDS = "homereel-mini", 24
SCREENS = 40
# Counted in the page: when every frame was drawn, and for how long the page was too busy to draw one.
WATCH = """() => {
  window.frames_at = []; window.long_ms = [];
  new PerformanceObserver((list) => list.getEntries().forEach((it) => window.long_ms.push(it.duration)))
    .observe({ type: 'longtask', buffered: true });
  const tick = (now) => { window.frames_at.push(now); requestAnimationFrame(tick); };
  requestAnimationFrame(tick);
}"""
PAINTED = """() => new Promise((done) => {
  const look = () => {
    const all = [...document.querySelectorAll('.clip img')];
    const seen = all.filter((it) => it.getBoundingClientRect().top < innerHeight);
    if (seen.length > 3 && seen.every((it) => it.complete && it.naturalWidth)) done(performance.now());
    else requestAnimationFrame(look);
  };
  look();
})"""
# Where to jump, as shares of the whole; and the way there, which ends when other clips are in the page than before.
JUMPS = (0.5, 0.25, 0.75)
ELSEWHERE = """(share) => new Promise((done) => {
  const first = () => document.querySelector('[data-index]')?.dataset.index;
  const before = first();
  scrollTo(0, document.documentElement.scrollHeight * share);
  const look = () => (first() !== before ? done() : requestAnimationFrame(look));
  look();
})"""


def draw(folder: Path) -> list[tuple[Path, Path]]:
    """Return a few clips with their thumbnails; every row gets one of them."""
    drawn: list[tuple[Path, Path]] = []
    ffmpeg = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-y", "-f", "lavfi"]
    for kind in range(KINDS):
        clip, still = folder / f"{kind}.mp4", folder / f"{kind}.webp"
        source = f"testsrc2=size=480x288:rate=8,hue=h={kind * 360 // KINDS}"
        subprocess.run([*ffmpeg, "-i", source, "-frames:v", "16", "-pix_fmt", "yuv420p", str(clip)], check=True)
        subprocess.run([*ffmpeg, "-i", source, "-frames:v", "1", str(still)], check=True)
        drawn.append((clip, still))
    return drawn


def rows(count: int, now: float) -> Iterator[Job]:
    card = load_registry().cards[MODEL]
    chance = random.Random(1)
    for number in range(count):
        made_at = now - 30.0 * (count - number)
        words = " ".join(chance.sample(" ".join(PROMPTS).split(), 12))
        size = (96, 160) if number % 5 == 4 else (160, 96)
        request = card.resolve(Wish(words, seed=number, size=size)).request
        job_id = JobId(new_id("video_", made_at))
        done = Job(job_id, MODEL, MODEL, JobStatus.COMPLETED, request, made_at)
        yield replace(done, completed_at=made_at + 5, result=JobResult({"denoise": 4.0}, 600_000_000))


def fill(settings: Settings, count: int) -> None:
    """Put that many finished clips into a store."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    drawn = draw(settings.data_dir)
    store = JobStore.open(settings.database_url)
    jobs = list(rows(count, time.time()))
    for start in range(0, count, 500):
        store.add(*jobs[start : start + 500], max_queued=1)
    store.close()
    for number, job in enumerate(jobs):
        folder = settings.assets_dir / job.id
        folder.mkdir(parents=True)
        for variant, source in zip((Variant.VIDEO, Variant.THUMBNAIL), drawn[number % KINDS], strict=True):
            os.link(source, folder / variant.filename)


def visit(browser: Browser, url: str) -> tuple[Page, dict[str, float]]:
    """Open the gallery as somebody who has never been there, and tell how soon it could be seen."""
    page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
    page.goto(f"{url}/#/gallery")
    pictures_ms = page.evaluate(PAINTED)
    first = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    return page, {"first_ms": first, "pictures_ms": pictures_ms}


def scroll(page: Page) -> dict[str, Any]:
    """Scroll by the wheel through many screens and tell how long each frame took."""
    page.evaluate(WATCH)
    page.mouse.move(700, 500)
    for _ in range(SCREENS * 5):
        page.mouse.wheel(0, 180)
        page.wait_for_timeout(16)
    at = page.evaluate("frames_at")
    gaps = sorted(later - now for now, later in itertools.pairwise(at))
    busy = page.evaluate("long_ms")
    return {"gaps": gaps, "busy_ms": max(busy, default=0.0)}


def whole(page: Page, count: int) -> dict[str, Any]:
    """Go down until every clip has been loaded; tell how long it took and what is then in the page."""
    began = time.perf_counter()
    page.evaluate(
        "count => new Promise((done) => { const go = () => {"
        " scrollTo(0, document.documentElement.scrollHeight);"
        " const last = document.querySelector(`[data-index='${count - 1}']`);"
        " last ? done() : setTimeout(go, 30); }; go(); })",
        count,
    )
    took_s = time.perf_counter() - began
    nodes, heap = page.evaluate("[document.querySelectorAll('*').length, performance.memory.usedJSHeapSize / 1e6]")
    return {"all_s": took_s, "nodes": nodes, "heap_mb": heap, "jumps_ms": [jump(page, place) for place in JUMPS]}


def jump(page: Page, place: float) -> float:
    """Go to a place where nobody has been, and tell after how many milliseconds its pictures are there."""
    began = time.perf_counter()
    page.evaluate(ELSEWHERE, place)
    page.evaluate(PAINTED)
    return 1000 * (time.perf_counter() - began)


def share(values: list[float], of: float) -> float:
    return values[min(int(len(values) * of), len(values) - 1)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        settings = Settings(data_dir=Path(scratch))
        fill(settings, options.clips)
        arguments = ["--no-sandbox", "--enable-precise-memory-info"]
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=arguments)
        with serving(settings.data_dir) as url:
            visit(browser, url)[0].context.close()
            opened: list[dict[str, float]] = []
            scrolled: list[dict[str, Any]] = []
            for _ in range(options.rounds):
                page, seen = visit(browser, url)
                opened.append(seen)
                scrolled.append(scroll(page))
                page.context.close()
            page, _ = visit(browser, url)
            end = whole(page, options.clips)
        told = machine(load_registry().cards[MODEL], "cpu", None)
        told["browser"] = f"Chromium {browser.version}, headless, 1440x900, drawn by the CPU"
        browser.close()
    gaps = [share(one["gaps"], 0.5) for one in scrolled], [share(one["gaps"], 0.95) for one in scrolled]
    table = [
        ("first paint, nothing in the browser's cache", spread([one["first_ms"] for one in opened], " ms")),
        ("every picture in sight is there", spread([one["pictures_ms"] for one in opened], " ms")),
        (f"frame while scrolling {SCREENS} screens, median", spread(gaps[0], " ms")),
        ("… 95 % of them within", spread(gaps[1], " ms")),
        ("… the longest task between two frames", spread([one["busy_ms"] for one in scrolled], " ms")),
        (f"scroll to the end, {options.clips:,} rows loaded", f"{end['all_s']:.1f} s"),
        ("… elements in the page then", f"{end['nodes']:.0f}"),
        ("… memory of its script", f"{end['heap_mb']:.0f} MB"),
        ("… jump to the middle and elsewhere, pictures there", spread(end["jumps_ms"], " ms")),
    ]
    print(f"`python -m scripts.page_speed --clips {options.clips} --rounds {options.rounds}`\n")
    print("\n".join(f"- {name}: {value}" for name, value in told.items() if name not in {"model", "threads"}))
    print("\n| what | measured |\n|---|---|")
    print("\n".join(f"| {what} | {value} |" for what, value in table))


if __name__ == "__main__":
    main()
