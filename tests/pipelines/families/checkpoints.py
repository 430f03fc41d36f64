"""What must hold for every kind of checkpoint, on a tiny one with random weights in the published layout.

A family's test makes a subclass for each kind, which says how to build one and how diffusers would be called by hand.
What a card is not capable of is skipped.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from pipelines.base import VideoPipeline
from pipelines.card import ModelCard, Wish
from pipelines.engine import generate
from pipelines.errors import Cancelled, UnsupportedOption, WeightsMissing
from pipelines.plan import MemoryPlan
from pipelines.registry import family_of
from pipelines.types import (
    LAST,
    NOTHING_GIVEN,
    Clip,
    Frames,
    GenerationRequest,
    Given,
    ImageCondition,
    Lora,
    Progress,
    Stage,
)
from tests.pipelines.families.making import equal, fit, moving_bar, picture, random_lora

CPU = MemoryPlan("cpu")


@pytest.mark.usefixtures("quick_sketches")
class CheckpointContract(ABC):
    """What must hold whatever weights a card has. Subclasses say what for, by ``card`` and ``build``.

    Of cards that differ from another in weights alone it is all there is to show: that they are loaded, and are the
    model that diffusers would have. What happens to a clip otherwise is the family's code, which has seen them in
    ``FamilyContract``.
    """

    card: ModelCard
    steps = 3
    lora_modules = ("to_q", "to_v")
    denoiser_file = "transformer*/*.safetensors"

    @classmethod
    @abstractmethod
    def build(cls, folder: Path) -> None:
        """Save a tiny checkpoint in the published layout."""

    @classmethod
    @abstractmethod
    def plain(cls, folder: Path, request: GenerationRequest, pictures: Mapping[int, Image.Image]) -> torch.Tensor:
        """Return the latents of one plain call of diffusers, as our ``denoise`` returns them."""

    @pytest.fixture(scope="class")
    @classmethod
    def checkpoint(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        torch.manual_seed(0)
        folder = tmp_path_factory.mktemp("tiny")
        cls.build(folder)
        return folder

    @pytest.fixture(scope="class")
    @classmethod
    def pipeline(cls, checkpoint: Path) -> Iterator[VideoPipeline[Any, Any]]:
        loaded = cls.load(checkpoint)
        yield loaded
        loaded.close()

    @pytest.fixture(scope="class")
    @classmethod
    def album(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return tmp_path_factory.mktemp("album")

    @pytest.fixture(scope="class")
    @classmethod
    def usual(cls, pipeline: Any, album: Path) -> Frames:
        """The frames of the smallest request, for whatever must not change them."""
        return cls().made(pipeline, cls().wish(album))

    @pytest.fixture(scope="class")
    @classmethod
    def usual_latents(cls, pipeline: Any, album: Path) -> Any:
        """The latents of the smallest request, for whatever must change them."""
        return cls().latents(pipeline, cls().wish(album))

    @classmethod
    def load(cls, checkpoint: Path, plan: MemoryPlan = CPU) -> VideoPipeline[Any, Any]:
        card = cls.here(checkpoint)
        return family_of(card).load(card, checkpoint, plan)

    @classmethod
    def here(cls, checkpoint: Path) -> ModelCard:
        """Return the card with what it borrows beside the checkpoint."""
        del checkpoint
        return cls.card

    def wish(self, album: Path, prompt: str = "red ball", seed: int = 1, **changes: Any) -> GenerationRequest:
        """Return the smallest request; a model that cannot do without a picture gets one."""
        values: dict[str, Any] = {"num_inference_steps": self.steps, "seed": seed}
        if not changes.keys() & {"num_frames", "seconds", "source"}:
            values["num_frames"] = self.card.shape.min_frames
        values["conditions"] = self.pictures(album)
        if "references" in self.card.requires:
            values["references"] = (picture(album, "red"),)
        return self.card.resolve(Wish(prompt, **values | changes)).request

    def pictures(self, album: Path, **colours: str) -> tuple[ImageCondition, ...]:
        """Return the pictures that the card requires, red unless a colour is named, and those that are named."""
        frames = {"first_frame": 0, "last_frame": LAST}
        return tuple(
            ImageCondition(picture(album, colours.get(name, "red")), frames[name])
            for name in sorted((self.card.requires | colours.keys()) & frames.keys())
        )

    def clip(self, pipeline: VideoPipeline[Any, Any], request: GenerationRequest) -> Clip:
        return generate(pipeline, request, lambda _: None)

    def made(self, pipeline: VideoPipeline[Any, Any], request: GenerationRequest) -> Frames:
        return np.concatenate(list(self.clip(pipeline, request).chunks))

    def latents(self, pipeline: VideoPipeline[Any, Any], request: GenerationRequest, given: Given = NOTHING_GIVEN):
        return pipeline.denoise(request, pipeline.encode(request), given, lambda _: None)

    def needs(self, capability: str) -> None:
        if capability not in self.card.capabilities:
            pytest.skip(f"the card does not say {capability}")

    def denoiser(self, pipeline: Any) -> torch.nn.Module:
        return pipeline._host.pipe.transformer

    def footage(self, frames: int, *, start: int = 0) -> Frames:
        return moving_bar(self.card.shape.sizes[0], frames, start)

    # -- what every model does, and what some do ----------------------------------------------------------------------

    def test_a_clip_has_exactly_the_shape_that_was_asked_for(self, pipeline: Any, album: Path, usual: Frames) -> None:
        rules = self.card.shape
        longer, last = rules.min_frames + rules.frame_stride, rules.sizes[-1]
        other = self.made(pipeline, self.wish(album, size=(last.width, last.height), num_frames=longer))
        for clip, frames, size in ((usual, rules.min_frames, rules.sizes[0]), (other, longer, last)):
            assert clip.shape == (frames, size.height, size.width, 3)
            assert clip.dtype == np.uint8

    def test_the_seed_decides_and_nothing_before_it_does(self, pipeline: Any, album: Path, usual: Frames) -> None:
        other, again = (self.made(pipeline, self.wish(album, seed=seed)) for seed in (2, 1))
        assert (again == usual).all()
        assert (other != usual).any()

    def test_the_prompt_and_the_number_of_steps_reach_the_model(
        self, pipeline: Any, album: Path, usual_latents: Any
    ) -> None:
        others = [{"prompt": "blue night"}]
        if self.card.sampling.min_inference_steps < self.card.sampling.max_inference_steps:
            others.append({"num_inference_steps": self.steps + 1})
        for changes in others:
            assert not equal(self.latents(pipeline, self.wish(album, **changes)), usual_latents), changes

    def test_guidance_and_negative_prompts_reach_the_model(self, pipeline: Any, album: Path) -> None:
        self.needs("negative_prompt")
        before = self.latents(pipeline, self.wish(album, guidance_scale=4.0))
        for changes in ({"guidance_scale": 7.0}, {"guidance_scale": 4.0, "negative_prompt": "blue night"}):
            assert not equal(self.latents(pipeline, self.wish(album, **changes)), before), changes

    def test_a_negative_prompt_that_would_be_ignored_is_refused(self, album: Path) -> None:
        if "negative_prompt" in self.card.capabilities:
            pytest.skip("the card honours it")
        with pytest.raises(UnsupportedOption):
            self.wish(album, negative_prompt="blue")

    def test_a_model_that_needs_a_picture_says_so(self, album: Path) -> None:
        if not self.card.requires:
            pytest.skip("the card does without")
        with pytest.raises(UnsupportedOption, match=r"needs a (picture|character)"):
            self.wish(album, conditions=(), references=())

    def test_stages_equal_one_plain_call_of_diffusers(self, checkpoint: Path, pipeline: Any, album: Path) -> None:
        guidances = [1.0, 4.0] if "negative_prompt" in self.card.capabilities else [self.card.sampling.guidance_scale]
        for guidance in guidances:
            changes = {"negative_prompt": "blue"} if guidance > 1 and len(guidances) > 1 else {}
            request = self.wish(album, guidance_scale=guidance, **changes)
            pictures = {c.frame: Image.open(c.path) for c in request.conditions}
            expected = self.plain(checkpoint, request, {frame: fit(p, request) for frame, p in pictures.items()})
            assert equal(self.latents(pipeline, request), expected), f"guidance {guidance}"

    def test_cancelling_stops_at_once_and_leaves_the_pipeline_whole(
        self, pipeline: Any, album: Path, usual: Frames
    ) -> None:
        request = self.wish(album)
        seen: list[Progress] = []

        def report(progress: Progress) -> None:
            seen.append(progress)
            if progress == last:
                raise Cancelled("enough")

        for last in {Progress(Stage.DENOISE, step, request.steps) for step in (2, request.steps - 1)}:
            with pytest.raises(Cancelled):
                generate(pipeline, request, report)
            assert seen[-1] == last
        assert (self.made(pipeline, self.wish(album)) == usual).all()

    def test_a_checkpoint_that_is_not_there_or_cut_short_is_said_to_be_so(
        self, checkpoint: Path, tmp_path: Path
    ) -> None:
        with pytest.raises(WeightsMissing):
            self.load(tmp_path)
        for part in checkpoint.rglob("*"):
            copy = tmp_path / part.relative_to(checkpoint)
            copy.mkdir(parents=True, exist_ok=True) if part.is_dir() else copy.write_bytes(part.read_bytes())
        weights = next(tmp_path.glob(self.denoiser_file))
        weights.write_bytes(weights.read_bytes()[:1000])
        with pytest.raises(WeightsMissing):
            self.load(tmp_path)

    def test_sound_is_as_long_as_the_clip(self, pipeline: Any, album: Path) -> None:
        self.needs("audio")
        request = self.wish(album)
        audio = self.clip(pipeline, request).audio
        assert audio is not None
        assert audio.samples.dtype == np.float32
        seconds = audio.samples.shape[1] / audio.rate
        assert abs(seconds - request.shape.seconds) <= 1 / request.shape.fps
        assert self.clip(pipeline, self.wish(album, sound=False)).audio is None

    def test_a_lora_changes_one_clip_and_leaves_no_trace(self, pipeline: Any, album: Path, usual_latents: Any) -> None:
        self.needs("lora")
        path = random_lora(pipeline._host.pipe, self.denoiser(pipeline), self.lora_modules, album)
        changed = self.latents(pipeline, self.wish(album, loras=(Lora("mine", path),)))
        nothing = self.latents(pipeline, self.wish(album, loras=(Lora("mine", path, 0.0),)))
        assert not equal(changed, usual_latents)
        assert equal(nothing, usual_latents)
        assert equal(self.latents(pipeline, self.wish(album)), usual_latents)

    def test_a_lora_of_another_model_is_refused_and_leaves_no_trace(
        self, pipeline: Any, album: Path, usual_latents: Any
    ) -> None:
        self.needs("lora")
        other = album / "other.safetensors"
        save_file({"unet.layer.lora_A.weight": torch.ones(2, 2)}, other)
        with pytest.raises(UnsupportedOption, match="does not fit"):
            self.latents(pipeline, self.wish(album, loras=(Lora("other", other),)))
        assert equal(self.latents(pipeline, self.wish(album)), usual_latents)
