"""A model that is here without what only its sizes in two stages need: the real commands, server and engine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from fastapi.testclient import TestClient

from pipelines.engine import generate
from pipelines.memory import Memory
from pipelines.shapes import FrameSize
from pipelines.types import Frames, GenerationRequest
from pipelines.weights import UPSAMPLER, Borrowed, Component, OwnLora
from server.app import create_app
from server.jobs import JobId
from server.residents import Residents
from server.settings import Settings
from tests.hub_server import Hub, serving
from tests.pipelines.families import test_ltx2_two_stages as family
from tests.server.cli.pulling import Command, command_of
from tests.server.cli.test_borrowed import doctored, freed, here
from tests.server.cli.test_pull import listed, said

MODEL, SIBLING = "tiny", "sibling"
REPO, UPSAMPLERS, LORAS = "somebody/tiny", "somebody/upsamplers", "somebody/loras"
LORA = "refining.safetensors"
SMALL, LARGE = "96x64", "192x128"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """The files of a real model, by their repositories."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("checkpoint")
    family.TestFull.build(folder)
    found: dict[str, dict[str, bytes]] = {REPO: {}, UPSAMPLERS: {}, LORAS: {}}
    for path in filter(Path.is_file, folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        repo = {UPSAMPLER: UPSAMPLERS, "lora": LORAS}.get(name.split("/")[0], REPO)
        found[repo][LORA if repo == LORAS else name] = path.read_bytes()
    return found


@pytest.fixture
def hub(files: dict[str, dict[str, bytes]]) -> Iterator[Hub]:
    with serving(Hub(REPO, files[REPO], {repo: files[repo] for repo in (UPSAMPLERS, LORAS)})) as served:
        yield served


@pytest.fixture
def homereel(hub: Hub, tmp_path: Path) -> Command:
    return command_of(hub, tmp_path)


@pytest.fixture(autouse=True)
def cards(tmp_path: Path) -> None:
    """A card of the model, and another whose LoRA the hub does not have."""
    plain = family.TestFull.card
    sizes = (FrameSize(width=96, height=64), FrameSize(width=192, height=128, stages=2))
    for name, repo in ((MODEL, LORAS), (SIBLING, "somebody/nothing")):
        borrowed = {
            UPSAMPLER: Borrowed(repo=UPSAMPLERS, folder=UPSAMPLER),
            "lora": Borrowed(repo=repo, file=LORA),
        }
        weights: dict[str, Any] = {
            "repo": REPO,
            "components": {part: Component(params=10**6, stage="denoise") for part in ("transformer", UPSAMPLER)},
            "borrowed": borrowed,
            "loras": (OwnLora(borrowed="lora", params=10**6, refines=True),),
        }
        changes: dict[str, Any] = {
            "id": name,
            "shape": plain.shape.model_copy(update={"sizes": sizes}),
            "weights": plain.weights.model_copy(update=weights),
            "memory": Memory(),
            "options": plain.options | {"stg_blocks": [1]},
        }
        path = tmp_path / "data" / "models" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(plain.model_copy(update=changes).model_dump(mode="json", exclude_defaults=True)))


def rows(homereel: Command) -> dict[str, Any]:
    return {row["id"]: row for row in map(json.loads, homereel("list", "--json").stdout.splitlines())}


