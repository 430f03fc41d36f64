"""LTX-2 in two stages, with the published part that doubles latents, against diffusers' three calls in a row."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, LTX2LatentUpsamplePipeline
from diffusers.pipelines.ltx2 import LTX2LatentUpsamplerModel
from diffusers.pipelines.ltx2.pipeline_ltx2_condition import LTX2VideoCondition
from diffusers.pipelines.ltx2.utils import STAGE_2_DISTILLED_SIGMA_VALUES
from PIL import Image

from pipelines.card import ModelCard
from pipelines.types import GenerationRequest, Given
from pipelines.weights import Borrowed
from tests.pipelines.families.contract import FamilyContract
from tests.pipelines.families.making import equal, fit, random_lora, tiny
from tests.pipelines.families.resuming import ResumeContract
from tests.pipelines.families.test_ltx2 import FRAMES, TOKENS, Ltx2Checkpoint
from tests.pipelines.families.two_stages import TwoStageContract

SIZES = ((128, 64), (64, 128))
UNGUIDED = {
    f"{stream}{name}": value
    for stream in ("", "audio_")
    for name, value in (("guidance_scale", 1.0), ("stg_scale", 0.0), ("modality_scale", 1.0), ("guidance_rescale", 0.0))
}


def _adapted(denoiser: torch.nn.Module) -> list[str]:
    return [name for name, _ in denoiser.named_modules() if "lora" in name]


class TwoStages(TwoStageContract, Ltx2Checkpoint):
    @classmethod
    def upsampler(cls) -> LTX2LatentUpsamplerModel:
        return LTX2LatentUpsamplerModel(in_channels=4, mid_channels=32, num_blocks_per_stage=1)

    @classmethod
    def called(cls, folder: Path, request: GenerationRequest, conditions: list[LTX2VideoCondition]) -> Any:
        pipe = cls.loaded(folder)
        upsampler = LTX2LatentUpsamplerModel.from_pretrained(folder / "latent_upsampler")
        arguments: dict[str, Any] = cls.arguments(request) | {"conditions": conditions or None}
        width, height = arguments.pop("width"), arguments.pop("height")
        small = pipe(**arguments, width=width // 2, height=height // 2)
        upsample = LTX2LatentUpsamplePipeline(vae=pipe.vae, latent_upsampler=upsampler)
        latents = upsample(latents=small.frames, latents_normalized=False, output_type="latent").frames
        pipe.scheduler = FlowMatchEulerDiscreteScheduler.from_config(
            pipe.scheduler.config, use_dynamic_shifting=False, shift_terminal=None
        )
        cls.refine_with(pipe, folder)
        arguments |= UNGUIDED | {
            "num_inference_steps": 3,
            "sigmas": STAGE_2_DISTILLED_SIGMA_VALUES,
            "noise_scale": STAGE_2_DISTILLED_SIGMA_VALUES[0],
        }
        made: Any = pipe(**arguments, width=width, height=height, latents=latents, audio_latents=small.audio)
        return [made.frames, made.audio]

    @classmethod
    def refine_with(cls, pipe: Any, folder: Path) -> None:
        """Put in what the second stage has and the first has not."""

    @classmethod
    def plain(cls, folder: Path, request: GenerationRequest, pictures: Mapping[int, Image.Image], **more: Any) -> Any:
        assert not more
        conditions = [
            LTX2VideoCondition(frames=p, index=0 if frame == 0 else -1, crf=0) for frame, p in pictures.items()
        ]
        return cls.called(folder, request, conditions)

    def test_pictures_and_a_clip_before_are_given_to_both_stages(
        self, checkpoint: Path, pipeline: Any, album: Path
    ) -> None:
        request = self.wish(album, conditions=self.pictures(album, first_frame="red", last_frame="blue"))
        pictures = {c.frame: fit(Image.open(c.path), request) for c in request.conditions}
        assert equal(self.latents(pipeline, request), self.plain(checkpoint, request, pictures))
        before, request = self.footage(9), self.wish(album)
        conditions = [LTX2VideoCondition(frames=[Image.fromarray(frame) for frame in before], index=0, crf=0)]
        made = self.latents(pipeline, request, Given(before=before))
        assert equal(made, self.called(checkpoint, request, conditions))


class Refined(TwoStages):
    """The first stage guided in every way there is, the second in none but distilled by a LoRA."""

    passes = 3

    @classmethod
    def build(cls, folder: Path) -> None:
        super().build(folder)
        pipe = cls.loaded(folder)
        random_lora(pipe, pipe.transformer, cls.lora_modules, folder / "lora")

    @classmethod
    def here(cls, checkpoint: Path) -> ModelCard:
        card = super().here(checkpoint)
        (lora,) = card.weights.loras
        borrowed = {
            lora.borrowed: Borrowed(path=checkpoint / "lora" / "pytorch_lora_weights.safetensors"),
            **card.weights.borrowed,
        }
        return card.model_copy(update={"weights": card.weights.model_copy(update={"borrowed": borrowed})})

    @classmethod
    def refine_with(cls, pipe: Any, folder: Path) -> None:
        pipe.load_lora_weights(folder / "lora", adapter_name="stage_2_distilled")
        pipe.set_adapters("stage_2_distilled", 1.0)

    def test_the_lora_of_the_second_stage_is_in_it_alone_and_leaves_no_trace(self, pipeline: Any, album: Path) -> None:
        adapted: list[bool] = []
        denoiser = self.denoiser(pipeline)
        watch = denoiser.register_forward_pre_hook(lambda *_: adapted.append(bool(_adapted(denoiser))))
        request = self.wish(album)
        self.latents(pipeline, request)
        watch.remove()
        assert adapted == [False] * self.passes * request.num_inference_steps + [True] * request.refine_steps
        assert not _adapted(denoiser)


class TestFull(Refined, FamilyContract):
    card = tiny("ltx-2.3", SIZES, FRAMES, stages=2, max_sequence_length=TOKENS, stg_blocks=(1,))


class TestDistilled(TwoStages, ResumeContract):
    """Its weights are others, and the levels of noise of both its stages."""

    card = tiny("ltx-2.3-distilled", SIZES, FRAMES, stages=2, max_sequence_length=TOKENS)
    steps = 8
