"""What every family must do, on at least one of its checkpoints for each thing that a card may be capable of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.card import Wish
from pipelines.engine import piece
from pipelines.errors import BadOutput
from pipelines.plan import MemoryPlan
from pipelines.registry import family_of
from pipelines.types import NOTHING_GIVEN, Given, SourceClip
from tests.pipelines.families.checkpoints import CPU
from tests.pipelines.families.making import equal, first, picture, shortest
from tests.pipelines.families.placing import PlacingContract
from tests.pipelines.families.resuming import ResumeContract
from tests.pipelines.families.sketching import SketchContract


class FamilyContract(ResumeContract, PlacingContract, SketchContract):
    """All there is. Cards that differ from another in weights alone have ``CheckpointContract``, which says why."""

    def test_tiles_make_a_clip_of_the_same_shape(self, checkpoint: Path, album: Path) -> None:
        tiled = self.load(checkpoint, MemoryPlan("cpu", tiled=True))
        assert len(self.made(tiled, self.wish(album))) == self.card.shape.min_frames
        tiled.close()

    def test_values_that_are_not_numbers_are_never_a_clip(self, checkpoint: Path, album: Path) -> None:
        broken = self.load(checkpoint)
        for parameter in self.denoiser(broken).parameters():
            if parameter.is_floating_point():
                parameter.data.fill_(float("nan"))
        with pytest.raises(BadOutput, match="not finite"):
            self.made(broken, self.wish(album))
        broken.close()

    def test_options_that_the_family_does_not_know_are_an_error(self, checkpoint: Path) -> None:
        card = self.here(checkpoint).model_copy(update={"options": {**self.card.options, "shcedule": "linear"}})
        with pytest.raises(ValueError, match="shcedule"):
            family_of(card).load(card, checkpoint, CPU)

    def test_a_picture_decides_the_clip(self, pipeline: Any, album: Path) -> None:
        self.needs("first_frame")
        red, blue = (
            self.latents(pipeline, self.wish(album, conditions=self.pictures(album, first_frame=colour)))
            for colour in ("red", "blue")
        )
        assert not equal(red, blue)

    def test_a_last_picture_decides_the_clip(self, pipeline: Any, album: Path) -> None:
        self.needs("last_frame")
        red, blue = (
            self.latents(
                pipeline,
                self.wish(album, conditions=self.pictures(album, first_frame="red", last_frame=colour)),
            )
            for colour in ("red", "blue")
        )
        assert not equal(red, blue)

    def test_a_last_picture_of_a_clip_in_windows_decides_the_last_of_them(self, pipeline: Any, album: Path) -> None:
        self.needs("last_frame")
        self.needs("extend")
        rules = self.card.shape
        card = self.card.model_copy(update={"shape": rules.model_copy(update={"max_frames": rules.min_frames})})
        made: list[list[Any]] = []
        for colour in ("red", "blue"):
            ends = self.pictures(album, first_frame="red", last_frame=colour)
            wish = Wish("ball", seconds=2 * rules.min_frames / rules.fps, seed=1, conditions=ends)
            request = card.resolve(replace(wish, num_inference_steps=self.steps)).request
            whole, last = pipeline.encode(request), len(request.windows) - 1
            given = {0: NOTHING_GIVEN, last: Given(before=self.footage(request.windows[last].overlap))}
            made.append([pipeline.denoise(piece(request, at), whole, it, lambda _: None) for at, it in given.items()])
        red, blue = made
        assert equal(red[0], blue[0])
        assert not equal(red[1], blue[1])

    def test_a_subject_is_seen_and_is_no_part_of_the_clip(self, pipeline: Any, album: Path, usual_latents: Any) -> None:
        self.needs("references")
        requests = [self.wish(album, references=(picture(album, colour),)) for colour in ("red", "blue")]
        red, blue = (self.latents(pipeline, request) for request in requests)
        assert not equal(red, blue)
        assert len(self.made(pipeline, requests[0])) == self.card.shape.min_frames
        if "references" not in self.card.requires:
            assert first(red).shape == first(usual_latents).shape
            assert not equal(red, usual_latents)

    def test_a_window_goes_on_from_the_frames_that_are_there(self, pipeline: Any, album: Path) -> None:
        self.needs("extend")
        overlap = self.card.shape.overlap
        near, far = (
            self.latents(pipeline, self.wish(album), Given(before=self.footage(overlap, start=start)))
            for start in (0, 9)
        )
        assert not equal(near, far)

    def test_an_edit_without_a_change_is_its_source_and_the_seed_decides(self, pipeline: Any, album: Path) -> None:
        self.needs("edit")
        shape = shortest(self.card)
        given = Given(edited=self.footage(shape.frames))

        def edit(prompt: str, seed: int = 1) -> Any:
            source = SourceClip(Path("unread.mp4"), shape, "edit", "red ball")
            guidance = min(3.0, self.card.sampling.max_guidance_scale)
            values = {"source": source, "guidance_scale": guidance}
            if "negative_prompt" in self.card.capabilities:
                values["negative_prompt"] = ""
            return self.latents(pipeline, self.wish(album, prompt, seed, **values), given)

        same, changed, other, again = edit("red ball"), edit("blue night"), edit("blue night", 2), edit("blue night")
        assert equal(changed, again)
        assert not equal(changed, other)
        near, far = first(edit("red ball", 2)) - first(same), first(changed) - first(same)
        assert far.abs().max() > 10 * near.abs().max()
