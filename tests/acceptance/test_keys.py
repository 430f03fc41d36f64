"""Two people with keys and OpenAI's unmodified client, at a server that other machines can reach."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

import openai
import pytest

from tests.acceptance.serving import serving

pytestmark = pytest.mark.filterwarnings("ignore:The Sora API is scheduled:DeprecationWarning")


def homereel(data_dir: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "server.cli", *words, "--data-dir", str(data_dir)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def new_key(data_dir: Path, *words: str) -> str:
    made = homereel(data_dir, "keys", "create", *words)
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


@contextmanager
def two_people(base_url: str, data_dir: Path) -> Generator[tuple[openai.OpenAI, openai.OpenAI]]:
    """Yield their clients. The keys are made while the server runs."""
    keys = [new_key(data_dir, "--name", name) for name in ("ann", "bob")]
    clients = [openai.OpenAI(base_url=base_url, api_key=key, max_retries=0) for key in keys]
    with clients[0] as ann, clients[1] as bob:
        yield ann, bob


def test_two_keys_do_not_meet(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with serving(data_dir) as base_url, two_people(base_url, data_dir) as (ann, bob):
        made = ann.videos.create_and_poll(prompt="a red ball")
        assert made.status == "completed"
        attempts: list[Callable[[], object]] = [
            lambda: bob.videos.retrieve(made.id),
            lambda: bob.videos.download_content(made.id),
            lambda: bob.videos.remix(made.id, prompt="a blue ball"),
            lambda: bob.post("/videos/edits", body={"prompt": "x", "video": {"id": made.id}}, cast_to=object),
            lambda: bob.post(f"/videos/{made.id}/cancel", cast_to=object),
            lambda: bob.videos.delete(made.id),
        ]
        for attempt in attempts:
            with pytest.raises(openai.NotFoundError):
                attempt()
        assert bob.videos.list().data == []
        assert [video.id for video in ann.videos.list().data] == [made.id]
        assert len(ann.videos.download_content(made.id).read()) > 1000


def test_the_client_understands_what_it_is_refused(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with (
        serving(data_dir) as base_url,
        openai.OpenAI(base_url=base_url, api_key="anything", max_retries=0) as anybody,
    ):
        assert anybody.videos.list().data == []
        key = new_key(data_dir, "--rpm", "1")
        with openai.OpenAI(base_url=base_url, api_key=key, max_retries=0) as ann:
            ann.videos.create(prompt="a red ball")
            with pytest.raises(openai.RateLimitError) as limited:
                ann.videos.create(prompt="a blue ball")
            assert ann.videos.list().data
        with pytest.raises(openai.AuthenticationError) as unknown:
            anybody.videos.list()
    assert (limited.value.code, limited.value.status_code) == ("rate_limit_exceeded", 429)
    assert 0 < int(limited.value.response.headers["retry-after"]) <= 60
    assert (unknown.value.code, unknown.value.status_code) == ("invalid_api_key", 401)
    assert unknown.value.request_id


@contextmanager
def reachable(data_dir: Path) -> Generator[str]:
    """Serve on every address of this machine, by the real command; yield the first line that it prints."""
    command = [sys.executable, "-P", "-m", "server.cli", "serve", "--host", "0.0.0.0", "--port", "0"]
    command += ["--data-dir", str(data_dir), "--stop-with-stdin"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, text=True
    ) as server:
        yield cast("IO[str]", server.stdout).readline()
        cast("IO[str]", server.stdin).close()


def test_a_reachable_server_starts_with_a_key_and_opens_to_it_only(tmp_path: Path) -> None:
    refused = homereel(tmp_path, "serve", "--host", "0.0.0.0", "--port", "0")
    assert refused.returncode == 2
    assert "homereel keys create" in refused.stderr
    key = new_key(tmp_path)
    with reachable(tmp_path) as line:
        port = line.rpartition(":")[2].removesuffix("/v1\n")
        base_url = f"http://127.0.0.1:{port}/v1"
        with openai.OpenAI(base_url=base_url, api_key=key, max_retries=0) as ann:
            assert ann.videos.list().data == []
        with openai.OpenAI(base_url=base_url, api_key="anything", max_retries=0) as anybody:
            with pytest.raises(openai.AuthenticationError):
                anybody.videos.list()
            (made,) = (word for word in homereel(tmp_path, "keys", "list").stdout.split() if word.startswith("key_"))
            assert homereel(tmp_path, "keys", "revoke", made).returncode == 0
            # Without its last key such a server serves nobody, rather than everybody.
            with pytest.raises(openai.AuthenticationError):
                anybody.videos.list()
