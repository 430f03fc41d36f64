"""``homereel keys`` while no server runs, and while one does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from server import database
from server.cli.client import Client
from server.cli.local import own_server
from server.cli.outcome import Failure
from server.jobs import NOBODY
from server.keys import SECRET, KeyStore
from server.settings import Settings
from tests.server.cli.conftest import Stage

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(homereel: Run, tmp_path: Path) -> Run:
    def in_folder(*words: object) -> tuple[int, str, str]:
        return homereel("keys", *words, "--data-dir", tmp_path / "data")

    return in_folder


def test_a_key_is_printed_alone_so_that_a_shell_can_take_it(run: Run) -> None:
    status, printed, said = run("create", "--name", "ann")
    assert status == 0
    assert SECRET.fullmatch(printed.removesuffix("\n"))
    assert "keep it now" in said
    assert "every request needs a key" in said
    assert printed.strip() not in said
    assert "every request needs a key" not in run("create")[2]


def test_the_list_shows_everything_but_secrets(run: Run) -> None:
    assert "no keys" in run("list")[1]
    secret = run("create", "--name", "[bold]ann\x1b[2J", "--rpm", "30", "--max-queued", 5)[1].strip()
    run("create")
    _, table, _ = run("list")
    assert "[bold]ann" in table
    assert f"…{secret[-4:]}" in table
    assert secret not in table
    assert all(json.loads(line)["id"] in table for line in run("list", "--json")[1].splitlines())
    assert "\x1b" not in table
    keys = [json.loads(line) for line in run("list", "--json")[1].splitlines()]
    assert [(key["requests_per_minute"], key["max_queued"]) for key in keys] == [(30, 5), (None, None)]
    assert not any("digest" in key or "secret" in key for key in keys)


def test_revoking_says_when_nobody_is_left(run: Run) -> None:
    ann, bob = (json.loads(run("create", "--json")[1])["id"] for _ in range(2))
    assert run("revoke", ann) == (0, f"{ann}\n", "")
    status, printed, said = run("revoke", "key_0", bob)
    assert (status, printed) == (1, f"{bob}\n")
    assert "there is no key key_0" in said
    assert "no key left" in said
    assert run("list")[1].count("revoked") == 2


@pytest.mark.parametrize(
    "words",
    [[], ["burn"], ["create", "--rpm", "0"], ["create", "--rpm", "-1"], ["create", "--max-queued", "many"], ["revoke"]],
)
def test_nonsense_is_misuse_and_makes_no_key(run: Run, words: list[str]) -> None:
    assert run(*words)[0] == 2
    assert run("list", "--json")[1] == ""


def test_there_must_be_somebody_to_adopt_from(run: Run) -> None:
    status, printed, said = run("create", "--adopt", "key_0")
    assert (status, printed) == (1, "")
    assert "key_0" in said


def test_a_database_that_cannot_be_opened_is_one_sentence(homereel: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"this is no database, whatever its name says" * 100)
    status, printed, said = homereel("keys", "list", "--store-url", f"sqlite:///{tmp_path}/file")
    assert (status, printed, said.count("\n")) == (1, "", 1)
    assert "cannot open the database" in said


def test_a_running_server_learns_of_keys_and_what_it_made_can_be_adopted(
    stage: Stage, homereel: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = ["--store-url", str(stage.store.engine.url)]
    with Client(stage.url) as client:
        orphan = client.create({"prompt": "made by nobody"})
    _, secret, said = homereel("keys", "create", *place)
    assert "1 videos made without a key are nobody's now" in said
    with Client(stage.url, secret.strip()) as client:
        assert client.create({"prompt": "mine"}).id
        with pytest.raises(Failure, match="no video"):
            client.retrieve(orphan.id)
    made = json.loads(homereel("keys", "create", "--adopt", "--json", *place)[1])
    assert made["adopted"] == 1
    with Client(stage.url, made["secret"]) as client:
        assert client.retrieve(orphan.id)[0].id == orphan.id
    # The commands of this terminal send the key that its environment names.
    monkeypatch.setenv("HOMEREEL_API_KEY", made["secret"])
    assert homereel("ps")[0] == 0


def test_a_server_that_others_can_reach_starts_with_a_key_only(homereel: Run, run: Run, tmp_path: Path) -> None:
    words = ("serve", "--host", "0.0.0.0", "--port", 0, "--data-dir", tmp_path / "data")
    status, _, complaint = homereel(*words)
    assert status == 2
    assert "homereel keys create" in complaint
    assert "HOMEREEL_INSECURE_NO_AUTH=true" in complaint
    engine = database.connect(Settings(data_dir=tmp_path / "data").database_url)
    assert KeyStore(engine).count_videos(NOBODY) == 0
    engine.dispose()


def test_a_server_of_a_commands_own_asks_for_the_key_too(run: Run, tmp_path: Path) -> None:
    secret = run("create")[1].strip()
    with own_server(tmp_path / "data") as url:
        with Client(url) as client, pytest.raises(Failure, match="HOMEREEL_API_KEY"):
            client.create({"prompt": "a ball"})
        with Client(url, secret) as client:
            assert list(client.open_videos()) == []
