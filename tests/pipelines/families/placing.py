"""Where the parts of a family's pipeline are: what comes and goes changes nothing, and is what plans count."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipelines import needs
from pipelines.accel.host import Host
from pipelines.base import VideoPipeline
from pipelines.engine import generate
from pipelines.plan import MemoryPlan, Offload
from pipelines.types import Frames, GenerationRequest, Progress, Stage
from tests.pipelines.families.checkpoints import CheckpointContract
from tests.pipelines.families.making import equal


class PlacingContract(CheckpointContract):
    """What of the family contract asks where parts are."""

    def test_blocks_that_come_and_go_make_the_same_clip(self, checkpoint: Path, album: Path, usual: Frames) -> None:
        offloaded = self.load(checkpoint, MemoryPlan("cpu", offload=Offload.GROUP))
        assert (self.made(offloaded, self.wish(album)) == usual).all()
        offloaded.close()

    def test_parts_that_come_and_go_make_the_same_clip(self, checkpoint: Path, album: Path, usual: Frames) -> None:
        offloaded = self.load(checkpoint, MemoryPlan("cpu", offload=Offload.MODEL))
        assert (self.made(offloaded, self.wish(album)) == usual).all()
        offloaded.close()

    def test_words_encoded_on_the_cpu_make_the_same_clip(
        self, checkpoint: Path, album: Path, usual_latents: Any
    ) -> None:
        apart = self.load(checkpoint, MemoryPlan("cpu", offload=Offload.MODEL, text_encoder_on_cpu=True))
        assert equal(self.latents(apart, self.wish(album)), usual_latents)
        apart.close()

    def test_every_stage_brings_the_parts_that_the_plan_counts(
        self, checkpoint: Path, album: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plan = MemoryPlan("cpu", offload=Offload.MODEL)
        pipeline = self.load(checkpoint, plan)
        first = "first_frame" in self.card.capabilities - self.card.requires
        requests = [self.wish(album)]
        requests += [self.wish(album, conditions=self.pictures(album, first_frame="blue"))] if first else []
        for request in requests:
            for stage, brought in _brought(pipeline, request, monkeypatch).items():
                counted = {*needs.parts_at(self.card, needs.Demand.of(request), plan, stage)}
                # Previews are fitted to the VAE before anything else is there, and with small pictures.
                counted |= {"vae"} if stage is Stage.ENCODE else set()
                assert brought & self.card.weights.components.keys() <= counted, stage
        pipeline.close()


def _brought(
    pipeline: VideoPipeline[Any, Any], request: GenerationRequest, monkeypatch: pytest.MonkeyPatch
) -> dict[Stage, set[str]]:
    """Make a clip, and return the parts that were moved to the device in each stage."""
    found: dict[Stage, set[str]] = {Stage.ENCODE: set()}
    stages = [Stage.ENCODE]
    bring = Host._bring

    def noted(host: Host[Any], wanted: tuple[str, ...]) -> None:
        there = {name for name in wanted if host.pipe.components.get(name) is not None}
        found.setdefault(stages[-1], set()).update(there)
        bring(host, wanted)

    def follow(progress: Progress) -> None:
        stages.append(progress.stage)

    with monkeypatch.context() as patch:
        patch.setattr(Host, "_bring", noted)
        for _ in generate(pipeline, request, follow).chunks:
            pass
    return found
