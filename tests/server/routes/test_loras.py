"""LoRAs of a request, by the names of files in a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fastapi.testclient import TestClient
from safetensors.torch import save_file

from pipelines.types import Lora
from server.deps import Services
from server.jobs import JobId
from server.store import JobStore
from tests.server.routes.conftest import refused

MODEL = "wan2.1-t2v-1.3b"


@pytest.fixture
def folder(services: Services) -> Path:
    folder = services.settings.loras_dir
    (folder / "styles").mkdir(parents=True)
    for name in ("grain", "styles/ink"):
        save_file({"blocks.0.lora_A.weight": torch.ones(2, 2)}, folder / f"{name}.safetensors")
    save_file({"blocks.0.weight": torch.ones(2, 2)}, folder / "whole.safetensors")
    (folder / "text.safetensors").write_text("no tensors")
    return folder


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("grain", [("grain", 1.0)]),
        ("grain:0.8", [("grain", 0.8)]),
        ("grain.safetensors:0.8", [("grain", 0.8)]),
        ("grain:0.8, styles/ink:-0.5", [("grain", 0.8), ("styles/ink", -0.5)]),
        (["grain", "styles/ink:2"], [("grain", 1.0), ("styles/ink", 2.0)]),
        ({"name": "grain", "weight": 0.5}, [("grain", 0.5)]),
        ([{"name": "grain"}], [("grain", 1.0)]),
    ],
)
def test_names_stand_for_files_and_weights(
    client: TestClient, store: JobStore, folder: Path, asked: Any, meant: list[tuple[str, float]]
) -> None:
    answer = client.post("/v1/videos", json={"prompt": "a ball", "model": MODEL, "lora": asked})
    assert answer.status_code == 200, answer.text
    loras = store.get(JobId(answer.json()["id"])).request.loras
    assert loras == tuple(Lora(name, folder / f"{name}.safetensors", weight) for name, weight in meant)


def test_a_repository_with_one_file_is_called_by_its_name(client: TestClient, store: JobStore, folder: Path) -> None:
    answer = client.post("/v1/videos", json={"prompt": "a ball", "model": MODEL, "lora": "styles:0.8"})
    assert answer.status_code == 200, answer.text
    assert store.get(JobId(answer.json()["id"])).request.loras == (
        Lora("styles", folder / "styles" / "ink.safetensors", 0.8),
    )
    save_file({"blocks.0.lora_A.weight": torch.ones(2, 2)}, folder / "styles" / "oil.safetensors")
    answer = client.post("/v1/videos", json={"prompt": "a ball", "model": MODEL, "lora": "styles"})
    assert refused(answer, 400)["code"] == "lora_not_found"


def test_forms_name_them_too(client: TestClient, store: JobStore, folder: Path) -> None:
    words = {"prompt": "a ball", "model": MODEL}
    for lora in ({"lora": "grain:0.8"}, {"lora[][name]": "grain", "lora[][weight]": "0.8"}):
        parts = {name: (None, value) for name, value in (words | lora).items()}
        answer = client.post("/v1/videos", files=parts)
        assert answer.status_code == 200, answer.text
    waiting = [store.get(job.id).request.loras for job in store.waiting()]
    assert waiting == [(Lora("grain", folder / "grain.safetensors", 0.8),)] * 2


@pytest.mark.parametrize(
    ("asked", "code", "words"),
    [
        ("other", "lora_not_found", "There are: grain, styles/ink, text, whole."),
        ("whole", "invalid_lora", "no LoRA"),
        ("text", "invalid_lora", "no LoRA"),
    ],
)
def test_what_is_none_is_refused(client: TestClient, folder: Path, asked: str, code: str, words: str) -> None:
    error = refused(client.post("/v1/videos", json={"prompt": "a ball", "model": MODEL, "lora": asked}))
    assert (error["param"], error["code"]) == ("lora", code)
    assert words in error["message"]


def test_a_link_leads_nowhere_else(client: TestClient, folder: Path, tmp_path: Path) -> None:
    save_file({"lora_A": torch.ones(1)}, tmp_path / "secret.safetensors")
    (folder / "link.safetensors").symlink_to(tmp_path / "secret.safetensors")
    error = refused(client.post("/v1/videos", json={"prompt": "a ball", "model": MODEL, "lora": "link"}))
    assert error["code"] == "lora_not_found"


def test_a_model_that_takes_none_says_which_do(create: Callable[..., str], client: TestClient, folder: Path) -> None:
    error = refused(client.post("/v1/videos", json={"prompt": "a ball", "model": "homereel-mini", "lora": "grain"}))
    assert error["param"] == "lora"
    assert MODEL in error["message"]
