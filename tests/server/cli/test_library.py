"""The verbs around a video, against a real server whose model takes no time: real files, real joins."""

from __future__ import annotations

import json
import subprocess
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image

from pipelines import media
from server.cli.completion import _actions
from server.cli.main import VERBS
from tests.acceptance.serving import serving

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("commands") / "data") as url:
        yield url


@pytest.fixture
def run(url: str, homereel: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run a command that has to succeed, in an empty folder."""
    monkeypatch.setenv("HOMEREEL_URL", url)
    monkeypatch.chdir(tmp_path)

    def done(*words: object) -> tuple[int, str, str]:
        status, printed, said = homereel(*words)
        assert status == 0, said
        return status, printed, said

    return done


@pytest.fixture(scope="module")
def clips(url: str, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Two clips of a second that differ in prompt and seed, each with the path of its file."""
    folder = tmp_path_factory.mktemp("clips")
    with httpx2.Client(base_url=url, timeout=60) as api:
        wanted = [{"prompt": "a heliotrope kite", "seed": 1}, {"prompt": "a heliotrope boat", "seed": 2}]
        ids = [api.post("videos", json={**each, "seconds": "1"}).json()["id"] for each in wanted]
        made: list[dict[str, Any]] = []
        for video_id in ids:
            api.get(f"videos/{video_id}/events").raise_for_status()  # ends with the video
            path = folder / f"{video_id}.mp4"
            path.write_bytes(api.get(f"videos/{video_id}/content").raise_for_status().content)
            made.append({**api.get(f"videos/{video_id}").json(), "path": str(path)})
    return made


def frames_in(path: str) -> int:
    return media.probe(Path(path)).shape.frames


def test_remix_edit_and_extend_start_from_a_video_or_a_file(run: Run, clips: list[dict[str, Any]]) -> None:
    made = clips[0]
    _, printed, _ = run("remix", made["id"], "a blue ball", "--strength", 0.5, "-o", "r.mp4", "--json")
    remix = json.loads(printed)
    assert (remix["prompt"], remix["remixed_from_video_id"]) == ("a blue ball", made["id"])
    assert frames_in(remix["path"]) == 8
    _, printed, _ = run("edit", made["path"], "a green ball", "-o", "e.mp4")
    assert frames_in(printed.strip()) == 8
    _, printed, _ = run("extend", made["id"], "it rolls on", "--seconds", 1, "-o", "x.mp4")
    assert frames_in(printed.strip()) == 16


def test_join_takes_parts_and_restore_finds_what_they_were(run: Run, clips: list[dict[str, Any]]) -> None:
    one, two = clips
    _, printed, _ = run("join", one["id"], f"{two['id']}:2-5", "-o", "both.mp4")
    assert frames_in(printed.strip()) == 11
    _, printed, said = run("restore", "both.mp4")
    assert f"joined from: {two['id']} frames 2 to 4" in printed
    assert "joined from 2 pieces" in said
    _, printed, _ = run("restore", one["path"], "--json")
    assert json.loads(printed)["parameters"]["prompt"] == one["prompt"]
    _, printed, _ = run("restore", one["path"], "--make", "-o", "again.mp4")
    assert Path("again.mp4").read_bytes() == Path(one["path"]).read_bytes()


def test_compare_draws_a_row_for_each_and_says_what_differs(run: Run, clips: list[dict[str, Any]]) -> None:
    one, two = clips
    _, printed, _ = run("compare", one["id"], two["id"], "--frames", 3, "-o", "sheet.webp", "--json")
    told = json.loads(printed)
    assert [row["seed"] for row in told["differences"]] == [1, 2]
    assert all(set(row) == {"video", "seed", "prompt"} for row in told["differences"])
    with Image.open(told["path"]) as sheet:
        assert sheet.format == "WEBP"
        assert sheet.width > 3 * 160
        assert sheet.height > 2 * 96
    run("compare", one["path"], two["path"])
    assert Path("compare.png").is_file()


def test_history_and_prompts_find_what_was_asked_for(run: Run, clips: list[dict[str, Any]]) -> None:
    one, two = clips
    _, printed, _ = run("history", "helio", "--json")
    found = [json.loads(line) for line in printed.splitlines()]
    assert [video["id"] for video in found if len(video["joined_from"]) == 0][-2:] == [two["id"], one["id"]]
    _, printed, _ = run("history", "boat", "-n", 1, "--status", "completed")
    assert "heliotrope boat" in printed
    assert one["id"] not in printed
    _, printed, _ = run("prompts", "search", "heliotrope", "kite")
    assert "a heliotrope kite" in printed
    assert one["id"] in printed
    _, printed, _ = run("prompts", "diff", one["id"], two["id"])
    assert "a heliotrope [-kite-]{+boat+}" in printed
    assert "seed" in printed


def test_prompts_are_composed_and_kept(run: Run) -> None:
    _, printed, _ = run("prompts", "templates", "--json")
    (template,) = (found for found in map(json.loads, printed.splitlines()) if found["id"] == "close-up-hold")
    slots = [f"{slot['name']}={slot['suggestions'][0]}" for slot in template["slots"] if slot["required"]]
    _, composed, _ = run("prompts", "compose", "close-up-hold", *slots, "--then", "close-up-hold", *slots)
    assert "fisherman" in composed
    assert "Then, an extreme close-up" in composed
    _, star, _ = run("prompts", "star", composed.strip(), "--note", "keep")
    _, printed, _ = run("prompts", "starred")
    assert composed.strip() in printed
    run("prompts", "unstar", star.strip())
    _, printed, _ = run("prompts", "starred", "--json")
    assert printed == ""


def test_templates_of_ones_own_are_written_changed_and_forgotten(run: Run) -> None:
    _, printed, _ = run("prompts", "save", "--name", "Mine", "--text", "{the_hero} waits[ at {place}]")
    template = printed.strip()
    _, printed, _ = run("prompts", "compose", template, "the_hero=a fox", "place=dusk")
    assert printed == "A fox waits at dusk.\n"
    _, printed, _ = run("prompts", "save", "--id", template, "--text", "{the_hero} runs", "--json")
    saved = json.loads(printed)
    assert (saved["id"], saved["name"], saved["revision"]) == (template, "Mine", 2)
    assert [(slot["name"], slot["label"], slot["required"]) for slot in saved["slots"]] == [
        ("the_hero", "the hero", True)
    ]
    run("prompts", "forget", template)
    _, printed, _ = run("prompts", "templates", "--json")
    assert template not in printed


def test_a_batch_makes_what_can_be_made_and_says_what_cannot(run: Run, homereel: Run, url: str, tmp_path: Path) -> None:
    lines = [
        {"prompt": "a ball", "seconds": "1", "seed": 3},
        {"custom_id": "shot/2", "url": "/v1/videos", "body": {"prompt": "a ball", "seconds": "1", "seed": 3}},
        {"prompt": "a ball", "seconds": "1", "seed": 3},
        {"prompt": "a ball", "size": "7x7"},
    ]
    Path("in.jsonl").write_text("\n".join(map(json.dumps, lines)))
    status, printed, said = homereel("batch", "in.jsonl", "-o", "out", "--at-once", 2, "--json")
    assert status == 1
    assert "line 4" in said
    told = [json.loads(line) for line in printed.splitlines()]
    assert sorted(Path(each["path"]).name for each in told if each["path"]) == [
        "a-ball-3-3.mp4",
        "a-ball-3.mp4",
        "shot-2.mp4",
    ]
    assert len({Path(each["path"]).read_bytes() for each in told if each["path"]}) == 1
    Path("odd.jsonl").write_text('{"prompt": "a ball"}\n[]\n')
    status, _, said = homereel("batch", "odd.jsonl")
    assert (status, "line 2" in said) == (2, True)


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (["remix", "video_no", "a ball"], 1, "no video"),
        (["edit", "nowhere.mp4", "a ball"], 2, "no file nowhere.mp4"),
        (["extend", "video_no", "a ball"], 1, "no video"),
        (["join", "a:b:c"], 2, "must be an id"),
        (["join", "video_no", "video_no"], 1, "no video"),
        (["compare", "video_no", "-o", "sheet.gif"], 2, "a .png or a .webp"),
        (["restore", "nowhere.mp4"], 2, "cannot read nowhere.mp4"),
        (["batch", "nowhere.jsonl"], 2, "cannot read nowhere.jsonl"),
        (["prompts", "compose", "two-shot", "x"], 2, "no slot with a value"),
        (["prompts", "compose", "two-shot"], 2, "needs 'framing'"),
        (["history", "*"], 2, "'q' must have a word"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(
    run: Run, homereel: Run, words: list[str], status: int, sentence: str
) -> None:
    found, printed, said = homereel(*words)
    assert (found, printed) == (status, "")
    assert sentence in said
    assert "Traceback" not in said


def completed(script: str, *words: str) -> list[str]:
    """Return what bash offers for the last word."""
    line = " ".join(f"'{word}'" for word in ("homereel", *words))
    ask = f'{script}\nCOMP_WORDS=({line})\nCOMP_CWORD={len(words)}\n_homereel\nprintf "%s\\n" "${{COMPREPLY[@]}}"'
    return subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True).stdout.split()


def test_bash_completes_verbs_options_and_values(homereel: Run) -> None:
    _, script, _ = homereel("completion", "bash")
    assert completed(script, "remi") == ["remix"]
    assert completed(script, "generate", "--se") == ["--seed", "--seconds"]
    assert completed(script, "history", "--status", "q") == ["queued"]
    assert completed(script, "prompts", "sea") == ["search"]
    assert completed(script, "serve", "--listen") == []


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_are_told_of_every_verb(homereel: Run, shell: str) -> None:
    status, script, _ = homereel("completion", shell)
    assert status == 0
    assert all(verb in script for verb in VERBS)
    assert homereel("completion", "tcsh")[0] == 2


def test_every_command_that_tells_something_tells_it_in_json() -> None:
    for verb in VERBS.keys() - {"serve", "completion"}:
        parser = ArgumentParser()
        import_module(f"server.cli.{verb}").configure(parser)
        flags = [action.option_strings for action in _actions(parser)]
        assert ["--json"] in flags, verb
