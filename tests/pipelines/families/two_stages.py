"""What every family that makes clips in two stages must do beside its contract."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.card import ModelCard
from pipelines.checkpoint import Checkpoints
from pipelines.engine import generate
from pipelines.errors import Cancelled, WeightsMissing
from pipelines.plan import MemoryPlan
from pipelines.types import NOTHING_GIVEN, Frames, Given, Lora, Progress, Stage
from pipelines.weights import UPSAMPLER, Borrowed
from tests.pipelines.families.checkpoints import CheckpointContract
from tests.pipelines.families.making import Kept, equal, random_lora


class TwoStageContract(CheckpointContract):
    """``build`` saves beside the checkpoint what doubles latents, as ``upsampler`` makes it; sizes are 128x64.

    Attributes:
        passes: Of the denoiser for a step of the first stage.
    """

    passes = 1

    @classmethod
    @abstractmethod
    def upsampler(cls) -> Any:
        """Return what doubles latents, with random weights."""

    @classmethod
    def build(cls, folder: Path) -> None:
        super().build(folder)
        cls.upsampler().save_pretrained(folder / UPSAMPLER)

    @classmethod
    def here(cls, checkpoint: Path) -> ModelCard:
        borrowed = {UPSAMPLER: Borrowed(path=checkpoint / UPSAMPLER)}
        weights = cls.card.weights.model_copy(update={"borrowed": borrowed})
        return cls.card.model_copy(update={"weights": weights})

    def test_what_goes_on_in_the_second_stage_does_not_run_the_first(self, pipeline: Any, album: Path) -> None:
        request = self.wish(album, conditions=self.pictures(album, first_frame="red", last_frame="blue"))
        conditioning, kept = pipeline.encode(request), Kept()
        whole = pipeline.denoise(request, conditioning, NOTHING_GIVEN, kept.on_step)
        first, tokens = request.num_inference_steps, list[int]()
        # Three latents of the clip and one of the last picture, 2x1 and then 4x2 tokens each.
        small, large = [4 * 2] * self.passes, [4 * 8]
        watch = self.denoiser(pipeline).register_forward_pre_hook(
            lambda _, __, given: tokens.append(given["hidden_states"].shape[1]), with_kwargs=True
        )
        # One step is run once more than is left to do.
        for done, expected in (
            (first - 1, small * 2 + large * request.refine_steps),
            (first, small + large * request.refine_steps),
            (first + 1, large * request.refine_steps),
            (request.steps - 1, large * 2),
        ):
            tokens.clear()
            resumed = pipeline.denoise(request, conditioning, Given(state=kept[done - 1]), lambda _: None)
            assert equal(resumed, whole), f"after step {done}"
            assert tokens == expected, f"after step {done}"
        watch.remove()

    def test_a_loop_in_fewer_numbers_goes_on_in_the_second_stage_to_the_bit(
        self, checkpoint: Path, album: Path
    ) -> None:
        """What doubles latents computes in them, and what pictures are held to must not."""
        pipeline = self.load(checkpoint, MemoryPlan("cpu", "bfloat16"))
        request = self.wish(album, conditions=self.pictures(album, first_frame="red", last_frame="blue"))
        conditioning, kept = pipeline.encode(request), Kept()
        whole = pipeline.denoise(request, conditioning, NOTHING_GIVEN, kept.on_step)
        state = kept[request.num_inference_steps]
        assert equal(pipeline.denoise(request, conditioning, Given(state=state), lambda _: None), whole)
        pipeline.close()

    def test_a_clip_that_was_stopped_in_the_second_stage_is_the_same_clip(
        self, pipeline: Any, album: Path, usual: Frames, tmp_path: Path
    ) -> None:
        """By the checkpoints that a worker keeps, and with the progress that it tells."""
        request = self.wish(album)
        stopped = Progress(Stage.DENOISE, request.num_inference_steps + 2, request.steps)
        told: list[Progress] = []

        def stop(progress: Progress) -> None:
            if progress == stopped:
                raise Cancelled("enough")

        for report in (stop, told.append):
            with Checkpoints(tmp_path, "owner", interval_s=0.0) as checkpoints:
                if report is stop:
                    with pytest.raises(Cancelled):
                        generate(pipeline, request, report, checkpoints=checkpoints)
                else:
                    clip = generate(pipeline, request, report, checkpoints=checkpoints)
                    assert (np.concatenate(list(clip.chunks)) == usual).all()
                    assert checkpoints.resumed
        steps = [progress.step for progress in told if progress.stage is Stage.DENOISE]
        assert steps == [0, *range(stopped.step, request.steps + 1)]

    def test_a_lora_changes_both_stages(self, pipeline: Any, album: Path) -> None:
        self.needs("lora")
        path = random_lora(pipeline._host.pipe, self.denoiser(pipeline), self.lora_modules, album)
        plain, changed = self.wish(album), self.wish(album, loras=(Lora("mine", path),))
        conditioning, without, within = pipeline.encode(plain), Kept(), Kept()
        made = pipeline.denoise(plain, conditioning, NOTHING_GIVEN, without.on_step)
        pipeline.denoise(changed, conditioning, NOTHING_GIVEN, within.on_step)
        assert within[0] != without[0]
        state = without[plain.num_inference_steps]
        assert not equal(pipeline.denoise(changed, conditioning, Given(state=state), lambda _: None), made)

    def test_both_stages_are_sketched_in_their_own_size(self, pipeline: Any, album: Path) -> None:
        request = self.wish(album)
        seen: dict[int, Any] = {}
        conditioning = pipeline.encode(request)
        pipeline.denoise(request, conditioning, NOTHING_GIVEN, lambda step: seen.update({step.number: step.sketch()}))
        assert 2 * seen[request.num_inference_steps].shape[1] == seen[request.steps].shape[1]

    def test_a_size_that_is_made_at_once_leaves_the_part_that_doubles_alone(self, pipeline: Any, album: Path) -> None:
        request = self.wish(album)
        called: list[int] = []
        watch = getattr(pipeline._host.pipe, UPSAMPLER).register_forward_pre_hook(lambda *_: called.append(1))
        self.latents(pipeline, request)
        assert called == [1]
        at_once = self.latents(pipeline, replace(request, refine_steps=0))
        watch.remove()
        assert called == [1]
        assert not equal(at_once, self.latents(pipeline, request))

    def test_a_checkpoint_without_the_part_that_doubles_is_said_to_be_so(
        self, checkpoint: Path, tmp_path: Path
    ) -> None:
        for part in checkpoint.iterdir():
            if part.name != UPSAMPLER:
                (tmp_path / part.name).symlink_to(part)
        with pytest.raises(WeightsMissing, match="no more or not whole"):
            self.load(tmp_path)
        (tmp_path / UPSAMPLER).mkdir()
        for file in (checkpoint / UPSAMPLER).iterdir():
            (tmp_path / UPSAMPLER / file.name).write_bytes(file.read_bytes()[:500])
        with pytest.raises(WeightsMissing, match="brings clips of"):
            self.load(tmp_path)
