"""The other verbs."""

import json
import re
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from server.cli.client import Client
from server.cli.serve import listening
from server.jobs import JobStatus
from server.settings import Settings
from tests.server.cli.conftest import Stage

Run = Callable[..., tuple[int, str, str]]


def test_without_a_verb_the_help_is_shown(homereel: Run) -> None:
    status, printed, _ = homereel()
    assert status == 0
    assert {"serve", "generate", "list", "ps", "cancel"} <= set(printed.split())


def test_an_unknown_verb_is_misuse(homereel: Run) -> None:
    status, _, complaint = homereel("genrate", "a ball")
    assert status == 2
    assert "genrate" in complaint


def test_list_shows_every_model_and_its_aliases(homereel: Run) -> None:
    _, printed, _ = homereel("list", "--json")
    models = {row["id"]: row for row in map(json.loads, printed.splitlines())}
    mini = models["homereel-mini"]
    assert (mini["licence"], mini["aliases"], mini["installed"]) == ("Apache-2.0", ["sora-2", "sora-2-pro"], True)
    assert mini["bytes"] > 20_000_000
    assert "revenue" in models["ltx-video-0.9.5"]["duties"][0]
    assert "160x96" in mini["sizes"]
    _, table, _ = homereel("list")
    assert "homereel-mini" in table


def test_ps_shows_workers_and_open_videos_in_their_order(stage: Stage, homereel: Run) -> None:
    with Client(stage.url) as client:
        done = client.create({"prompt": "done"})
        stage.works = False
        first, second = (client.create({"prompt": prompt}) for prompt in ("[bold]first\x1b[2J", "second"))
    stage.announce()
    _, printed, _ = homereel("ps", "--json")
    shown = json.loads(printed)
    assert [worker["device"] for worker in shown["workers"]] == ["cpu"]
    assert [video["id"] for video in shown["videos"]] == [first.id, second.id]
    _, table, _ = homereel("ps")
    assert re.search(r"cpu +idle +8\.0 of 16\.0 GiB +homereel-mini +float32, all on the device +in 1:\d\d", table)
    assert done.id not in table
    assert "[bold]first" in table
    assert first.id in table
    assert "\x1b" not in table


def test_cancel_stops_what_waits_and_says_what_it_could_not_stop(stage: Stage, homereel: Run) -> None:
    with Client(stage.url) as client:
        done = client.create({"prompt": "done"})
        stage.works = False
        waiting = client.create({"prompt": "waiting"})
    unknown = "video_" + "0" * 48
    status, printed, complaint = homereel("cancel", done.id, unknown, waiting.id)
    assert (status, printed) == (1, f"{waiting.id}\n")
    assert f"{done.id} was completed before" in complaint
    assert unknown in complaint
    job = stage.store.get(stage.jobs()[1])
    assert (job.status, job.error and job.error.code) == (JobStatus.FAILED, "cancelled")


@pytest.mark.parametrize("words", [["ps"], ["cancel", "video_1"]])
def test_verbs_that_need_a_server_say_so(homereel: Run, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    monkeypatch.setenv("HOMEREEL_URL", "http://127.0.0.1:9")
    status, _, complaint = homereel(*words)
    assert status == 1
    assert "start one with: homereel serve" in complaint


def test_serve_refuses_addresses_that_others_can_reach(homereel: Run, tmp_path: Path) -> None:
    status, _, complaint = homereel("serve", "--host", "0.0.0.0", "--data-dir", tmp_path)
    assert status == 2
    assert "homereel keys create" in complaint
    assert "--insecure-no-auth" in complaint


def test_serve_says_that_its_port_is_taken(homereel: Run, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        status, _, complaint = homereel("serve", "--port", port, "--data-dir", tmp_path)
    assert status == 1
    assert f"port {port} is taken" in complaint


def test_answers_do_not_wait_for_acknowledgements() -> None:
    with (
        listening(Settings(port=0)) as listener,
        socket.create_connection(listener.getsockname()),
        listener.accept()[0] as connection,
    ):
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_serve_says_which_option_is_wrong(homereel: Run) -> None:
    status, _, complaint = homereel("serve", "--max-queued", "many")
    assert status == 2
    assert "--max-queued" in complaint


def test_serve_says_that_it_cannot_write(homereel: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    status, _, complaint = homereel("serve", "--data-dir", tmp_path / "file" / "data")
    assert status == 1
    assert "cannot write to the data folder" in complaint
