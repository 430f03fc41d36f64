"""Weights that are programs: pickles, and checkpoints that bring code. They are refused, and nothing of them runs."""

from __future__ import annotations

import contextlib
import json
import pickle
import shutil
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from pipelines.card import ModelCard
from pipelines.errors import WeightsMissing
from pipelines.plan import MemoryPlan
from pipelines.registry import family_of, load_registry
from pipelines.weights import Borrowed, OwnLora

ROOT = Path(__file__).parents[2]
PLAN = MemoryPlan("cpu", dtype="float32")


class Payload:
    """What unpickling this runs leaves a file behind."""

    def __init__(self, proof: Path) -> None:
        self._proof = proof

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._proof,)


@pytest.fixture
def proof(tmp_path: Path) -> Path:
    return tmp_path / "executed"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A copy of the model that ships with the project."""
    folder = tmp_path / "weights"
    shutil.copytree(str(files("pipelines.embedded")), folder, ignore=shutil.ignore_patterns("__pycache__", "*.py"))
    return folder


def card() -> ModelCard:
    return load_registry().cards["homereel-mini"]


def load(folder: Path) -> None:
    family_of(card()).load(card(), folder, PLAN).close()


def test_the_payload_works(proof: Path) -> None:
    pickle.loads(pickle.dumps(Payload(proof)))
    assert proof.exists()


PARTS = [
    ("transformer", "diffusion_pytorch_model.bin"), ("vae", "diffusion_pytorch_model.bin"),
    ("text_encoder", "pytorch_model.bin"), ("transformer", "diffusion_pytorch_model.fp16.bin"),
    ("transformer", "diffusion_pytorch_model.pt"), ("vae", "diffusion_pytorch_model.ckpt"),
]  # fmt: skip


@pytest.mark.parametrize(("part", "name"), PARTS)
def test_a_pickle_in_place_of_weights_is_not_opened(weights: Path, proof: Path, part: str, name: str) -> None:
    for safe in (weights / part).glob("*.safetensors"):
        safe.unlink()
    (weights / part / name).write_bytes(pickle.dumps(Payload(proof)))
    with pytest.raises(Exception, match=r"safetensors|no file|missing|Error"):
        load(weights)
    assert not proof.exists()


@pytest.mark.parametrize(("part", "name"), PARTS[:3])
def test_a_pickle_beside_weights_is_not_opened(weights: Path, proof: Path, part: str, name: str) -> None:
    (weights / part / name).write_bytes(pickle.dumps(Payload(proof)))
    load(weights)
    assert not proof.exists()


def test_a_pickle_with_a_safe_name_is_not_opened(weights: Path, proof: Path) -> None:
    for part in ("transformer", "vae", "text_encoder"):
        for safe in (weights / part).glob("*.safetensors"):
            safe.write_bytes(pickle.dumps(Payload(proof)))
    with pytest.raises(Exception, match=r".+"):
        load(weights)
    assert not proof.exists()


@pytest.mark.parametrize("name", ["transformer.gguf", "transformer.safetensors", "lora.safetensors"])
def test_a_pickle_in_place_of_what_a_card_borrows_is_not_opened(
    weights: Path, proof: Path, tmp_path: Path, name: str
) -> None:
    file = tmp_path / name
    file.write_bytes(pickle.dumps(Payload(proof)))
    borrowing: dict[str, Any] = {"borrowed": {file.stem: Borrowed(path=file)}}
    if file.stem == "lora":
        borrowing |= {"loras": (OwnLora(borrowed="lora", params=1),)}
    mine = card().model_copy(update={"weights": card().weights.model_copy(update=borrowing)})
    with pytest.raises(WeightsMissing, match=f"{name}.* cannot be used"):
        family_of(mine).load(mine, weights, PLAN)
    assert not proof.exists()


@pytest.mark.parametrize("place", ["model_index.json", "transformer/config.json", "text_encoder/config.json"])
def test_code_that_comes_with_weights_is_not_run(weights: Path, proof: Path, place: str) -> None:
    """Three ways in which checkpoints name classes of their own, with the file that defines them."""
    path = weights / place
    config = json.loads(path.read_text())
    program = f"from pathlib import Path\nPath({str(proof)!r}).touch()\nclass Evil: pass\n"
    for folder in (weights, weights / "transformer", weights / "text_encoder"):
        (folder / "evil.py").write_text(program)
        (folder / "pipeline.py").write_text(program)
    if place == "model_index.json":
        config["_class_name"] = ["evil", "Evil"]
        config["transformer"] = ["evil", "Evil"]
    config["auto_map"] = dict.fromkeys(("AutoModel", "AutoConfig", "Transformer2DModel"), "evil.Evil")
    config["custom_pipeline"] = "evil"
    path.write_text(json.dumps(config))
    # Whether it is refused or the names are ignored, nothing has run.
    with contextlib.suppress(Exception):
        load(weights)
    assert not proof.exists()


def test_no_card_can_ask_for_code_or_pickles(tmp_path: Path) -> None:
    plain = yaml.safe_load((ROOT / "configs/models/homereel-mini.yaml").read_text())
    assert ModelCard.model_validate(plain)
    for extra in ({"trust_remote_code": True}, {"custom_pipeline": "x"}, {"use_safetensors": False}):
        with pytest.raises(ValidationError):
            ModelCard.model_validate({**plain, **extra})
        with pytest.raises(ValidationError):
            ModelCard.model_validate({**plain, "weights": {**plain["weights"], **extra}})
    outside = ("../x.safetensors", "/x.safetensors", "a/../x.safetensors", "model.bin", "model.pt", "model.py")
    for name in outside:
        borrowed = {"thing": {"repo": "owner/name", "file": name}}
        with pytest.raises(ValidationError):
            ModelCard.model_validate({**plain, "weights": {**plain["weights"], "borrowed": borrowed}})


@pytest.mark.parametrize("family", ["../evil", "os", "a.b", "a/b", "", "__init__", "a-b", "A"])
def test_no_card_names_a_module_from_elsewhere(family: str) -> None:
    plain = yaml.safe_load((ROOT / "configs/models/homereel-mini.yaml").read_text())
    try:
        named = ModelCard.model_validate({**plain, "family": family})
    except ValidationError:
        return
    with pytest.raises(ModuleNotFoundError):
        family_of(named)


@pytest.mark.parametrize("text", ["!!python/object/apply:os.system ['true']", "!!python/name:os.system ''"])
def test_no_yaml_runs_anything(tmp_path: Path, text: str) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "evil.yaml").write_text(f"id: {text}\n")
    (tmp_path / "aliases.yaml").write_text("{}\n")
    with pytest.raises(yaml.YAMLError):
        load_registry(tmp_path)


DANGEROUS = [
    "pickle.load", "torch.load(", "yaml.load(", "yaml.unsafe", "trust_remote_code=True", "eval(", "exec(", "shell=True"
]  # fmt: skip


def test_nothing_in_the_sources_reads_pickles_or_runs_texts() -> None:
    for path in [*(ROOT / "server").rglob("*.py"), *(ROOT / "pipelines").rglob("*.py")]:
        text = path.read_text().replace(".eval()", "")
        assert [words for words in DANGEROUS if words in text] == [], path
