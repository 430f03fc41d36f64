"""Wan with denoisers from GGUF files: the contract of its family, and what is peculiar to them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import GGUFQuantizationConfig, WanTransformer3DModel
from PIL import Image

from pipelines.base import VideoPipeline
from pipelines.card import ModelCard
from pipelines.errors import UnsupportedOption, WeightsMissing
from pipelines.families.wan import Pipeline
from pipelines.plan import MemoryPlan, Offload, Quantisation
from pipelines.types import GenerationRequest
from pipelines.weights import Borrowed
from tests.pipelines.families import test_wan as whole
from tests.pipelines.families import test_wan_distilled as distilled
from tests.pipelines.families.checkpoints import CPU
from tests.pipelines.families.contract import FamilyContract
from tests.pipelines.families.making import tiny
from tests.pipelines.families.placing import PlacingContract
from tests.pipelines.families.published import wan_gguf

# Rows of 32 weights are blocks of the simplest kind, rows of 256 of the usual one.
WIDE = {"attention_head_dim": 16, "ffn_dim": 256}


def placed(card: ModelCard, folder: Path) -> ModelCard:
    """Return the card with what it borrows in a folder."""
    found = {
        name: Borrowed(path=next((folder / "borrowed").glob(f"{name}.*"), folder / name))
        for name in card.weights.borrowed
    }
    return card.model_copy(update={"weights": card.weights.model_copy(update={"borrowed": found})})


class Packed(whole.WanCheckpoint):
    """The checkpoint has configurations of its denoisers, whose weights are in files beside it.

    A card in such weights is one of those in ``test_wan.py``: what packing them changes wherever they are, or go, is
    shown of the first kind here.
    """

    base: Any = whole.TestText
    seen: int | None = None
    denoiser_file = "borrowed/transformer.gguf"

    @classmethod
    def parts(cls) -> dict[str, Any]:
        parts = dict(cls.base.parts())
        for name in parts:
            if name.startswith("transformer"):
                parts[name] = whole.transformer(seen=cls.seen, **WIDE | cls.more())
        return parts

    @classmethod
    def more(cls) -> dict[str, Any]:
        return {}

    @classmethod
    def build(cls, folder: Path) -> None:
        super().build(folder)
        for name in ("transformer", "transformer_2"):
            for file in (folder / name).glob("*.safetensors"):
                part = WanTransformer3DModel.from_pretrained(folder / name)
                file.unlink()
                (folder / "borrowed").mkdir(exist_ok=True)
                wan_gguf(part, folder / "borrowed" / f"{name}.gguf")

    @classmethod
    def load(cls, checkpoint: Path, plan: MemoryPlan = CPU) -> VideoPipeline[Any, Any]:
        return Pipeline.load(placed(cls.card, checkpoint), checkpoint, plan)

    @classmethod
    def loaded(cls, folder: Path, kind: Any = None) -> Any:
        config = GGUFQuantizationConfig(compute_dtype=torch.float32)
        parts = {
            file.stem: WanTransformer3DModel.from_single_file(
                str(file), config=str(folder), subfolder=file.stem, quantization_config=config, dtype=torch.float32
            )
            for file in (folder / "borrowed").glob("*.gguf")
        }
        pipe = (kind or cls.kind).from_pretrained(folder, dtype=torch.float32, **parts)
        pipe.set_progress_bar_config(disable=True)
        return pipe


class TestTwoExperts(Packed, FamilyContract):
    card = tiny("wan2.2-t2v-a14b-q4", whole.SIZES, whole.FRAMES, max_sequence_length=whole.TOKENS)
    base = whole.TestTwoExperts
    shift = 5.0

    @pytest.mark.parametrize("name", ["transformer", "transformer_2"])
    def test_layers_keep_the_bits_of_the_file(self, checkpoint: Path, pipeline: Any, name: str) -> None:
        part = getattr(pipeline._host.pipe, name)
        weight = part.blocks[0].attn1.to_q.weight
        # 32 weights in 34 bytes.
        assert (weight.dtype, weight.numel()) == (torch.uint8, 32 * 34)
        assert part.blocks[0].ffn.net[2].weight.numel() == 32 * 144
        assert part.patch_embedding.weight.dtype == torch.float32
        assert not list((checkpoint / name).glob("*.safetensors"))
        assert "transformer.gguf" in pipeline.facts["weights"]

    def test_one_layer_at_a_time_makes_the_same_clip(self, checkpoint: Path, album: Path, usual: Any) -> None:
        loaded = self.load(checkpoint, MemoryPlan("cpu", "float32", Quantisation.GGUF, Offload.SEQUENTIAL))
        assert (self.made(loaded, self.wish(album)) == usual).all()
        assert loaded.facts["quantisation"] == "gguf"
        loaded.close()

    def test_it_computes_in_what_the_plan_says(self, checkpoint: Path, album: Path) -> None:
        loaded: Any = self.load(checkpoint, MemoryPlan("cpu", "bfloat16", Quantisation.GGUF))
        assert loaded._host.pipe.transformer.blocks[0].attn1.to_q.compute_dtype == torch.bfloat16
        assert loaded._host.pipe.transformer.patch_embedding.weight.dtype == torch.bfloat16
        assert self.made(loaded, self.wish(album)).std() > 0
        loaded.close()

    @pytest.mark.parametrize(
        ("plan", "words"),
        [
            (MemoryPlan("cpu", quantisation=Quantisation.FP8), "come quantised"),
            (MemoryPlan("cpu", quantisation=Quantisation.INT8), "come quantised"),
            (MemoryPlan("cpu", offload=Offload.DISK), "cannot be kept on the disk"),
        ],
    )
    def test_what_cannot_be_done_to_such_weights_is_said(self, checkpoint: Path, plan: MemoryPlan, words: str) -> None:
        with pytest.raises(UnsupportedOption, match=words):
            self.load(checkpoint, plan)


class TestImageWithTwoExperts(Packed):
    card = tiny("wan2.2-i2v-a14b-q4", whole.SIZES, whole.FRAMES, max_sequence_length=whole.TOKENS)
    kind = whole.TestImageWithTwoExperts.kind
    base = whole.TestImageWithTwoExperts
    seen = 36
    shift = 5.0


class TestEither(Packed):
    card = tiny("wan2.2-ti2v-5b-q4", whole.SIZES_OF_5B, whole.FRAMES, max_sequence_length=whole.TOKENS)
    base = whole.TestEither
    shift = 5.0

    @classmethod
    def more(cls) -> dict[str, Any]:
        return {"channels": 48}


class TestImage(Packed):
    card = tiny("wan2.1-i2v-14b-480p-q4", whole.SIZES, whole.FRAMES, max_sequence_length=whole.TOKENS)
    kind = whole.TestImage.kind
    base = whole.TestImage
    seen = 36

    @classmethod
    def more(cls) -> dict[str, Any]:
        return {"image_dim": 4}


class TestText(Packed):
    card = tiny("wan2.1-t2v-14b-q4", whole.SIZES, whole.FRAMES, max_sequence_length=whole.TOKENS)
    shift = 5.0

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda content: b"", "cannot be used as transformer"),
            (lambda content: b"GGUF" + bytes(100), "cannot be used as transformer"),
            (lambda content: b"GGUF\x03\0\0\0" + b"\xff" * 16 + content[24:], "cannot be used as transformer"),
            (lambda content: content[: len(content) // 2], "cannot be used as transformer"),
            (lambda content: b"\x80\x04\x95" + content, "cannot be used as transformer"),
        ],
        ids=["empty", "zeros", "endless", "cut short", "pickle"],
    )
    def test_a_file_that_is_none_is_said_to_be_so(
        self, checkpoint: Path, tmp_path: Path, change: Any, words: str
    ) -> None:
        file = tmp_path / "transformer.gguf"
        file.write_bytes(change((checkpoint / "borrowed" / "transformer.gguf").read_bytes()))
        self.refused(checkpoint, file, words)

    @pytest.mark.parametrize(
        ("other", "words"),
        [({"num_layers": 1}, "it lacks weights of this model"), ({"ffn_dim": 512}, "expected shape")],
    )
    def test_a_file_of_another_model_is_said_to_be_so(
        self, checkpoint: Path, tmp_path: Path, other: dict[str, int], words: str
    ) -> None:
        self.refused(checkpoint, wan_gguf(whole.transformer(**WIDE | other), tmp_path / "transformer.gguf"), words)

    def refused(self, checkpoint: Path, file: Path, words: str) -> None:
        borrowed = {"transformer": Borrowed(path=file)}
        card = self.card.model_copy(update={"weights": self.card.weights.model_copy(update={"borrowed": borrowed})})
        with pytest.raises(WeightsMissing, match=words):
            Pipeline.load(card, checkpoint, CPU)

    def test_the_configuration_is_all_that_is_read_of_the_part(self, checkpoint: Path) -> None:
        there = sorted(path.name for path in (checkpoint / "transformer").iterdir())
        assert there == ["config.json"]
        assert json.loads((checkpoint / "transformer" / "config.json").read_text())["ffn_dim"] == 256


class Lightning(Packed):
    """LoRAs cannot be put into such weights: they stay beside them."""

    base: Any = whole.TestTwoExperts
    shift = 5.0
    steps = 4

    @classmethod
    def build(cls, folder: Path) -> None:
        super().build(folder)
        parts = cls.parts()
        for lora in cls.card.weights.loras:
            distilled.wan_lora(parts[lora.part], folder / "borrowed" / f"{lora.borrowed}.safetensors", alpha=2.0)

    @classmethod
    def plain(cls, folder: Path, request: GenerationRequest, pictures: Mapping[int, Image.Image]) -> torch.Tensor:
        pipe = cls.loaded(folder)
        for lora in cls.card.weights.loras:
            into = {"load_into_transformer_2": True} if lora.part == "transformer_2" else {}
            file = folder / "borrowed" / f"{lora.borrowed}.safetensors"
            pipe.load_lora_weights(file, adapter_name=lora.borrowed, **into)
        return distilled.sampled(pipe, request, pictures)


class TestLightning(Lightning, PlacingContract):
    """What is beside a layer has to come and go with it."""

    card = tiny("wan2.2-t2v-a14b-lightning-q4", whole.SIZES, whole.FRAMES, max_sequence_length=whole.TOKENS)

    def test_each_expert_has_its_own_beside_it(self, pipeline: Any) -> None:
        pipe = pipeline._host.pipe
        assert list(pipe.transformer.peft_config) == ["high_noise_lora"]
        assert list(pipe.transformer_2.peft_config) == ["low_noise_lora"]

    def test_two_beside_one_expert_both_count(self, checkpoint: Path, album: Path, usual_latents: Any) -> None:
        card = placed(self.card, checkpoint)
        more = tuple(lora.model_copy(update={"part": "transformer"}) for lora in card.weights.loras)
        card = card.model_copy(update={"weights": card.weights.model_copy(update={"loras": more})})
        loaded: Any = Pipeline.load(card, checkpoint, CPU)
        assert loaded._host.pipe.transformer.active_adapters() == ["high_noise_lora", "low_noise_lora"]
        assert not torch.equal(self.latents(loaded, self.wish(album)), usual_latents)
        loaded.close()

    def test_its_weight_counts(self, checkpoint: Path, album: Path, usual_latents: Any) -> None:
        card = placed(self.card, checkpoint)
        weaker = tuple(lora.model_copy(update={"weight": 0.5}) for lora in card.weights.loras)
        card = card.model_copy(update={"weights": card.weights.model_copy(update={"loras": weaker})})
        loaded = Pipeline.load(card, checkpoint, CPU)
        assert not torch.equal(self.latents(loaded, self.wish(album)), usual_latents)
        loaded.close()


class TestLightningImage(Lightning):
    card = tiny("wan2.2-i2v-a14b-lightning-q4", whole.SIZES, whole.FRAMES, max_sequence_length=whole.TOKENS)
    kind = whole.TestImageWithTwoExperts.kind
    base = whole.TestImageWithTwoExperts
    seen = 36
