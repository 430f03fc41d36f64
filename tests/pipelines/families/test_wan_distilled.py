"""Wan with LoRAs that belong to the card: the contract of its family, and what is peculiar to them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FlowMatchLCMScheduler
from PIL import Image
from safetensors.torch import save_file

from pipelines.base import VideoPipeline
from pipelines.card import ModelCard
from pipelines.errors import UnsupportedOption, WeightsMissing
from pipelines.families.wan import Pipeline
from pipelines.plan import MemoryPlan, Offload, Quantisation
from pipelines.types import NOTHING_GIVEN, GenerationRequest
from pipelines.weights import Borrowed
from tests.pipelines.families import test_wan as whole
from tests.pipelines.families.checkpoints import CPU
from tests.pipelines.families.contract import FamilyContract
from tests.pipelines.families.making import tiny
from tests.pipelines.families.published import wan_lora
from tests.pipelines.families.resuming import ResumeContract

LEVELS = [1.0, 0.75, 0.5, 0.25]


def with_loras(card: ModelCard, folder: Path, **changes: object) -> ModelCard:
    """Return the card with its LoRAs in a folder."""
    found = {name: Borrowed(path=folder / f"{name}.safetensors") for name in card.weights.borrowed}
    weights = card.weights.model_copy(update={"borrowed": found} | changes)
    return card.model_copy(update={"weights": weights})


def sampled(pipe: Any, request: GenerationRequest, pictures: Mapping[int, Image.Image]) -> torch.Tensor:
    """Return the latents of one call of diffusers with the levels of noise that distilled models were taught."""
    given: dict[str, Any] = {"image": pictures[0]} if pictures else {}
    if pipe.config.get("boundary_ratio") is not None:
        given["guidance_scale_2"] = request.guidance_scale_2
    pipe.scheduler = FlowMatchEulerDiscreteScheduler(shift=5.0)
    count = pipe.scheduler.set_timesteps
    pipe.scheduler.set_timesteps = lambda steps, **how: count(steps, sigmas=LEVELS, **how)
    return pipe(**whole.arguments(request), **given).frames


class Distilled(whole.WanCheckpoint):
    """Its checkpoint is that of another model, and has LoRAs beside it, which become a part of the weights.

    The schedule is the same for all of them, and shown of the first with all else that a family must do.
    """

    steps = 4
    alpha: float | None = 2.0
    everywhere = False
    base: Any = whole.TestText

    @classmethod
    def parts(cls) -> dict[str, Any]:
        return cls.base.parts()

    @classmethod
    def build(cls, folder: Path) -> None:
        super().build(folder)
        parts = cls.parts()
        for lora in cls.card.weights.loras:
            file = folder / "loras" / f"{lora.borrowed}.safetensors"
            wan_lora(parts[lora.part], file, alpha=cls.alpha, everywhere=cls.everywhere)

    @classmethod
    def load(cls, checkpoint: Path, plan: MemoryPlan = CPU) -> VideoPipeline[Any, Any]:
        return Pipeline.load(with_loras(cls.card, checkpoint / "loras"), checkpoint, plan)

    @classmethod
    def loaded(cls, folder: Path, kind: Any = None) -> Any:
        pipe = super().loaded(folder, kind)
        for lora in cls.card.weights.loras:
            into = {"load_into_transformer_2": True} if lora.part == "transformer_2" else {}
            pipe.load_lora_weights(folder / "loras" / f"{lora.borrowed}.safetensors", adapter_name=lora.part, **into)
            pipe.fuse_lora(components=[lora.part], lora_scale=lora.weight, adapter_names=[lora.part])
        pipe.unload_lora_weights()
        return pipe

    @classmethod
    def plain(cls, folder: Path, request: GenerationRequest, pictures: Mapping[int, Image.Image]) -> torch.Tensor:
        return sampled(cls.loaded(folder), request, pictures)


class TestLightning(Distilled, FamilyContract):
    card = tiny("wan2.2-t2v-a14b-lightning", whole.SIZES, whole.FRAMES, max_sequence_length=whole.TOKENS)
    shift = 5.0
    base = whole.TestTwoExperts

    def test_each_expert_has_its_own(self, checkpoint: Path, pipeline: Any, album: Path, usual_latents: Any) -> None:
        """Two steps belong to each expert: without either LoRA, the clip is another one."""
        for kept in self.card.weights.loras:
            card = with_loras(self.card, checkpoint / "loras", loras=(kept,))
            half = Pipeline.load(card, checkpoint, CPU)
            assert not torch.equal(self.latents(half, self.wish(album)), usual_latents)
            half.close()

    def test_its_weight_counts_and_is_told(self, checkpoint: Path, album: Path, usual_latents: Any) -> None:
        weaker = tuple(lora.model_copy(update={"weight": 0.5}) for lora in self.card.weights.loras)
        loaded = Pipeline.load(with_loras(self.card, checkpoint / "loras", loras=weaker), checkpoint, CPU)
        assert not torch.equal(self.latents(loaded, self.wish(album)), usual_latents)
        assert "high_noise_lora x 0.5" in loaded.facts["weights"]
        loaded.close()

    def test_it_was_taught_these_levels_of_noise(self, pipeline: Any, album: Path) -> None:
        request = self.wish(album)
        pipeline.denoise(request, pipeline.encode(request), NOTHING_GIVEN, lambda _: None)
        scheduler = pipeline._host.pipe.scheduler
        seen = [round(float(level), 1) for level in scheduler.timesteps]
        assert seen == [1000.0, 937.5, 833.3, 625.0]

    @pytest.mark.parametrize("offload", [Offload.NONE, Offload.MODEL, Offload.GROUP])
    def test_it_is_stored_in_bytes_with_the_rest(self, checkpoint: Path, album: Path, offload: Offload) -> None:
        plan = MemoryPlan("cpu", quantisation=Quantisation.FP8, offload=offload)
        loaded: Any = self.load(checkpoint, plan)
        plain = self.loaded(checkpoint)
        mine, theirs = loaded._host.pipe.transformer, plain.transformer
        theirs.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
        layer = mine.blocks[0].attn1.to_q.weight
        assert layer.dtype == torch.float8_e4m3fn
        assert torch.equal(layer.float(), theirs.blocks[0].attn1.to_q.weight.float())
        assert self.latents(loaded, self.wish(album)).isfinite().all()
        loaded.close()


class TestLightningImage(Distilled):
    card = tiny("wan2.2-i2v-a14b-lightning", whole.SIZES, whole.FRAMES, max_sequence_length=whole.TOKENS)
    kind = whole.TestImageWithTwoExperts.kind
    shift = 5.0
    base = whole.TestImageWithTwoExperts


class TestDistilledText(Distilled):
    """Its LoRA is everywhere, with biases, and says no alpha."""

    card = tiny("wan2.1-t2v-14b-distilled", whole.SIZES, whole.FRAMES, max_sequence_length=whole.TOKENS)
    alpha = None
    everywhere = True

    @pytest.mark.parametrize(
        ("content", "words"),
        [(None, "not on this machine"), (b"", "cannot be used"), ("other", "cannot be used"), ("nothing", "nothing")],
    )
    def test_one_that_cannot_be_used_is_said_to_be_so(
        self, checkpoint: Path, tmp_path: Path, content: bytes | str | None, words: str
    ) -> None:
        file = tmp_path / "lora.safetensors"
        if content == "other":
            wan_lora(whole.transformer(num_attention_heads=3), file, alpha=None)
        elif content == "nothing":
            save_file({"unet.layer.lora_A.weight": torch.ones(2, 2)}, file)
        elif isinstance(content, bytes):
            file.write_bytes(content)
        with pytest.raises(WeightsMissing, match=words):
            Pipeline.load(with_loras(self.card, tmp_path), checkpoint, CPU)


class TestDistilledImage(Distilled):
    card = tiny("wan2.1-i2v-14b-480p-distilled", whole.SIZES, whole.FRAMES, max_sequence_length=whole.TOKENS)
    kind = whole.TestImage.kind
    alpha = None
    everywhere = True
    base = whole.TestImage


class TestRenoised(whole.WanCheckpoint, ResumeContract):
    """It is made anew at every step, and gets new noise of the clip's own generator."""

    card = tiny("fastwan2.2-ti2v-5b", whole.SIZES_OF_5B, whole.FRAMES, max_sequence_length=whole.TOKENS)

    @classmethod
    def parts(cls) -> dict[str, Any]:
        return {"transformer": whole.transformer(channels=48), "vae": whole.vae_of_5b()}

    @classmethod
    def plain(cls, folder: Path, request: GenerationRequest, pictures: Mapping[int, Image.Image]) -> torch.Tensor:
        pipe = cls.loaded(folder)
        how = whole.arguments(request)
        pipe.scheduler = FlowMatchLCMScheduler(shift=1.0)
        count, step = pipe.scheduler.set_timesteps, pipe.scheduler.step
        pipe.scheduler.set_timesteps = lambda steps, **to: count(steps, sigmas=[1.0, 0.757, 0.522], **to)
        pipe.scheduler.step = lambda *args, **to: step(*args, generator=how["generator"], **to)
        return pipe(**how).frames

    def test_it_was_taught_these_timesteps_alone(self, pipeline: Any, album: Path) -> None:
        request = self.wish(album)
        pipeline.denoise(request, pipeline.encode(request), NOTHING_GIVEN, lambda _: None)
        assert [round(float(t)) for t in pipeline._host.pipe.scheduler.timesteps] == [1000, 757, 522]
        with pytest.raises(UnsupportedOption, match="num_inference_steps must be 3"):
            self.wish(album, num_inference_steps=4)

    @pytest.mark.parametrize("solver", ["euler", "renoise"])
    def test_latents_keep_their_numbers_whatever_is_computed_in(
        self, checkpoint: Path, album: Path, solver: str
    ) -> None:
        options = self.card.options | ({"solver": solver, "timesteps": ()} if solver == "euler" else {})
        card = self.card.model_copy(update={"options": options})
        loaded: Any = Pipeline.load(card, checkpoint, MemoryPlan("cpu", "bfloat16"))
        latents = self.latents(loaded, self.wish(album))
        assert latents.dtype == torch.float32
        assert not torch.equal(latents, latents.bfloat16().float())
        loaded.close()
