"""The library of prompts, in a real browser, on a real server."""

from __future__ import annotations

import re

import httpx2
from playwright.sync_api import expect

from tests.browser.conftest import PHONE, OpenPage, serious


def test_a_template_of_ones_own_is_written_used_changed_and_deleted(open_page: OpenPage) -> None:
    page = open_page("#/library", size=PHONE)
    page.get_by_role("button", name="Your own").click()
    page.get_by_label("Name", exact=True).fill("Crossing")
    page.get_by_label("Sentence").fill("A {bold_subject} crosses {place}. [{light}.]")
    page.get_by_role("button", name="Save").click()
    page.get_by_label("bold subject").fill("red ball")
    page.get_by_label("place").fill("a green field")
    expect(page.locator(".composed")).to_have_text("A red ball crosses a green field.")
    page.get_by_role("button", name="Edit").click()
    page.get_by_label("Sentence").fill("A {bold_subject} rolls.")
    assert serious(page) == []
    page.get_by_role("button", name="Save").click()
    page.get_by_label("bold subject").fill("blue ball")
    expect(page.locator(".composed")).to_have_text("A blue ball rolls.")
    page.get_by_role("button", name="Delete Crossing").click()
    expect(page.get_by_role("button", name="Crossing")).to_have_count(0)

    page.get_by_role("button", name="Tracking shot").click()
    # What is filled in stands below all templates here.
    expect(page.get_by_label("Who or what")).to_be_in_viewport()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.get_by_role("button", name="Change a copy").click()
    page.get_by_label("Name", exact=True).fill("Chase")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("button", name="Delete Chase")).to_have_count(1)
    # The copy's sentence says "tracking shot", too.
    expect(page.get_by_role("button", name=re.compile("^Tracking shot"))).to_have_count(1)
    page.get_by_role("button", name="Delete Chase").click()
    expect(page.get_by_role("button", name="Chase")).to_have_count(0)


def test_a_template_that_somebody_else_changed_is_not_overwritten_unasked(
    open_page: OpenPage, api: httpx2.Client
) -> None:
    mine = {"name": "Ours", "text": "{what} rolls.", "slots": [{"name": "what", "label": "What"}]}
    template = api.post("/prompts/templates", json=mine).json()
    page = open_page("#/library", refused=(template["id"],))
    page.get_by_role("button", name=re.compile("^Ours")).click()
    page.get_by_role("button", name="Edit").click()
    for theirs, choice in (("jumps", "Take that one"), ("flies", "Save mine")):
        # Meanwhile, in another window.
        api.post(f"/prompts/templates/{template['id']}", json={"text": f"{{what}} {theirs}."})
        page.get_by_label("Sentence").fill("{what} hops.")
        page.get_by_role("button", name="Save", exact=True).click()
        expect(page.get_by_role("alert")).to_contain_text(f"{{what}} {theirs}.")
        assert serious(page) == []
        page.get_by_role("button", name=choice).click()
        if choice == "Take that one":
            expect(page.get_by_label("Sentence")).to_have_value("{what} jumps.")
    page.get_by_label("What").fill("a ball")
    expect(page.locator(".composed")).to_have_text("A ball hops.")
    assert api.get(f"/prompts/templates/{template['id']}").json()["revision"] == 4


def test_of_a_long_prompt_the_beginning_is_shown(open_page: OpenPage, api: httpx2.Client) -> None:
    long = " ".join(f"An old fisherman mends net number {number} on a foggy pier." for number in range(40))
    api.post("/prompts/starred", json={"prompt": long})
    page = open_page("#/library", size=PHONE)
    page.get_by_role("button", name="Starred", exact=True).click()
    prompt = page.get_by_text(long)
    heights = [prompt.evaluate("it => it.clientHeight")]
    for name, then in (("Show all", "Show less"), ("Show less", "Show all")):
        page.get_by_role("button", name=name).click()
        expect(page.get_by_role("button", name=then)).to_be_visible()
        heights.append(prompt.evaluate("it => it.clientHeight"))
    assert heights[0] == heights[2] < 150 < heights[1]
    assert serious(page) == []
