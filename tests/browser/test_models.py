"""The view of models and machine, in a real browser, on a real server."""

from __future__ import annotations

import re

import httpx2
import pytest
from playwright.sync_api import Locator, Page, Route, expect

from tests.browser.conftest import DESKTOP, PHONE, OpenPage, serious


def entry(page: Page, name: str) -> Locator:
    return page.get_by_role("article").filter(has=page.get_by_role("heading", name=name, exact=True))


def test_the_machine_says_what_memory_it_has_and_who_holds_it(open_page: OpenPage, api: httpx2.Client) -> None:
    # Asked alone, the server's worker may not be there yet.
    page = open_page("#/system", refused=("/ready",))
    machine = page.get_by_role("region", name="Machine")
    expect(machine.get_by_text(re.compile(r"^\d+\.\d GiB free of \d+\.\d GiB$"))).to_be_visible()
    expect(
        machine.get_by_role("img", name=re.compile(r"^Memory: .* free of .*; \d+ MiB held by models$"))
    ).to_be_visible()
    worker = api.get(f"{str(api.base_url).partition('/v1')[0]}/ready").json()["workers"][0]
    assert 0 < worker["memory_free_mb"] < worker["memory_total_mb"]
    expect(machine.get_by_text(worker["name"], exact=True)).to_be_visible()
    # Preloaded.
    expect(machine.get_by_text(re.compile(r"homereel-mini · \d+ MiB · float32"))).to_be_visible()


@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_models_are_found_among_many_those_that_are_here_first(open_page: OpenPage, size: tuple[int, int]) -> None:
    page = open_page("#/system", size=size, refused=("/ready",))
    models = page.get_by_role("article")
    expect(models.first.get_by_role("heading")).to_have_text("Homereel Mini")
    expect(models.first.get_by_text("installed")).to_be_visible()
    every = models.count()
    assert every > 30
    page.keyboard.press("/")
    page.keyboard.type("wan VACE")
    expect(models).to_have_count(2)
    expect(page.get_by_role("status").filter(has_text=f"2 of {every}")).to_be_visible()
    expect(models.first).to_contain_text(re.compile(r"from \d\.\d GiB"))
    page.get_by_label("Search models").fill("")
    page.get_by_role("button", name="Installed").click()
    expect(models).to_have_count(1)
    page.get_by_role("button", name="All", exact=True).click()
    page.get_by_label("Can").select_option("extend")
    page.get_by_label("Open licence").check()
    expect(entry(page, "MiniMax-H3")).to_have_count(0)
    assert 0 < models.count() < every
    page.get_by_label("Search models").fill("nothing of the kind")
    expect(page.get_by_text("No model is like that")).to_be_visible()
    assert serious(page) == []
    page.get_by_role("button", name="Show all").click()
    expect(models).to_have_count(every)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_another_view_begins_at_its_top(open_page: OpenPage) -> None:
    page = open_page("#/system", refused=("/ready",))
    entry(page, "Wan 2.1 T2V 1.3B").scroll_into_view_if_needed()
    page.wait_for_function("scrollY > 0")
    page.get_by_role("link", name="Library").click()
    expect(page.get_by_role("heading", name="Library")).to_be_in_viewport()
    page.wait_for_function("scrollY === 0")


def test_a_model_on_its_way_stands_open_and_says_how_far_it_is(open_page: OpenPage) -> None:
    name, there = "wan2.1-t2v-14b", {"status": "in_progress", "bytes_done": 3e9, "bytes_total": 40e9, "error": None}

    def begun(route: Route) -> None:
        answer = route.fetch()
        models = answer.json()
        next(model for model in models["data"] if model["id"] == name)["pull"] = there
        route.fulfill(response=answer, json=models)

    page = open_page("#/create")
    page.route("**/v1/models?all=true", begun)
    page.route(f"**/v1/models/{name}/pull", lambda route: route.fulfill(json=there))
    page.get_by_role("link", name="Models").click()
    card = entry(page, "Wan 2.1 T2V 14B")
    expect(card.get_by_text("on its way")).to_be_visible()
    expect(card.get_by_text("3.0 GB of 40.0 GB")).to_be_visible()
    expect(card.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "8")
    there["status"] = "cancelled"
    expect(card.get_by_text("not here")).to_be_visible()
    expect(card.get_by_role("button", name="Go on")).to_be_visible()


def test_a_model_is_fetched_from_the_page(open_page: OpenPage) -> None:
    """Last, since the server has another model from then on."""
    page = open_page("#/system", refused=("/ready",))
    limited = entry(page, "MiniMax-H3")
    # By the keyboard alone.
    limited.locator("summary").press("Enter")
    expect(limited.get_by_role("button", name=re.compile(r"Get it \(\d+\.\d GB or more\)"))).to_be_disabled()
    limited.get_by_role("checkbox").check()
    expect(limited.get_by_role("button", name="Get it")).to_be_enabled()
    card = entry(page, "Wan 2.1 T2V 1.3B")
    card.locator("summary").click()
    card.get_by_role("button", name="Get it").click()
    expect(card.get_by_text("installed")).to_be_visible()
    assert serious(page) == []
