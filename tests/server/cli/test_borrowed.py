"""Models whose weights are in several repositories: the real commands, against a hub on this machine."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from fastapi.testclient import TestClient
from gguf import GGUFWriter

from pipelines.registry import load_registry
from server.app import create_app
from server.settings import Settings
from tests.hub_server import Hub, serving
from tests.server.cli.pulling import Command, command_of
from tests.server.cli.test_pull import MODEL, NEEDED, REPO, SHARD, checkpoint, content, listed, said

LORAS, PARTS = "somebody/loras", "somebody/parts"
LORA, LORA_FILE = "few-steps", "Run-1/few_steps.safetensors"
SWAPPED, PART = "swapped", "upsampler"
# The part stands in for the checkpoint's own denoiser.
BORROWED: dict[str, dict[str, Any]] = {
    LORA: {"lora": {"repo": LORAS, "file": LORA_FILE}},
    SWAPPED: {"transformer": {"repo": PARTS, "folder": PART}},
}


@pytest.fixture
def hub() -> Iterator[Hub]:
    loras = {LORA_FILE: content(11), "Run-2/other.safetensors": content(12), "README.md": b"read me"}
    part = {
        f"{PART}/config.json": b"{}",
        f"{PART}/model.safetensors": content(13),
        f"{PART}/model.bin": b"a pickle",
        "model_index.json": b"no part of anything",
    }
    with serving(Hub(REPO, checkpoint(), {LORAS: loras, PARTS: part})) as served:
        yield served


@pytest.fixture
def cards(tmp_path: Path) -> dict[str, Path]:
    """Two cards beside the one that ships, which share its checkpoint."""
    folder = tmp_path / "data" / "models"
    folder.mkdir(parents=True)
    plain = load_registry().cards[MODEL].model_dump(mode="json", exclude_defaults=True)
    for name, borrowed in BORROWED.items():
        card = plain | {"id": name, "weights": plain["weights"] | {"borrowed": borrowed}}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(card))
    return {name: folder / f"{name}.yaml" for name in BORROWED}


@pytest.fixture
def homereel(hub: Hub, tmp_path: Path) -> Command:
    return command_of(hub, tmp_path)


def here(cache: Path) -> set[str]:
    """Return the files of the cache, each by its repository."""
    paths = (cache / "hf" / "hub").glob("models--*/snapshots/*/**/*")
    return {
        f"{path.relative_to(cache / 'hf' / 'hub').parts[0].removeprefix('models--')}:{path.name}"
        for path in paths
        if path.is_file()
    }


def freed(homereel: Command, model: str) -> dict[str, Any]:
    return said(homereel("rm", model, "--yes", "--json"))


@pytest.mark.usefixtures("cards")
def test_what_is_borrowed_is_looked_at_pulled_and_counted(homereel: Command, hub: Hub, tmp_path: Path) -> None:
    sizes = {name: len(hub.files[name]) for name in NEEDED}
    looked = said(homereel("pull", LORA, "--dry-run", "--json"))
    assert [told["repo"] for told in looked["repositories"]] == [REPO, LORAS]
    assert [told["files"] for told in looked["repositories"]] == [len(NEEDED), 1]
    lora = hub.beside[LORAS][LORA_FILE]
    assert looked["total_bytes"] == sum(sizes.values()) + len(lora)
    assert f"{LORAS} at " in homereel("pull", LORA, "--dry-run").stdout

    told = said(homereel("pull", LORA, "--json"))
    assert told["bytes"] == looked["total_bytes"]
    rows = {row["id"]: row for row in map(json.loads, homereel("list", "--json").stdout.splitlines())}
    # The card that borrows nothing has all it needs; the one that borrows something else has not.
    assert [rows[name]["installed"] for name in (MODEL, LORA, SWAPPED)] == [True, True, False]
    assert rows[LORA]["bytes"] - rows[MODEL]["bytes"] == len(lora)
    assert "somebody--loras:few_steps.safetensors" in here(tmp_path)
    assert "somebody--loras:other.safetensors" not in here(tmp_path)

    hub.ranges.clear()
    assert homereel("pull", LORA).returncode == 0
    assert not [name for name, _ in hub.ranges if name.endswith(".safetensors")]
    assert homereel("pull", LORA, HF_HUB_OFFLINE="1").returncode == 0


@pytest.mark.usefixtures("cards")
def test_what_stands_in_for_a_part_spares_its_weights(homereel: Command, tmp_path: Path) -> None:
    looked = said(homereel("pull", SWAPPED, "--dry-run", "--json"))
    shards = {name for name in NEEDED if name.startswith("transformer/") and name != "transformer/config.json"}
    assert [told["files"] for told in looked["repositories"]] == [len(NEEDED - shards), 2]
    assert homereel("pull", SWAPPED).returncode == 0
    there = here(tmp_path)
    assert "somebody--parts:model.safetensors" in there
    assert not [name for name in there if name.endswith((".bin", "-of-00002.safetensors"))]
    found = listed(homereel)
    assert (found[SWAPPED], found[MODEL], found[LORA]) == (True, False, False)
    # The whole one takes over what is there.
    assert said(homereel("pull", MODEL, "--dry-run", "--json"))["missing_bytes"] < 2 * len(content(1)) + 1000


@pytest.mark.usefixtures("cards")
def test_a_borrowed_file_goes_on_where_it_was_and_is_verified(homereel: Command, hub: Hub) -> None:
    name = f"{LORAS}/{LORA_FILE}"
    hub.beside[LORAS][LORA_FILE] = content(11) + bytes(24_000_000)
    hub.cut[name] = 16_000_000
    if homereel("pull", LORA).returncode:
        assert not listed(homereel)[LORA]
        assert homereel("pull", LORA).returncode == 0
    starts = [start for label, start in hub.ranges if label == name]
    assert starts[0] == 0
    assert 0 < starts[-1] <= 16_000_000

    assert homereel("rm", LORA, "--yes").returncode == 0
    hub.corrupt[name] = 99
    done = homereel("pull", LORA)
    assert (done.returncode, f"{LORA_FILE} of {LORAS} arrived damaged" in done.stderr) == (1, True)
    assert not listed(homereel)[LORA]


@pytest.mark.usefixtures("cards")
def test_a_borrowed_file_that_was_damaged_on_disk_is_seen_and_mended(
    homereel: Command, hub: Hub, tmp_path: Path
) -> None:
    assert homereel("pull", LORA).returncode == 0
    path = next((tmp_path / "hf").glob(f"**/snapshots/*/{LORA_FILE}"))
    blob = path.resolve()
    blob.write_bytes(blob.read_bytes()[:1000])
    assert "few_steps.safetensors" in doctored(homereel)["message"]
    assert homereel("pull", LORA).returncode == 0
    assert path.read_bytes() == hub.beside[LORAS][LORA_FILE]


def gated(hub: Hub) -> None:
    hub.gated = True


def without_file(hub: Hub) -> None:
    del hub.beside[LORAS][LORA_FILE]


def without_repository(hub: Hub) -> None:
    del hub.beside[LORAS]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (gated, "is gated: accept its licence"),
        (without_file, f"{LORAS} at revision main has no {LORA_FILE}, which {LORA} needs"),
        (without_repository, f"The hub has no {LORAS} at revision main"),
    ],
)
@pytest.mark.usefixtures("cards")
def test_what_cannot_be_borrowed_is_said_before_the_first_weight(
    homereel: Command, hub: Hub, change: Callable[[Hub], None], words: str
) -> None:
    change(hub)
    done = homereel("pull", LORA)
    assert (done.returncode, words in done.stderr) == (1, True), done.stderr
    assert not [name for name, _ in hub.ranges if name.endswith(".safetensors")]


@pytest.mark.usefixtures("cards")
def test_a_borrowed_part_of_pickles_is_refused(homereel: Command, hub: Hub) -> None:
    del hub.beside[PARTS][f"{PART}/model.safetensors"]
    done = homereel("pull", SWAPPED)
    assert (done.returncode, f"{PART} comes without safetensors" in done.stderr) == (1, True)


@pytest.mark.usefixtures("cards")
def test_removing_one_takes_nothing_from_another(homereel: Command, tmp_path: Path) -> None:
    for name in (LORA, SWAPPED):
        assert homereel("pull", name).returncode == 0
    everything = here(tmp_path)

    kept = freed(homereel, MODEL)
    assert (kept["freed_bytes"], kept["kept_for"]) == (0, [LORA, SWAPPED])
    assert "stays until they go" in homereel("rm", MODEL, "--yes").stdout
    assert here(tmp_path) == everything

    # Of the three, only this one has the LoRA.
    assert len(content(11)) <= freed(homereel, LORA)["freed_bytes"] < len(content(11)) + 1000
    assert everything - here(tmp_path) == {"somebody--loras:few_steps.safetensors"}
    assert listed(homereel)[MODEL]

    # The denoiser is needed by nobody else now; the one that has another in its place stays whole.
    assert freed(homereel, MODEL)["freed_bytes"] > 2 * len(content(1)) - 1
    found = listed(homereel)
    assert (found[SWAPPED], found[MODEL]) == (True, False)
    assert not [name for name in here(tmp_path) if SHARD.rpartition("/")[2] in name]

    assert freed(homereel, SWAPPED)["kept_for"] == []
    assert here(tmp_path) == set()
    assert not list((tmp_path / "hf" / "hub").glob("models--*/blobs/*"))


@pytest.mark.usefixtures("cards")
def test_a_branch_that_moves_on_for_one_leaves_another_whole(homereel: Command, hub: Hub, tmp_path: Path) -> None:
    assert homereel("pull", MODEL).returncode == 0
    hub.commit = "b" * 40
    hub.ranges.clear()
    assert homereel("pull", SWAPPED).returncode == 0
    assert {name for name, _ in hub.ranges if name.endswith(".safetensors")} == {f"{PARTS}/{PART}/model.safetensors"}
    found = listed(homereel)
    assert (found[SWAPPED], found[MODEL]) == (True, True)
    told = Path(said(homereel("pull", SWAPPED, "--json"))["path"])
    assert told.name == hub.commit

    # What is there under another commit counts: it is linked, and not fetched again.
    assert said(homereel("pull", MODEL, "--dry-run", "--json"))["missing_bytes"] < 1000
    hub.ranges.clear()
    assert Path(said(homereel("pull", MODEL, "--json"))["path"]).name == hub.commit
    assert not [name for name, _ in hub.ranges if name.endswith(".safetensors")]
    assert freed(homereel, SWAPPED)["kept_for"] == [MODEL]
    assert listed(homereel)[MODEL]
    assert freed(homereel, MODEL)["kept_for"] == []
    assert here(tmp_path) == set()


def test_a_folder_and_a_file_of_this_machine_can_be_borrowed(
    homereel: Command, cards: dict[str, Path], tmp_path: Path
) -> None:
    own = tmp_path / "own.safetensors"
    card = yaml.safe_load(cards[LORA].read_text())
    card["weights"]["borrowed"] = {"lora": {"path": str(own)}}
    cards[LORA].write_text(yaml.safe_dump(card))
    assert homereel("pull", MODEL).returncode == 0
    assert not listed(homereel)[LORA]
    done = homereel("pull", LORA)
    assert (done.returncode, f"A part of them was {own}" in done.stderr) == (1, True), done.stderr
    own.write_bytes(content(14))
    assert listed(homereel)[LORA]
    assert freed(homereel, LORA)["freed_bytes"] == 0
    assert own.exists()


def test_the_api_fetches_what_is_borrowed(
    hub: Hub, cards: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cards
    for name, value in hub.environment(tmp_path / "hf").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
    settings = Settings(data_dir=tmp_path / "data")
    with TestClient(create_app(settings, supervise=False), base_url="http://127.0.0.1") as client:
        app: Any = client.app
        assert client.post(f"/v1/models/{LORA}/pull", json={}).status_code == 202
        app.state.services.pulls._thread.join()
        assert client.get(f"/v1/models/{LORA}/pull").json()["status"] == "completed"
        assert client.get(f"/v1/models/{LORA}").status_code == 200
        refused = client.post(f"/v1/models/{LORA}/pull", json={})
        assert refused.json()["error"]["code"] == "model_installed"


def gguf(folder: Path, weights: int = 4, *, beside: bool = False) -> bytes:
    """Return a small GGUF file, with a tensor that is none of the denoiser's beside its own."""
    writer = GGUFWriter(folder / "made.gguf", "wan")
    if beside:
        writer.add_tensor("video_embeddings_connector.weight", np.ones((8, 64), dtype=np.float32))
    for index in range(weights):
        writer.add_tensor(f"blocks.{index}.weight", np.full((8, 32), index, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return (folder / "made.gguf").read_bytes()


def test_a_denoiser_in_a_gguf_file_is_all_of_it_that_is_fetched(
    homereel: Command, hub: Hub, cards: dict[str, Path], tmp_path: Path
) -> None:
    hub.beside[PARTS]["Q4/denoiser.gguf"] = gguf(tmp_path)
    card = yaml.safe_load(cards[SWAPPED].read_text())
    card["weights"]["borrowed"] = {"transformer": {"repo": PARTS, "file": "Q4/denoiser.gguf"}}
    cards[SWAPPED].write_text(yaml.safe_dump(card))
    assert homereel("pull", SWAPPED).returncode == 0
    there = here(tmp_path)
    assert "somebody--parts:denoiser.gguf" in there
    assert not [name for name in there if "-of-00002" in name]
    assert listed(homereel)[SWAPPED]
    assert "files whole" in doctored(homereel)["message"]

    blob = next((tmp_path / "hf").glob("**/snapshots/*/Q4/denoiser.gguf")).resolve()
    blob.write_bytes(blob.read_bytes()[:-100])
    assert "denoiser.gguf: is no GGUF file, or is cut short" in doctored(homereel)["message"]
    assert homereel("pull", SWAPPED).returncode == 0
    assert blob.read_bytes() == hub.beside[PARTS]["Q4/denoiser.gguf"]


def doctored(homereel: Command) -> dict[str, Any]:
    findings = map(json.loads, homereel("doctor", "--json").stdout.splitlines())
    return next(found for found in findings if found["check"] == "models")


def test_gguf_files_become_a_model_like_another(homereel: Command, cards: dict[str, Path], tmp_path: Path) -> None:
    own = tmp_path / "My-Own-Q4.gguf"
    own.write_bytes(gguf(tmp_path, beside=True))
    card = yaml.safe_load(cards[LORA].read_text())
    card["weights"].pop("borrowed")
    card["weights"]["components"]["transformer"]["params"] = 4 * 8 * 32
    cards[LORA].write_text(yaml.safe_dump(card))

    done = homereel("add", str(own), "--like", LORA, "--json")
    assert said(done) == {"model": "my-own-q4", "like": LORA}
    added = yaml.safe_load((tmp_path / "data" / "models" / "my-own-q4.yaml").read_text())["weights"]
    assert added["borrowed"] == {"transformer": {"path": str(own)}}
    assert added["repo"] == REPO
    size = len(own.read_bytes())
    stored = added["components"]["transformer"]["stored"]
    assert stored == {"bits": pytest.approx(8 * size / (1024 + 512), abs=0.001), "layer": 256}
    assert homereel("pull", "my-own-q4").returncode == 0
    assert listed(homereel)["my-own-q4"]
    assert homereel("rm", "my-own-q4").returncode == 0
    assert "my-own-q4" not in listed(homereel)
    # The rest is the other model's.
    assert any("--Wan2.1-T2V-1.3B-Diffusers:diffusion_pytorch_model.safetensors" in name for name in here(tmp_path))
    assert own.exists()


@pytest.mark.parametrize(
    ("words", "refusal"),
    [
        (("own.gguf",), "say --like"),
        (("own.gguf", "--like", MODEL), "has 0.00 billion weights; the transformer of wan2.1-t2v-1.3b has 1.42"),
        (("own.gguf", "own.gguf", "--like", MODEL), "has 1 denoisers"),
        (("torn.gguf", "--like", MODEL), "is no GGUF file, or is cut short"),
        (("own.gguf", ".", "--like", MODEL), "give one folder, or GGUF files"),
    ],
)
def test_a_file_that_cannot_be_a_model_says_why(
    homereel: Command, tmp_path: Path, words: tuple[str, ...], refusal: str
) -> None:
    (tmp_path / "own.gguf").write_bytes(gguf(tmp_path))
    (tmp_path / "torn.gguf").write_bytes(gguf(tmp_path)[:-100])
    named = [str(tmp_path / word) if word.endswith((".gguf", ".")) and word != MODEL else word for word in words]
    done = homereel("add", *named)
    assert (done.returncode, refusal in done.stderr) == (2, True), done.stderr
