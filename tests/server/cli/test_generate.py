"""``homereel generate`` against a real API; the videos are finished by a stand-in."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from server.assets import AssetStore
from server.cli.client import Client
from server.jobs import JobError, JobStatus
from tests.server.cli.conftest import MP4, Stage

Run = Callable[..., tuple[int, str, str]]


def test_the_file_lands_where_it_was_asked_for(stage: Stage, homereel: Run, tmp_path: Path) -> None:
    out = tmp_path / "ball.mp4"
    status, printed, _ = homereel("generate", "a red ball", "-o", out, "--seed", 7)
    assert (status, printed) == (0, f"{out}\n")
    assert out.read_bytes() == MP4
    assert [path.name for path in tmp_path.iterdir() if "part" in path.name] == []


def test_options_reach_the_request(stage: Stage, homereel: Run, tmp_path: Path) -> None:
    options = ["--seed", 7, "--seconds", 3, "--size", "96x160", "--negative", "red", "--steps", 5, "--guidance", 2.5]
    homereel("generate", "a ball", "-o", tmp_path / "a.mp4", "--model", "homereel-mini", *options)
    job = stage.store.get(stage.jobs()[0])
    assert (job.model, job.request.seed, job.request.delivery.seconds) == ("homereel-mini", 7, 3)
    assert (job.request.delivery.size, job.request.negative_prompt) == ("96x160", "red")
    assert (job.request.num_inference_steps, job.request.guidance_scale) == (5, 2.5)


def test_without_a_name_the_file_is_called_after_prompt_and_seed(
    stage: Stage, homereel: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _, printed, _ = homereel("generate", "A red ball,\nat NIGHT!", "--seed", 7)
    assert printed == f"{tmp_path / 'a-red-ball-at-night-7.mp4'}\n"


def test_n_makes_siblings_that_differ_by_their_seed(stage: Stage, homereel: Run, tmp_path: Path) -> None:
    status, printed, _ = homereel("generate", "a ball", "-o", tmp_path / "out.mp4", "--n", 3, "--seed", 40)
    assert status == 0
    assert printed.split() == [str(tmp_path / f"out-{i}.mp4") for i in (1, 2, 3)]
    assert [stage.store.get(job).request.seed for job in stage.jobs()] == [40, 41, 42]


def test_json_says_what_was_made(stage: Stage, homereel: Run, tmp_path: Path) -> None:
    _, printed, _ = homereel("generate", "a ball", "-o", tmp_path / "out.mp4", "--n", 2, "--json")
    clips = [json.loads(line) for line in printed.splitlines()]
    assert [clip["path"] for clip in clips] == [str(tmp_path / "out-1.mp4"), str(tmp_path / "out-2.mp4")]
    assert clips[1]["seed"] == clips[0]["seed"] + 1
    assert {clip["status"] for clip in clips} == {"completed"}


def test_an_image_becomes_the_first_frame(stage: Stage, homereel: Run, tmp_path: Path) -> None:
    Image.new("RGB", (160, 96), "red").save(tmp_path / "first.png")
    homereel("generate", "a ball", "-o", tmp_path / "out.mp4", "--image", tmp_path / "first.png")
    (condition,) = stage.store.get(stage.jobs()[0]).request.conditions
    assert condition.frame == 0
    assert condition.path.read_bytes() == (tmp_path / "first.png").read_bytes()


@pytest.mark.parametrize("image", [False, True], ids=["as JSON", "as a form"])
def test_characters_and_whatever_else_a_request_takes_can_be_said(
    stage: Stage, homereel: Run, tmp_path: Path, image: bool
) -> None:
    Image.new("RGB", (160, 96), "red").save(tmp_path / "red.png")
    with Client(stage.url) as client, (tmp_path / "red.png").open("rb") as picture:
        files = {"image": ("red.png", picture, "image/png")}
        made = client._send("POST", "/v1/videos/characters", data={"name": "Mossy"}, files=files).json()
    pictured = ["--image", tmp_path / "red.png"] if image else []
    words = ["--character", made["id"], "--step-cache", "0.05", "--priority", "3", "--no-sound", *pictured]
    status, _, said = homereel("generate", "Mossy at night", "-o", tmp_path / "out.mp4", *words)
    assert status == 0, said
    job = stage.store.get(stage.jobs()[0])
    assert len(job.request.references) == 1
    assert job.priority == 3
    assert job.request.sound is False


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--last-image", "red.png"], "takes no picture for its last frame"),
        (["--lora", "grain:0.8", "--lora", "dust"], "LoRA"),
        (["--flow-shift", "5"], "does not let flow_shift be chosen"),
        (["--last-image", "gone.png"], "cannot read gone.png"),
    ],
)
def test_what_a_model_does_not_take_is_refused_by_the_server(
    stage: Stage, homereel: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (160, 96), "red").save("red.png")
    status, _, said = homereel("generate", "a ball", "-o", "out.mp4", "--model", "homereel-mini", *words)
    assert (status, sentence in said) == (2, True), said
    assert stage.jobs() == []


def test_the_prompt_may_come_from_a_file(stage: Stage, homereel: Run, tmp_path: Path) -> None:
    (tmp_path / "prompt.txt").write_text("a ball\n", encoding="utf-8")
    homereel("generate", "--file", tmp_path / "prompt.txt", "-o", tmp_path / "out.mp4")
    assert stage.store.get(stage.jobs()[0]).request.prompt == "a ball"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "give one prompt"),
        (["a ball", "--file", "prompt.txt"], "give one prompt"),
        (["--file", "no-such-file"], "cannot read the prompt from no-such-file"),
        (["a ball", "-o", "no-such-folder/out.mp4"], "a folder that exists"),
        (["a ball", "--image", "no-such-file"], "cannot read no-such-file"),
        (["a ball", "--n", "0"], "from 1 to 100"),
        (["a ball", "--seconds", "abc"], "seconds"),
        (["a ball", "--size", "7x7"], "size"),
        (["a ball", "--model", "nope"], "'nope' does not exist"),
        ([" "], "text is empty"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence_and_not_started(
    stage: Stage, homereel: Run, words: list[str], sentence: str
) -> None:
    status, printed, complaint = homereel("generate", *words)
    assert (status, printed) == (2, "")
    assert sentence in complaint
    assert "Traceback" not in complaint
    assert stage.jobs() == []


def test_a_video_that_fails_is_a_failure_with_its_reason(stage: Stage, homereel: Run, tmp_path: Path) -> None:
    stage.error = JobError("bad_output", "The model produced one flat colour.")
    status, printed, complaint = homereel("generate", "a ball", "-o", tmp_path / "out.mp4")
    assert (status, printed) == (1, "")
    assert "one flat colour" in complaint
    assert not (tmp_path / "out.mp4").exists()


def test_a_lost_file_leaves_nothing_half_written(
    stage: Stage, homereel: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(*_arguments: object) -> None: ...

    monkeypatch.setattr(AssetStore, "put", lose)
    status, _, complaint = homereel("generate", "a ball", "-o", tmp_path / "out.mp4")
    assert status == 1
    assert "Traceback" not in complaint
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def test_a_server_that_was_named_but_is_not_there_is_not_replaced(
    homereel: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOMEREEL_URL", "http://127.0.0.1:9")
    status, _, complaint = homereel("generate", "a ball", "-o", tmp_path / "out.mp4")
    assert status == 1
    assert "no Homereel server answers at http://127.0.0.1:9" in complaint


def test_ctrl_c_cancels_the_video(stage: Stage, tmp_path: Path) -> None:
    stage.works = False
    command = [sys.executable, "-P", "-m", "server.cli", "generate", "a ball", "-o", str(tmp_path / "out.mp4")]
    process = subprocess.Popen(
        command,
        env={**os.environ, "HOMEREEL_URL": stage.url},
        stderr=subprocess.PIPE,
        text=True,
        # Whoever runs the suite in the background ignores the signal, and a child inherits that.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509 - no threads yet
    )
    assert stage.looked_at.wait(60)
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in complaint
    (job,) = (stage.store.get(job) for job in stage.jobs())
    assert job.status is JobStatus.FAILED
    assert job.error is not None
    assert job.error.code == "cancelled"
