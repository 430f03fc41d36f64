"""What was stopped goes on: a part of the family contract, and of every card that has a schedule of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from pipelines.types import NOTHING_GIVEN, Given, SourceClip, Step
from tests.pipelines.families.checkpoints import CheckpointContract
from tests.pipelines.families.making import Kept, equal, shortest


class ResumeContract(CheckpointContract):
    """What is kept of a loop is all that the rest of it needs."""

    def test_a_loop_goes_on_where_it_stopped_to_the_bit(self, checkpoint: Path, pipeline: Any, album: Path) -> None:
        """After the first step, in the middle and after the last, in a pipeline that was loaded anew."""
        kept = Kept()
        given = {"first_frame": "red"} if "first_frame" in self.card.capabilities else {}
        request = self.wish(album, conditions=self.pictures(album, **given))
        whole = pipeline.denoise(request, pipeline.encode(request), NOTHING_GIVEN, kept.on_step)
        assert len(kept) == request.steps
        fresh = self.load(checkpoint)
        conditioning = fresh.encode(request)
        for done in sorted({1, (request.steps + 1) // 2, request.steps}):
            seen: list[Step] = []
            resumed = fresh.denoise(request, conditioning, Given(state=kept[done - 1]), seen.append)
            assert equal(resumed, whole), f"after step {done}"
            assert [step.number for step in seen] == list(range(done, request.steps + 1))
        assert equal(fresh.denoise(request, conditioning, NOTHING_GIVEN, lambda _: None), whole)
        assert equal(fresh.thaw(pipeline.freeze(whole)()), whole)
        fresh.close()

    def test_an_edit_goes_on_where_it_stopped_to_the_bit(self, pipeline: Any, album: Path) -> None:
        self.needs("edit")
        shape = shortest(self.card)
        source = SourceClip(Path("unread.mp4"), shape, "edit", "red ball")
        request = self.wish(album, "blue night", source=source, guidance_scale=self.card.sampling.guidance_scale)
        given = Given(edited=self.footage(shape.frames))
        kept = Kept()
        whole = pipeline.denoise(request, pipeline.encode(request), given, kept.on_step)
        assert len(kept) == request.num_inference_steps
        for done in (1, len(kept)):
            resumed = self.latents(pipeline, request, replace(given, state=kept[done - 1]))
            assert equal(resumed, whole), f"after step {done}"
