"""Commands that run a server of their own."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from pipelines.media import probe
from server.cli.client import Client
from server.cli.local import own_server
from server.cli.outcome import Failure
from tests.acceptance.serving import hurry


@pytest.fixture
def nobody_serves(tmp_path: Path) -> dict[str, str]:
    """An environment in which no server runs yet: its default port is one that was free just now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    inherited = {name: value for name, value in os.environ.items() if name not in {"HOMEREEL_URL", "OPENAI_BASE_URL"}}
    return {**inherited, "HOMEREEL_PORT": str(port), "HOMEREEL_DATA_DIR": str(hurry(tmp_path / "data"))}


def test_it_answers_and_is_gone_with_its_block(tmp_path: Path) -> None:
    # Tests of other things may have left helpers of this process's own.
    before = set(psutil.Process().children(recursive=True))
    with own_server(tmp_path) as url, Client(url) as client:
        assert client.alive()
        children = set(psutil.Process().children(recursive=True)) - before
        assert children
    assert not [child for child in children if child.is_running()]


def test_it_is_gone_with_its_owner_even_if_that_is_killed(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from server.cli.local import own_server\n"
        "with own_server(Path(sys.argv[1])): print('up', flush=True); sys.stdin.read()"
    )
    owner = subprocess.Popen(
        [sys.executable, "-P", "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert owner.stdout is not None
    assert owner.stdout.readline() == b"up\n"
    children = psutil.Process(owner.pid).children(recursive=True)
    assert children
    owner.kill()
    owner.communicate()
    _, alive = psutil.wait_procs(children, timeout=60)
    assert alive == []


def test_why_it_does_not_start_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Failure, match="cannot write to the data folder"), own_server(tmp_path / "file" / "data"):
        pass


def test_generate_makes_a_video_where_no_server_runs(tmp_path: Path, nobody_serves: dict[str, str]) -> None:
    words = ["generate", "a red ball moving left over a green field", "-o", "ball.mp4", "--seed", "7", "--json"]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "server.cli", *words],
        cwd=tmp_path,
        env=nobody_serves,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    clip = json.loads(done.stdout)
    assert (clip["status"], clip["seed"], clip["path"]) == ("completed", 7, str(tmp_path / "ball.mp4"))
    shape = probe(tmp_path / "ball.mp4").shape
    assert (shape.size, shape.frames, shape.fps) == (clip["size"], clip["num_frames"], clip["fps"])
