"""LTX-Video in two stages, with the published part that doubles latents, against diffusers' three calls in a row."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from diffusers import LTXLatentUpsamplePipeline
from diffusers.pipelines.ltx.modeling_latent_upsampler import LTXLatentUpsamplerModel
from diffusers.pipelines.ltx.pipeline_ltx_condition import LTXVideoCondition
from PIL import Image

from pipelines.types import GenerationRequest, Given
from tests.pipelines.families.contract import FamilyContract
from tests.pipelines.families.making import equal, fit, tiny
from tests.pipelines.families.resuming import ResumeContract
from tests.pipelines.families.test_ltx_published import FRAMES, TOKENS, LtxCheckpoint
from tests.pipelines.families.two_stages import TwoStageContract

SIZES = ((128, 64), (64, 128))


class TwoStages(TwoStageContract, LtxCheckpoint):
    # What diffusers' guides call the second stage with.
    upsampling: ClassVar[Mapping[str, float]]
    refining: ClassVar[Mapping[str, Any]]

    @classmethod
    def upsampler(cls) -> LTXLatentUpsamplerModel:
        return LTXLatentUpsamplerModel(in_channels=8, mid_channels=32, num_blocks_per_stage=1)

    @classmethod
    def called(cls, folder: Path, request: GenerationRequest, conditions: list[LTXVideoCondition], kind: str) -> Any:
        pipe = cls.loaded(folder)
        upsampler = LTXLatentUpsamplerModel.from_pretrained(folder / "latent_upsampler")
        arguments = cls.arguments(request)
        width, height = arguments.pop("width"), arguments.pop("height")
        arguments["conditions"] = conditions or None
        latents = pipe(**arguments, width=width // 2, height=height // 2, output_type="latent").frames
        upsample = LTXLatentUpsamplePipeline(pipe.vae, upsampler)
        latents = upsample(latents=latents, output_type="latent", **cls.upsampling).frames
        arguments |= {**cls.refining, "generator": torch.Generator().manual_seed(request.seed)}
        return pipe(**arguments, width=width, height=height, latents=latents, output_type=kind).frames

    def test_pictures_and_a_clip_before_are_given_to_both_stages(
        self, checkpoint: Path, pipeline: Any, album: Path
    ) -> None:
        request = self.wish(album, conditions=self.pictures(album, first_frame="red", last_frame="blue"))
        pictures = {c.frame: fit(Image.open(c.path), request) for c in request.conditions}
        assert sorted(pictures) == [0, request.shape.frames - 1]
        assert equal(self.latents(pipeline, request), self.plain(checkpoint, request, pictures))
        before = self.footage(9)
        request = self.wish(album)
        made = self.latents(pipeline, request, Given(before=before))
        conditions = [LTXVideoCondition(video=[Image.fromarray(frame) for frame in before], frame_index=0)]
        assert equal(made, [self.called(checkpoint, request, conditions, "latent"), None])


class TestFull(TwoStages, FamilyContract):
    card = tiny("ltx-video-0.9.7-dev", SIZES, FRAMES, stages=2, max_sequence_length=TOKENS)
    upsampling: ClassVar = {}
    refining: ClassVar = {"num_inference_steps": 10, "denoise_strength": 0.4}


class TestDistilled(TwoStages, ResumeContract):
    """Its weights are others, and the levels of noise of both its stages."""

    card = tiny("ltx-video-0.9.8-distilled", SIZES, FRAMES, stages=2, max_sequence_length=TOKENS)
    steps = 8
    upsampling: ClassVar = {"adain_factor": 1.0, "tone_map_compression_ratio": 0.6}
    refining: ClassVar = {"timesteps": [1000, 909, 725, 421], "denoise_strength": 0.999}

    def test_the_last_step_of_diffusers_guide_changes_nothing(
        self, checkpoint: Path, pipeline: Any, album: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is at a noise of 0: one pass of the model less at the full size."""
        request = self.wish(album)
        timesteps = [*self.refining["timesteps"], 0]
        monkeypatch.setitem(self.refining, "timesteps", timesteps)
        assert equal(self.latents(pipeline, request), self.plain(checkpoint, request, {}))
