"""What a visitor does, in a real browser, on a real server with the model that ships."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from argparse import ArgumentParser
from pathlib import Path

import httpx2
import pytest
from playwright.sync_api import Locator, Page, expect

from server.cli import generate
from tests.browser.conftest import DESKTOP, PHONE, OpenPage, save_to, serious

VIEWS = ("create", "gallery", "compare/{0},{1}", "library", "system", "gallery/{0}")
# The model takes a second or two for this.
BALL = "a red ball on a green field"
# What is to be seen while it is made, and then stopped, has to take longer than any look at the page.
LONG_S = 20
QUICK = {"model": "homereel-mini", "prompt": BALL, "seconds": "2", "num_inference_steps": 2}


def write(page: Page, prompt: str, *, steps: int, seconds: int = 2) -> None:
    page.get_by_label("Model", exact=True).select_option("homereel-mini")
    page.get_by_label("Prompt", exact=True).fill(prompt)
    page.get_by_label("Length").fill(str(seconds))
    page.locator(".advanced").evaluate("it => { it.open = true }")
    page.get_by_label("Steps").fill(str(steps))


def plays(video: Locator) -> None:
    """Wait until time passes in the clip."""
    expect(video).to_have_js_property("paused", value=False)
    changes = "it.currentTime !== from && done()"
    video.evaluate(f"it => new Promise((done) => {{ const from = it.currentTime; it.ontimeupdate = () => {changes} }})")


def remember(page: Page) -> None:
    """Keep every title and text that the page shows from now on: what passes quickly is not seen by looking in."""
    page.evaluate(
        """() => {
            window.shown = [];
            const note = () => window.shown.push(document.title, document.querySelector("main").textContent);
            new MutationObserver(note).observe(document, { subtree: true, childList: true, characterData: true });
        }"""
    )


def has_shown(page: Page, pattern: str) -> None:
    """Wait until something that matches has been shown since ``remember``."""
    page.wait_for_function("(pattern) => window.shown.some((text) => new RegExp(pattern).test(text))", arg=pattern)


def until_all(videos: Locator, condition: str) -> None:
    """Wait until the condition holds of ``it``, every one of the clips."""
    waiting = f"all.every((it) => {condition}) ? done() : requestAnimationFrame(look)"
    videos.evaluate_all(f"all => new Promise((done) => {{ const look = () => {waiting}; look(); }})")


@pytest.fixture(scope="module")
def made(api: httpx2.Client) -> list[str]:
    """Two finished videos of one group."""
    ids = [video["id"] for video in api.post("/videos/variations", json=QUICK | {"n": 2, "seed": 5}).json()["data"]]
    for video_id in ids:
        with api.stream("GET", f"/videos/{video_id}/events") as events:
            assert any("video.completed" in line for line in events.iter_lines())
    return ids


def test_from_the_first_visit_to_a_comparison(open_page: OpenPage) -> None:
    page = open_page()
    expect(page.get_by_text("Your first video starts with a sentence")).to_be_visible()
    write(page, BALL, steps=6)
    expect(page.locator(".foresight")).to_contain_text("16 frames at 8 fps")
    remember(page)
    page.get_by_label("Prompt", exact=True).press("Control+Enter")
    stage = page.get_by_label("Stage")
    has_shown(page, r"step \d+ of 6")
    has_shown(page, r"\d+ % · Homereel")
    plays(stage.locator("video"))
    expect(page).to_have_title("Homereel")

    stage.get_by_role("link", name="Open").click()
    viewer = page.get_by_role("dialog", name="Video")
    plays(viewer.locator("video"))
    viewer.get_by_label("What it should show instead").fill("a blue ball on a green field")
    expect(viewer.locator("ins")).to_have_text("blue")
    viewer.get_by_role("button", name="Remix").last.click()
    expect(page.locator("ol").get_by_text("a blue ball")).to_be_visible()
    plays(stage.locator("video"))
    expect(page.get_by_label("Latest").get_by_role("button")).to_have_count(2)

    page.get_by_role("link", name="Gallery", exact=True).click()
    expect(page.get_by_role("listitem")).to_have_count(2)
    for prompt in (BALL, "a blue ball on a green field"):
        clip = page.get_by_role("listitem").filter(has=page.get_by_role("button", name=f"Select: {prompt}"))
        clip.hover()
        plays(clip.locator("video"))
        clip.get_by_role("button", name="Select").click()
        expect(clip.get_by_role("button", name="Select", pressed=True)).to_have_count(1)
    page.get_by_role("button", name="Compare").click()
    compared(page)


def compared(page: Page) -> None:
    clips = page.locator(".together video")
    expect(clips).to_have_count(2)
    page.get_by_role("button", name="Play").click()
    until_all(clips, "it.currentTime > 0.4")
    page.get_by_role("button", name="Pause").click()
    page.get_by_label("Time of all clips").fill("1.2")
    until_all(clips, "it.paused && Math.abs(it.currentTime - 1.2) < 0.1")
    expect(page.locator(".differs")).to_contain_text(["Prompt"])
    page.get_by_role("button", name="Wipe").click()
    page.get_by_label("Border between the two").fill("30")
    expect(page.locator(".wipe-top")).to_have_attribute("style", re.compile("30%"))


def test_a_clip_its_settings_and_its_last_frame_can_be_taken_along(
    open_page: OpenPage, made: list[str], tmp_path: Path
) -> None:
    page = open_page(f"#/create/{made[0]}")
    viewer = page.get_by_role("dialog", name="Video")
    clip = save_to(page, tmp_path, lambda: _pick(viewer, "Download", "Video"))
    assert clip.read_bytes()[4:8] == b"ftyp"
    settings = json.loads(save_to(page, tmp_path, lambda: _pick(viewer, "Download", "Settings")).read_text())
    assert (settings["prompt"], settings["seed"]) == (QUICK["prompt"], 5)
    picture = save_to(page, tmp_path, lambda: _pick(viewer, "Download", "Last frame"))
    assert picture.read_bytes().startswith(b"\x89PNG")

    page.keyboard.press("Escape")
    prompt = page.get_by_label("Prompt", exact=True)
    prompt.fill("something else")
    dropped = page.evaluate_handle(
        "bytes => { const all = new DataTransfer();"
        " all.items.add(new File([new Uint8Array(bytes)], 'clip.mp4', { type: 'video/mp4' })); return all }",
        list(clip.read_bytes()),
    )
    page.locator("main").dispatch_event("drop", {"dataTransfer": dropped})
    expect(prompt).to_have_value(settings["prompt"])
    expect(page.get_by_label("Seed", exact=True)).to_have_value("5")
    expect(page.get_by_label("Steps")).to_have_value("2")


def test_what_is_copied_asks_for_the_same_video(open_page: OpenPage, made: list[str], api: httpx2.Client) -> None:
    page = open_page(f"#/create/{made[0]}")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    viewer = page.get_by_role("dialog", name="Video")

    def copied(what: str) -> str:
        _pick(viewer, "Copy as", what)
        expect(page.get_by_role("status").get_by_text("copied")).to_have_count(1)
        page.get_by_role("button", name="Dismiss").click()
        return page.evaluate("navigator.clipboard.readText()")

    again = json.loads(subprocess.run(["sh", "-c", copied("curl")], check=True, capture_output=True).stdout)
    api.post(f"/videos/{again['id']}/cancel")
    same = ("model", "prompt", "size", "seconds", "seed", "num_inference_steps", "guidance_scale")
    source = api.get(f"/videos/{made[0]}").json()
    assert {name: again[name] for name in same} == {name: source[name] for name in same}

    parser = ArgumentParser()
    generate.configure(parser)
    homereel, verb, *arguments = shlex.split(copied("Command line"))
    asked = parser.parse_args(arguments)
    assert (homereel, verb) == ("homereel", "generate")
    assert (asked.prompt, asked.seed, asked.num_inference_steps) == (BALL, 5, 2)

    program = copied("Python")
    compile(program, "copied", "exec")
    assert "client.videos.create_and_poll" in program


def test_clips_are_joined_and_cut(open_page: OpenPage, made: list[str]) -> None:
    page = open_page("#/gallery")
    for video_id in made:
        clip = page.get_by_role("listitem").filter(has=page.locator(f"a[href$='{video_id}']"))
        clip.hover()
        clip.get_by_role("button", name="Select").click()
    page.get_by_role("button", name="Join").click()
    page.get_by_role("button", name="Show").click()
    viewer = page.get_by_role("dialog", name="Video")
    plays(viewer.locator("video"))
    expect(viewer.locator("output")).to_contain_text("/ 32")
    viewer.get_by_role("button", name="Pause").click()
    viewer.get_by_label("Frame", exact=True).fill("20")
    viewer.get_by_role("button", name="Trim").click()
    viewer.get_by_role("button", name="Start here").click()
    expect(viewer).to_contain_text("Frames 21 to 32")
    viewer.get_by_role("button", name="Trim").last.click()
    plays(page.get_by_label("Stage").locator("video"))
    expect(page.get_by_label("Stage").locator("output")).to_contain_text("/ 12")


def test_a_template_becomes_a_prompt_that_can_be_kept_and_found(open_page: OpenPage, made: list[str]) -> None:
    page = open_page("#/library")
    page.get_by_role("button", name="Tracking shot").click()
    expect(page.get_by_text("Still to fill in")).to_be_visible()
    for slot in page.locator(".beat .field").all():
        slot.locator(".chip").first.click()
    page.get_by_label("Who or what").fill("a heron")
    expect(page.locator(".composed")).to_contain_text("tracking shot follows a heron")
    composed = page.locator(".composed").inner_text()
    page.get_by_role("button", name="Keep").click()
    expect(page.get_by_text("Kept in the library.")).to_be_visible()
    page.get_by_role("button", name="Use this prompt").click()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value(composed)

    page.get_by_role("link", name="Library").click()
    page.get_by_role("button", name="Starred").click()
    expect(page.get_by_role("main").get_by_role("listitem")).to_contain_text(["a heron"])
    page.get_by_role("button", name="Log").click()
    page.get_by_label("Search all prompts").fill("green fi")
    entry = page.get_by_role("main").get_by_role("listitem").first
    expect(entry).to_contain_text(BALL)
    entry.get_by_role("link").first.click()
    plays(page.get_by_role("dialog", name="Video").locator("video"))


def _pick(place: Locator, menu: str, entry: str) -> None:
    place.locator("summary", has_text=menu).click()
    place.get_by_role("button", name=re.compile(f"^{entry}")).last.click()


def test_a_visitor_who_comes_back_in_the_middle_finds_the_work_going_on_and_can_stop_it(open_page: OpenPage) -> None:
    page = open_page()
    write(page, "a green square over dark sand", steps=40, seconds=LONG_S)
    page.get_by_role("button", name="Generate").click()
    page.get_by_label("Prompt", exact=True).fill("something else, half wri")
    expect(page.get_by_label("Stage")).to_contain_text(re.compile(r"step [1-9]\d* of \d+"))
    expect(page).to_have_title(re.compile(r"\d+ % · Homereel"))
    expect(page.locator(".forming img.preview")).to_be_visible()
    page.reload()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("something else, half wri")
    expect(page.get_by_label("Stage")).to_contain_text(re.compile(r"step \d+ of \d+"))
    page.get_by_label("Stage").get_by_role("button", name="Cancel").click()
    expect(page.get_by_label("Queue")).to_have_count(0)
    expect(page).to_have_title("Homereel")


def test_who_waits_can_go_sooner(open_page: OpenPage, api: httpx2.Client) -> None:
    long = QUICK | {"num_inference_steps": 100, "seconds": str(LONG_S)}
    ids = [api.post("/videos", json=long | {"prompt": text}).json()["id"] for text in ("first", "second", "third")]
    page = open_page()
    rows = page.locator(".queue-row")
    expect(rows).to_contain_text(["first", "second", "third"])
    rows.filter(has_text="third").get_by_role("button", name="Sooner").click()
    expect(rows).to_contain_text(["first", "third", "second"])
    for row in ("second", "third", "first"):
        rows.filter(has_text=row).get_by_role("button", name="Cancel").click()
    expect(rows).to_have_count(0)
    assert {api.get(f"/videos/{video_id}").json()["error"]["code"] for video_id in ids} == {"cancelled"}


def test_what_cannot_be_made_is_said_before_it_is_sent(open_page: OpenPage) -> None:
    page = open_page(refused=("/estimate",))
    page.get_by_label("Seed", exact=True).fill("9999999999")
    expect(page.get_by_role("alert")).to_contain_text("seed")
    page.get_by_label("Seed", exact=True).fill("7")
    expect(page.get_by_role("alert")).to_have_count(0)


def test_a_server_that_does_not_answer_costs_nothing_that_was_written(open_page: OpenPage) -> None:
    page = open_page(refused=("/estimate", "/videos", "/content"))
    page.get_by_label("Prompt", exact=True).fill("a sentence that took long to find")
    page.route("**/v1/videos**", lambda route: route.abort())
    page.get_by_role("button", name="Generate").click()
    expect(page.get_by_text("The server does not answer.").first).to_be_visible()
    expect(page.get_by_role("button", name="Generate")).to_be_enabled()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("a sentence that took long to find")
    page.unroute("**/v1/videos**")
    page.get_by_label("Length").fill("3")
    expect(page.locator(".offline")).to_have_count(0)
    expect(page.locator(".foresight")).to_contain_text("24 frames")


@pytest.mark.parametrize(("size", "dark"), [(PHONE, True), (DESKTOP, False)], ids=["phone", "desktop"])
def test_nothing_keeps_anybody_from_using_it(
    open_page: OpenPage, made: list[str], size: tuple[int, int], *, dark: bool
) -> None:
    page = open_page(size=size, dark=dark)
    for view in VIEWS:
        page.goto(f"{page.url.partition('#')[0]}#/{view.format(*made)}")
        expect(
            page.locator(
                "dialog video" if view.startswith("gallery/") else "main :is(video, .clip, .model, .template)"
            ).first
        ).to_be_visible()
        assert serious(page) == [], view
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{view} scrolls sideways"


def test_the_gallery_obeys_the_keyboard(open_page: OpenPage, made: list[str], api: httpx2.Client) -> None:
    page = open_page("#/gallery")
    clips = page.get_by_role("listitem")
    expect(clips.first).to_be_visible()
    clips.first.get_by_role("link").focus()
    page.keyboard.press("ArrowRight")
    expect(clips.nth(1).get_by_role("link")).to_be_focused()
    focused = clips.nth(1).get_by_role("link").get_attribute("href")
    page.keyboard.press("s")
    page.get_by_role("button", name="Starred").click()
    expect(clips).to_have_count(1)
    assert clips.get_by_role("link").get_attribute("href") == focused
    page.keyboard.press("Tab")
    page.get_by_role("listitem").get_by_role("link").press("Enter")
    viewer = page.get_by_role("dialog", name="Video")
    plays(viewer.locator("video"))
    page.keyboard.press(" ")
    expect(viewer.locator("video")).to_have_js_property("paused", value=True)
    before = viewer.locator("output").inner_text()
    page.keyboard.press(".")
    expect(viewer.locator("output")).not_to_have_text(before)
    page.keyboard.press("Escape")
    expect(viewer).to_have_count(0)


def test_what_opens_on_a_phone_stays_on_it(open_page: OpenPage, made: list[str]) -> None:
    page = open_page(f"#/gallery/{made[0]}", size=PHONE)
    for name in ("Download", "Copy as"):
        page.locator("summary").filter(has_text=name).click()
        for item in page.locator("details[open] .menu-list button").all():
            expect(item).to_be_in_viewport(ratio=1)
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Close").click()
    page.get_by_role("button", name="Select").first.click()
    page.locator(".picked").get_by_role("button", name="Delete").click()
    assert page.get_by_role("dialog").evaluate("it => it.scrollWidth <= it.clientWidth")
