"""Models come and go: the real commands, against a hub on this machine."""

from __future__ import annotations

import json
import math
import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines import snapshot
from tests.hub_server import COMMIT, Hub, serving
from tests.server.cli.pulling import Command, command_of

REPO, MODEL = "Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "wan2.1-t2v-1.3b"
SHARD = "transformer/diffusion_pytorch_model-00002-of-00002.safetensors"
WEIGHTS = 300_000


def content(seed: int) -> bytes:
    """Return bytes that begin as a safetensors file does: one tensor."""
    header = json.dumps({"w": {"dtype": "F32", "shape": [WEIGHTS // 4], "data_offsets": [0, WEIGHTS]}}).encode()
    return len(header).to_bytes(8, "little") + header + random.Random(seed).randbytes(WEIGHTS)


def checkpoint() -> dict[str, bytes]:
    """Return the published layout, with much beside it that nobody needs."""
    shards = {f"w{n}": f"diffusion_pytorch_model-0000{n}-of-00002.safetensors" for n in (1, 2)}
    index = {
        "_class_name": "WanPipeline",
        "transformer": ["diffusers", "WanTransformer3DModel"],
        "transformer_2": [None, None],
        "vae": ["diffusers", "AutoencoderKLWan"],
        "scheduler": ["diffusers", "UniPCMultistepScheduler"],
    }
    return {
        "model_index.json": json.dumps(index).encode(),
        "transformer/config.json": b"{}",
        "transformer/diffusion_pytorch_model.safetensors.index.json": json.dumps({"weight_map": shards}).encode(),
        "transformer/diffusion_pytorch_model-00001-of-00002.safetensors": content(1),
        SHARD: content(2),
        "vae/config.json": b"{}",
        "vae/diffusion_pytorch_model.safetensors": content(3),
        "vae/diffusion_pytorch_model.fp16.safetensors": content(4),
        "vae/diffusion_pytorch_model.bin": b"a pickle",
        "scheduler/scheduler_config.json": b"{}",
        "README.md": b"read me",
        "assets/teaser.mp4": b"much",
    }


NEEDED = {name for name in checkpoint() if "fp16" not in name and name.endswith((".json", ".safetensors"))}


def partitions() -> dict[str, bytes]:
    """Return a modular pipeline's layout with two denoisers, of which a model has one."""
    names = {"transformer": "MiniMaxH3Transformer3DModel", "transformer_ref": "MiniMaxH3Transformer3DModel"}
    names["vae"] = "AutoencoderKLMiniMaxH3"
    places = {name: {"subfolder": name, "type_hint": ["diffusers", kind]} for name, kind in names.items()}
    index: dict[str, Any] = {name: ["diffusers", kind, places[name]] for name, kind in names.items()}
    # What was not loaded when the index was written has its class in one place only.
    index["vae"][:2] = [None, None]
    files = {"model_index.json": json.dumps({"_class_name": "MiniMaxH3ModularPipeline", **index}).encode()}
    for number, name in enumerate(names):
        files |= {f"{name}/config.json": b"{}", f"{name}/diffusion_pytorch_model.safetensors": content(number)}
    return files


@pytest.fixture
def hub(request: pytest.FixtureRequest) -> Iterator[Hub]:
    repo, files = getattr(request, "param", (REPO, checkpoint()))
    with serving(Hub(repo, files)) as served:
        yield served


@pytest.fixture
def homereel(hub: Hub, tmp_path: Path) -> Command:
    return command_of(hub, tmp_path)


def said(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def is_installed(tmp_path: Path) -> Callable[[], bool]:
    return lambda: not snapshot.missing(snapshot.snapshot_folder(tmp_path / "hf" / "hub", REPO, "main"))


def listed(homereel: Command, **environment: str) -> dict[str, bool]:
    rows = map(json.loads, homereel("list", "--json", **environment).stdout.splitlines())
    return {row["id"]: row["installed"] for row in rows}


def lora_repository() -> dict[str, bytes]:
    header = json.dumps({"blocks.0.lora_A.weight": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    lora = len(header).to_bytes(8, "little") + header + bytes(8)
    return {"README.md": b"read me", "grain.safetensors": lora, "old.bin": b"a pickle"}


@pytest.mark.parametrize("hub", [("somebody/film-grain", lora_repository())], indirect=True)
def test_a_lora_is_fetched_into_the_folder_that_requests_name(homereel: Command, hub: Hub, tmp_path: Path) -> None:
    hub.corrupt["grain.safetensors"] = 1
    told = said(homereel("pull", "somebody/film-grain", "--lora", "--json"))
    assert told["lora"] == "somebody/film-grain/grain"
    path = tmp_path / "data" / "loras" / "somebody" / "film-grain" / "grain.safetensors"
    assert path.read_bytes() == hub.files["grain.safetensors"]
    assert not path.is_symlink()

    hub.files |= {"whole.safetensors": content(1), "../../out.safetensors": content(2)}
    done = homereel("pull", "somebody/film-grain", "--lora")
    assert (done.returncode, "There are: grain.safetensors, whole.safetensors" in done.stderr) == (1, True)
    done = homereel("pull", "somebody/film-grain", "--lora", "--file", "whole.safetensors")
    assert (done.returncode, "is no LoRA" in done.stderr) == (1, True)
    assert homereel("pull", "somebody/film-grain", "--lora", "--file", "../../out.safetensors").returncode == 1
    assert [found.name for found in (tmp_path / "data").rglob("*.safetensors")] == ["grain.safetensors"]
    assert homereel("pull", "film-grain", "--lora").returncode == 2


def test_another_revision_is_used_from_then_on_until_the_cards_own_is_fetched(
    homereel: Command, tmp_path: Path
) -> None:
    own = tmp_path / "data" / "models" / f"{MODEL}.yaml"
    done = homereel("pull", MODEL, "--revision", COMMIT)
    assert (done.returncode, f"is used at revision {COMMIT} now" in done.stderr) == (0, True)
    assert yaml.safe_load(own.read_text())["weights"]["revision"] == COMMIT
    assert listed(homereel)[MODEL]
    assert homereel("pull", MODEL, "--revision", "main").returncode == 0
    assert not own.exists()
    assert homereel("pull", MODEL, "--revision", "../main").returncode == 2


def test_the_list_says_how_small_a_gpu_may_be(homereel: Command) -> None:
    rows = {row["id"]: row for row in map(json.loads, homereel("list", "--json").stdout.splitlines())}
    least = [rows[name]["vram_bytes"] for name in ("homereel-mini", MODEL, "wan2.1-t2v-14b")]
    assert 2**30 < least[0] < least[1] < least[2] < 24 * 2**30
    line = next(line for line in homereel("list").stdout.splitlines() if line.startswith(MODEL))
    assert f"from {math.ceil(least[1] / 2**30)} GiB" in line


@pytest.mark.parametrize("hub", [("MiniMaxAI/MiniMax-H3", partitions())], indirect=True)
def test_what_a_model_does_without_is_not_fetched(homereel: Command) -> None:
    folder = Path(said(homereel("pull", "minimax-h3-ref", "--json"))["path"])
    assert {path.name for path in folder.iterdir()} == {"model_index.json", "transformer_ref", "vae"}
    there = listed(homereel)
    assert there["minimax-h3-ref"]
    assert not there["minimax-h3"]


def test_a_model_is_looked_at_pulled_listed_and_removed(
    homereel: Command, hub: Hub, is_installed: Callable[[], bool]
) -> None:
    looked = said(homereel("pull", MODEL, "--dry-run", "--json"))
    total = sum(len(hub.files[name]) for name in NEEDED)
    assert (looked["files"], looked["total_bytes"]) == (len(NEEDED), total)
    assert looked["missing_bytes"] < total  # the index has been read
    assert not is_installed()

    folder = Path(said(homereel("pull", MODEL, "--json"))["path"])
    assert listed(homereel)[MODEL]
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert there == NEEDED
    assert all((folder / name).read_bytes() == hub.files[name] for name in NEEDED)
    assert is_installed()

    hub.ranges.clear()
    again = homereel("pull", MODEL)
    assert again.returncode == 0
    assert not [name for name, _ in hub.ranges if name != "model_index.json"]
    assert "is here" in homereel("pull", MODEL, HF_HUB_OFFLINE="1").stdout

    removed = homereel("rm", MODEL, "--yes")
    assert removed.returncode == 0, removed.stderr
    assert "are free now" in removed.stdout
    assert not is_installed()
    assert not list(folder.parent.parent.rglob("*.safetensors"))


def test_a_transfer_that_breaks_goes_on_where_it_was(
    homereel: Command, hub: Hub, is_installed: Callable[[], bool]
) -> None:
    # What has arrived is written in pieces of ten million bytes.
    hub.files[SHARD] = content(2) + bytes(24_000_000)
    hub.cut[SHARD] = 16_000_000
    first = homereel("pull", MODEL)
    if first.returncode:
        assert "try again" in first.stderr
        assert not is_installed()
        assert homereel("pull", MODEL).returncode == 0
    starts = [start for name, start in hub.ranges if name == SHARD]
    assert starts[0] == 0
    assert 0 < starts[-1] <= 16_000_000
    assert is_installed()


def test_a_shard_that_arrives_damaged_is_fetched_again(homereel: Command, hub: Hub) -> None:
    hub.corrupt[SHARD] = 1
    folder = Path(said(homereel("pull", MODEL, "--json"))["path"])
    assert (folder / SHARD).read_bytes() == hub.files[SHARD]
    assert [name for name, _ in hub.ranges].count(SHARD) == 2


def test_a_shard_that_stays_damaged_is_not_kept(homereel: Command, hub: Hub, is_installed: Callable[[], bool]) -> None:
    hub.corrupt[SHARD] = 99
    done = homereel("pull", MODEL)
    assert done.returncode == 1
    assert "damaged" in done.stderr
    assert not is_installed()


def test_a_gated_model_says_where_its_licence_is_accepted(homereel: Command, hub: Hub) -> None:
    hub.gated, hub.token = True, "hf_secret"
    done = homereel("pull", MODEL)
    assert done.returncode == 1
    assert f"https://huggingface.co/{REPO}" in done.stderr
    assert "hf auth login" in done.stderr
    assert homereel("pull", MODEL, HF_TOKEN="hf_secret", HF_HUB_DISABLE_IMPLICIT_TOKEN="0").returncode == 0


def test_an_unknown_repository_and_an_unknown_model_are_told_apart(homereel: Command, hub: Hub) -> None:
    done = homereel("pull", "wan2.1-t2v-14b")
    assert (done.returncode, "hub has no Wan-AI/Wan2.1-T2V-14B-Diffusers" in done.stderr) == (1, True)
    done = homereel("pull", "nonsense")
    assert (done.returncode, "there is no model 'nonsense'" in done.stderr) == (2, True)
    assert hub.ranges == []


def test_a_disk_without_room_is_noticed_before_the_first_byte(homereel: Command, hub: Hub) -> None:
    hub.files["vae/diffusion_pytorch_model.safetensors"] = b""
    sizes, hub_info = 10**16, hub.info

    def huge(repo: str = "") -> dict[str, object]:
        info: Any = hub_info(repo)
        for sibling in info["siblings"]:
            sibling["size"] = sizes
        return info

    hub.info = huge
    done = homereel("pull", MODEL)
    assert done.returncode == 1
    assert "Make room" in done.stderr
    assert [name for name, _ in hub.ranges if name != "model_index.json"] == []


def test_weights_that_are_programs_are_not_fetched(homereel: Command, hub: Hub) -> None:
    del hub.files["vae/diffusion_pytorch_model.safetensors"]
    del hub.files["vae/diffusion_pytorch_model.fp16.safetensors"]
    done = homereel("pull", MODEL)
    assert done.returncode == 1
    assert "vae comes without safetensors" in done.stderr
    assert not [name for name, _ in hub.ranges if name.endswith((".bin", ".safetensors"))]


def test_without_a_hub_the_cache_is_enough(homereel: Command) -> None:
    assert homereel("pull", MODEL).returncode == 0
    assert listed(homereel, HF_HUB_OFFLINE="1", HF_ENDPOINT="http://127.0.0.1:9")[MODEL]
    done = homereel("pull", "wan2.1-t2v-14b", HF_ENDPOINT="http://127.0.0.1:9")
    assert (done.returncode, "cannot be fetched" in done.stderr) == (1, True)


def test_a_file_that_was_taken_away_makes_the_model_incomplete(
    homereel: Command, is_installed: Callable[[], bool]
) -> None:
    folder = Path(said(homereel("pull", MODEL, "--json"))["path"])
    (folder / SHARD).resolve().unlink()
    assert not is_installed()
    assert homereel("pull", MODEL).returncode == 0
    assert is_installed()


@pytest.mark.parametrize("damage", ["shorter", "another byte"])
def test_what_was_damaged_on_disk_is_fetched_again(homereel: Command, hub: Hub, damage: str) -> None:
    folder = Path(said(homereel("pull", MODEL, "--json"))["path"])
    blob = (folder / SHARD).resolve()
    whole = blob.read_bytes()
    blob.write_bytes(whole[:1000] if damage == "shorter" else whole[:-1] + bytes([whole[-1] ^ 1]))
    hub.ranges.clear()
    assert homereel("pull", MODEL).returncode == 0
    assert (folder / SHARD).read_bytes() == hub.files[SHARD]
    assert {name for name, _ in hub.ranges} <= {SHARD, "model_index.json"}


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, bytes_ in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes_)
    return folder


def test_a_folder_becomes_a_model_and_is_left_alone_when_it_goes(homereel: Command, tmp_path: Path) -> None:
    folder = write(tmp_path / "My Own", {name: bytes_ for name, bytes_ in checkpoint().items() if name in NEEDED})
    done = homereel("add", str(folder))
    assert (done.returncode, done.stdout.startswith("my-own is a model now, like wan2.1-t2v-1.3b")) == (0, True)
    assert listed(homereel)["my-own"]
    assert homereel("add", str(folder)).returncode == 2
    assert homereel("add", str(folder), "--name", "other", "--like", "wan2.1-t2v-14b").returncode == 0
    assert homereel("rm", "my-own").returncode == 0
    assert (folder / SHARD).exists()
    assert "my-own" not in homereel("list").stdout


@pytest.mark.parametrize("has_upsampler", [False, True])
def test_a_folder_is_made_in_two_stages_where_it_has_what_that_takes(
    homereel: Command, tmp_path: Path, has_upsampler: bool
) -> None:
    files = {name: bytes_ for name, bytes_ in checkpoint().items() if name in NEEDED}
    files["model_index.json"] = files["model_index.json"].replace(b"WanPipeline", b"LTX2Pipeline")
    if has_upsampler:
        files |= {"latent_upsampler/config.json": b"{}", "latent_upsampler/model.safetensors": content(3)}
    folder = write(tmp_path / "own", files)
    assert homereel("add", str(folder), "--like", "ltx-2-distilled").returncode == 0
    assert listed(homereel)["own"]
    card = yaml.safe_load((tmp_path / "data" / "models" / "own.yaml").read_text())
    weights = card["weights"]
    # As many as there are, and not as the model has that it is like.
    assert weights["components"]["transformer"]["params"] == 2 * WEIGHTS // 4
    assert any(size.get("stages") == 2 for size in card["shape"]["sizes"]) == has_upsampler
    assert ("refine_steps" in card["sampling"]) == ("latent_upsampler" in weights["components"]) == has_upsampler
    expected = {"latent_upsampler": {"path": str(folder / "latent_upsampler")}} if has_upsampler else {}
    assert weights.get("borrowed", {}) == expected


def test_what_a_folder_is_like_is_found_out_where_the_model_borrows_for_large_sizes_alone(
    homereel: Command, tmp_path: Path
) -> None:
    files = {name: bytes_ for name, bytes_ in checkpoint().items() if name in NEEDED}
    files["model_index.json"] = files["model_index.json"].replace(b"WanPipeline", b"LTX2Pipeline")
    done = homereel("add", str(write(tmp_path / "own", files)), "--json")
    assert json.loads(done.stdout)["like"].startswith("ltx-2")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({SHARD: None}, "lacks transformer/"),
        ({"model_index.json": None}, "lacks model_index.json"),
        ({"vae/diffusion_pytorch_model.bin": b"a pickle"}, "vae/diffusion_pytorch_model.bin is pickled"),
        ({"vae/model.py": b"import os"}, "vae/model.py is a program"),
        ({"vae/config.json": b'{"auto_map": {"AutoModel": "model.Vae"}}'}, "vae/config.json names a program"),
        ({"model_index.json": b'{"_class_name": "X", "vae": ["own_module", "Vae"]}'}, "vae is made by own_module"),
        ({"model_index.json": b'{"_class_name": "X", "../../vae": ["diffusers", "Vae"]}'}, "no name of a part"),
        ({"model_index.json": b"{"}, "lacks a sound model_index.json"),
        ({SHARD: content(2)[:-7]}, "00002-of-00002.safetensors 7 bytes are missing"),
        ({SHARD: b"not tensors at all"}, "is no safetensors file"),
        ({"model_index.json": b'{"_class_name": "OtherPipeline"}'}, "OtherPipeline is made by no model here"),
    ],
)
def test_a_folder_that_cannot_be_a_model_says_why(
    homereel: Command, tmp_path: Path, change: dict[str, bytes | None], words: str
) -> None:
    files = {name: bytes_ for name, bytes_ in checkpoint().items() if name in NEEDED} | change
    folder = write(tmp_path / "own", {name: bytes_ for name, bytes_ in files.items() if bytes_ is not None})
    done = homereel("add", str(folder))
    assert (done.returncode, words in done.stderr) == (2, True), done.stderr


def test_a_card_that_cannot_be_read_is_said_and_passed_over(homereel: Command, tmp_path: Path) -> None:
    write(tmp_path / "data" / "models", {"a.yaml": b"id: [", "b.yaml": b"id: b", "c.yaml": b"- 1"})
    done = homereel("list", "--json")
    assert (done.returncode, MODEL in done.stdout) == (0, True)
    assert [line.count(f"{tmp_path}") for line in done.stderr.splitlines()] == [1, 1, 1], done.stderr


def test_what_is_a_part_of_the_program_cannot_be_pulled_or_removed(homereel: Command) -> None:
    assert "comes from no hub" in homereel("pull", "homereel-mini").stderr
    assert "a part of this program" in homereel("rm", "homereel-mini", "--yes").stderr


def test_nothing_is_removed_unless_somebody_agrees(homereel: Command) -> None:
    done = homereel("rm", MODEL)
    assert (done.returncode, "--yes" in done.stderr) == (2, True)
