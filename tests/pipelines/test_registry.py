from pathlib import Path

import pytest
from pydantic import ValidationError

from pipelines.errors import UnknownModel, WeightsMissing
from pipelines.registry import family_of, installed, load_registry, weights_folder

CARD = """
id: {id}
name: Test
description: A card.
family: ltx
licence: {{id: Apache-2.0, url: https://www.apache.org/licenses/LICENSE-2.0}}
weights: {weights}
shape: {{sizes: [{{width: 64, height: 64}}], fps: 8, frame_stride: 4, min_frames: 5, max_frames: 9,
  pixels_per_token: 32}}
sampling: {{num_inference_steps: 2, guidance_scale: 1.0}}
capabilities: [text]
created: 1
"""
HERE, ELSEWHERE = "{package: pipelines.embedded, revision: '1'}", "{repo: owner/name, revision: abc}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    for name, weights in (("here", HERE), ("elsewhere", ELSEWHERE)):
        (tmp_path / "models" / f"{name}.yaml").write_text(CARD.format(id=name, weights=weights))
    (tmp_path / "aliases.yaml").write_text("sora-2: [elsewhere, here]\nempty: [elsewhere]\n")
    return tmp_path


def test_an_alias_is_the_first_installed_card_of_its_list(folder: Path) -> None:
    registry = load_registry(folder)
    assert registry.find("sora-2").id == "here"
    assert registry.names() == ["sora-2", "empty", "elsewhere", "here"]


@pytest.mark.parametrize("name", ["nonsense", "", "../here"])
def test_a_name_that_nobody_has_is_unknown_and_says_which_would_work(folder: Path, name: str) -> None:
    with pytest.raises(UnknownModel, match=r"Models here: sora-2, here\.$") as caught:
        load_registry(folder).find(name)
    assert caught.value.param == "model"


@pytest.mark.parametrize("name", ["elsewhere", "empty"])
def test_a_known_model_without_weights_says_that_and_where_they_are(folder: Path, name: str) -> None:
    with pytest.raises(WeightsMissing) as caught:
        load_registry(folder).find(name)
    assert caught.value.message.startswith("The weights of elsewhere are not on this machine.")
    assert "owner/name at revision abc" in caught.value.message
    assert caught.value.param == "model"


def test_weights_of_a_repository_that_was_never_fetched_are_missing(folder: Path) -> None:
    card = load_registry(folder).cards["elsewhere"]
    assert not installed(card)
    with pytest.raises(WeightsMissing):
        weights_folder(card)


def test_a_broken_card_is_an_error_at_start_and_not_at_use(folder: Path) -> None:
    (folder / "models" / "here.yaml").write_text("id: here\n")
    with pytest.raises(ValidationError):
        load_registry(folder)


def test_every_shipped_card_names_a_family_that_exists() -> None:
    for card in load_registry().cards.values():
        assert family_of(card).__name__ == "Pipeline"


def test_the_hosted_names_work_out_of_the_box() -> None:
    registry = load_registry()
    assert registry.find("sora-2").id == registry.find("sora-2-pro").id == "homereel-mini"