def test_it_is_pulled_listed_completed_and_removed(
    homereel: Command, files: dict[str, dict[str, bytes]], tmp_path: Path
) -> None:
    whole = said(homereel("pull", MODEL, "--dry-run", "--json"))
    part = said(homereel("pull", MODEL, "--one-stage", "--dry-run", "--json"))
    rest = sum(len(content) for repo in (UPSAMPLERS, LORAS) for content in files[repo].values())
    assert [told["repo"] for told in whole["repositories"]] == [REPO, UPSAMPLERS, LORAS]
    assert [told["repo"] for told in part["repositories"]] == [REPO]
    assert whole["missing_bytes"] - rest == part["missing_bytes"] == whole["otherwise_missing_bytes"]
    assert part["otherwise_missing_bytes"] == whole["missing_bytes"]
    assert "(without --one-stage: " in homereel("pull", MODEL, "--one-stage", "--dry-run").stdout

    told = said(homereel("pull", MODEL, "--one-stage", "--json"))
    assert told["bytes"] == part["total_bytes"]
    assert {name.split(":")[0] for name in here(tmp_path)} == {"somebody--tiny"}
    row = rows(homereel)[MODEL]
    assert (row["installed"], row["sizes"], row["bytes"]) == (True, [SMALL], part["total_bytes"])
    assert f"{SIBLING}, {MODEL} installed" in doctored(homereel)["message"]
    assert homereel("pull", MODEL, "--one-stage", HF_HUB_OFFLINE="1").returncode == 0
    assert homereel("pull", MODEL, HF_HUB_OFFLINE="1").returncode == 1
    # Plans are made of what is not here, too.
    planned = said(homereel("plan", MODEL, "--size", LARGE, "--vram", "8GB", "--json"))
    assert planned["native_size"] == LARGE

    assert homereel("pull", MODEL).returncode == 0
    assert rows(homereel)[MODEL]["sizes"] == [SMALL, LARGE]
    # What the other one consists of here stays: its checkpoint, and nothing of a second stage.
    assert freed(homereel, MODEL)["kept_for"] == [SIBLING]
    assert {name.split(":")[0] for name in here(tmp_path)} == {"somebody--tiny"}
    assert listed(homereel)[SIBLING]
    (tmp_path / "data" / "models" / f"{SIBLING}.yaml").unlink()
    assert freed(homereel, MODEL)["kept_for"] == []
    assert here(tmp_path) == set()


def made(residents: Residents, request: GenerationRequest) -> Frames:
    """Return a clip as a worker makes it."""
    loaded = residents.bring(MODEL, request, lambda _share: None)
    clip = generate(loaded.pipeline, request, lambda _progress: None)
    frames = np.concatenate(list(clip.chunks))
    residents.rest()
    return frames


def test_a_running_server_makes_what_it_can_and_the_rest_once_that_is_here(
    homereel: Command, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in hub.environment(tmp_path / "hf").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
    settings = Settings(data_dir=tmp_path / "data")
    residents = Residents("cpu", settings)
    with TestClient(create_app(settings, supervise=False), base_url="http://127.0.0.1") as client:
        app: Any = client.app
        store = app.state.services.store
        post = partial(client.post, "/v1/videos")
        asked = {"model": MODEL, "prompt": "a ball", "num_frames": 17, "num_inference_steps": 2}
        assert post(json=asked).json()["error"]["code"] == "weights_missing"

        assert homereel("pull", MODEL, "--one-stage").returncode == 0
        assert client.get(f"/v1/models/{MODEL}").json()["sizes"] == [SMALL]
        small = post(json={**asked, "size": SMALL})
        assert small.status_code == 200, small.text
        refused = post(json={**asked, "size": LARGE})
        assert refused.status_code == 400
        assert refused.json()["error"] == {
            "message": f"{MODEL} is here in one stage, in which it makes {SMALL}. For {LARGE}, fetch the rest of it "
            f"with: homereel pull {MODEL}",
            "type": "invalid_request_error",
            "param": "size",
            "code": "unsupported_shape",
        }
        assert [job.id for job in store.waiting()] == [small.json()["id"]]
        assert made(residents, store.get(JobId(small.json()["id"])).request).shape[1:3] == (64, 96)

        assert client.post(f"/v1/models/{MODEL}/pull", json={"accept_licence": "LTX-2-Community"}).status_code == 202
        app.state.services.pulls._thread.join()
        assert client.get(f"/v1/models/{MODEL}").json()["sizes"] == [SMALL, LARGE]
        large = post(json={**asked, "size": LARGE})
        assert large.status_code == 200, large.text
        assert made(residents, store.get(JobId(large.json()["id"])).request).shape[1:3] == (128, 192)
    residents.clear()
