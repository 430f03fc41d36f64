"""LTX-2 with its denoiser from a GGUF file: the contract of its family, and what is peculiar to such files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch
from diffusers import GGUFQuantizationConfig, LTX2ConditionPipeline, LTX2VideoTransformer3DModel

from pipelines.accel.single_file import load_single
from pipelines.card import ModelCard
from pipelines.errors import WeightsMissing
from pipelines.weights import Borrowed
from tests.pipelines.families import test_ltx2 as whole
from tests.pipelines.families import test_ltx2_two_stages as two_stages
from tests.pipelines.families.making import tiny
from tests.pipelines.families.placing import PlacingContract
from tests.pipelines.families.published import ltx_gguf

# What LTX-2.3 added to the denoiser.
LATER = {
    "gated_attn": True, "cross_attn_mod": True, "audio_gated_attn": True, "audio_cross_attn_mod": True,
    "use_prompt_embeddings": False, "perturbed_attn": True,
}  # fmt: skip
CONNECTORS = {f"{kind}_embeddings_connector.learnable_registers": torch.ones(4, 32) for kind in ("video", "audio")}
# Rows of 32 weights are blocks of the simplest kind, rows of 256 of the usual one.
WIDE = {
    "attention_head_dim": 16, "cross_attention_dim": 32,
    "audio_attention_head_dim": 16, "audio_cross_attention_dim": 32,
}  # fmt: skip


def denoiser(**more: Any) -> LTX2VideoTransformer3DModel:
    small = {name: value for name, value in whole.transformer().config.items() if not name.startswith("_")}
    return LTX2VideoTransformer3DModel(**small | WIDE | more)


class Packed(whole.Ltx2Checkpoint):
    """The checkpoint has its denoiser's configuration, whose weights are in a file beside it."""

    more: Mapping[str, Any] = MappingProxyType({})
    denoiser_file = "borrowed/transformer.gguf"

    @classmethod
    def save(cls, folder: Path) -> None:
        super().save(folder)
        part = denoiser(**cls.more)
        part.save_config(folder / "transformer")
        for file in (folder / "transformer").glob("*.safetensors"):
            file.unlink()
        ltx_gguf(part, folder / cls.denoiser_file, beside=CONNECTORS if cls.more else None)

    @classmethod
    def here(cls, checkpoint: Path) -> ModelCard:
        card = super().here(checkpoint)
        borrowed = {**card.weights.borrowed, "transformer": Borrowed(path=checkpoint / cls.denoiser_file)}
        return card.model_copy(update={"weights": card.weights.model_copy(update={"borrowed": borrowed})})

    @classmethod
    def loaded(cls, folder: Path) -> Any:
        part = load_single(
            LTX2VideoTransformer3DModel, folder / cls.denoiser_file, folder / "transformer", torch.float32
        )
        pipe: Any = LTX2ConditionPipeline.from_pretrained(folder, dtype=torch.float32, transformer=part)
        pipe.set_progress_bar_config(disable=True)
        return pipe


class TestFirst(Packed, PlacingContract):
    """LTX-2, which diffusers reads by itself."""

    card = tiny("ltx-2-q4", whole.SIZES, whole.FRAMES, max_sequence_length=whole.TOKENS, stg_blocks=(1,))

    def test_layers_keep_the_bits_of_the_file(self, checkpoint: Path, pipeline: Any) -> None:
        part = pipeline._host.pipe.transformer
        # 32 weights in 34 bytes.
        weight = part.transformer_blocks[0].ff.net[2].weight
        assert (weight.dtype, weight.numel()) == (torch.uint8, 32 * 128 // 32 * 34)
        assert part.proj_in.weight.dtype == torch.float32
        assert "transformer.gguf" in pipeline.facts["weights"]

    def test_it_is_what_diffusers_reads(self, checkpoint: Path, pipeline: Any) -> None:
        config = GGUFQuantizationConfig(compute_dtype=torch.float32)
        whole_file: Any = LTX2VideoTransformer3DModel.from_single_file(
            str(checkpoint / self.denoiser_file),
            config=str(checkpoint),
            subfolder="transformer",
            quantization_config=config,
            dtype=torch.float32,
        )
        theirs, ours = whole_file.state_dict(), pipeline._host.pipe.transformer.state_dict()
        assert theirs.keys() == ours.keys()
        assert all(torch.equal(value, ours[name]) for name, value in theirs.items())


class TestLater(Packed):
    """LTX-2.3, whose files have more in them, some of it by names that diffusers does not know."""

    card = tiny("ltx-2.3-distilled-q4", whole.SIZES, whole.FRAMES, max_sequence_length=whole.TOKENS)
    more = LATER
    steps = 8

    def test_every_weight_is_where_it_belongs(self, tmp_path: Path) -> None:
        part = denoiser(**LATER)
        part.save_config(tmp_path / "transformer")
        file = ltx_gguf(part, tmp_path / "all.gguf", beside=CONNECTORS)
        loaded = load_single(LTX2VideoTransformer3DModel, file, tmp_path / "transformer", torch.float32)
        stored, meant = loaded.state_dict(), part.state_dict()
        assert stored.keys() == meant.keys()
        plain = {name for name, value in stored.items() if value.dtype == torch.float32}
        assert {name for name in meant if "prompt_adaln" in name or "table" in name} <= plain
        assert all(torch.equal(stored[name], meant[name]) for name in plain)

    @pytest.mark.parametrize(
        ("other", "words"),
        [({}, "expected shape"), (LATER | {"num_layers": 1}, "it lacks weights of this model")],
        ids=["the version before", "a layer less"],
    )
    def test_a_file_of_another_model_is_refused(self, tmp_path: Path, other: dict[str, Any], words: str) -> None:
        denoiser(**LATER).save_config(tmp_path / "transformer")
        file = ltx_gguf(denoiser(**other), tmp_path / "other.gguf")
        with pytest.raises(WeightsMissing, match=f"cannot be used as transformer: .*{words}"):
            load_single(LTX2VideoTransformer3DModel, file, tmp_path / "transformer", torch.float32)


class TestTwoStages(Packed, two_stages.Refined):
    """The LoRA of the second stage comes and goes beside weights that it cannot be put into."""

    card = tiny("ltx-2-q4", two_stages.SIZES, whole.FRAMES, stages=2, max_sequence_length=whole.TOKENS, stg_blocks=(1,))
