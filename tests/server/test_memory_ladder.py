"""Memory that runs out is an event and no end: at every stage, down every rung, and with the model that ships."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_ltx import AutoencoderKLLTXVideo
from diffusers.models.transformers.transformer_ltx import LTXVideoTransformer3DModel

from pipelines import footage, media
from pipelines.card import ModelCard
from pipelines.errors import OutOfMemory
from pipelines.fitting import fit, lower, rungs
from pipelines.holdings import installed
from pipelines.needs import GIB, Demand
from pipelines.plan import Device, MemoryPlan, numbers_of
from pipelines.registry import load_registry
from pipelines.types import Frames, GenerationRequest, Given, OnStep, Stage, VideoShape
from pipelines.weights import Component
from pipelines.wish import Wish
from server.assets import AssetStore, Variant
from server.jobs import JobId, JobStatus
from server.residents import Residents, Source
from server.settings import Settings
from server.store import JobStore
from server.worker import Place, Worker
from tests.conftest import FakePipeline
from tests.server.conftest import ANN

CARD = load_registry().cards["homereel-mini"]
DEVICE = Device("cuda:0", "a card", 48 * GIB, 256 * GIB, 500 * GIB, (8, 9), numbers_of((8, 9)))
AddJob = Callable[..., JobId]


def large() -> ModelCard:
    """Ten billion parameters and an encoder for words: many plans make sense."""
    parts = {
        "text_encoder": Component(params=3 * 10**9, stage="encode"),
        "transformer": Component(params=10**10, stage="denoise"),
        "vae": Component(params=10**8, stage="decode"),
    }
    weights = CARD.weights.model_copy(update={"components": parts})
    return CARD.model_copy(update={"weights": weights})


@dataclass
class Shop:
    """Models whose memory runs out in ``stage`` for as long as ``left`` says; remembers by which plans they ran."""

    stage: Stage
    left: int
    plans: list[str] = field(default_factory=list[str])
    denoised: int = 0

    def models(self, settings: Settings) -> Residents:
        return Residents(
            "cuda:0",
            settings,
            Source(lambda _: large(), self.load, lambda _: DEVICE, lambda *_: "native", lambda _: None),
        )

    def fail(self, stage: Stage) -> None:
        if stage is self.stage and self.left:
            self.left -= 1
            raise OutOfMemory(f"{stage} does not fit")

    def load(self, card: ModelCard, plan: MemoryPlan) -> FakePipeline:
        self.plans.append(plan.describe())
        self.fail(Stage.LOAD)
        return Failing(self)


class Failing(FakePipeline):
    def __init__(self, shop: Shop) -> None:
        super().__init__()
        self.shop = shop

    def freeze(self, latents: int) -> Callable[[], bytes]:
        return lambda: str(latents).encode()

    def thaw(self, content: bytes) -> int:
        return int(content)

    def encode(self, request: GenerationRequest) -> str:
        self.shop.fail(Stage.ENCODE)
        return super().encode(request)

    def denoise(self, request: GenerationRequest, conditioning: str, given: Given, on_step: OnStep) -> int:
        self.shop.fail(Stage.DENOISE)
        self.shop.denoised += 1
        return super().denoise(request, conditioning, given, on_step)

    def decode(self, request: GenerationRequest, latents: int) -> Iterator[Frames]:
        for number, chunk in enumerate(super().decode(request, latents)):
            if number:
                # Some frames are in the file by then.
                self.shop.fail(Stage.DECODE)
            yield chunk


def ladder(stage: Stage, request: GenerationRequest) -> list[str]:
    """Return the plans that are to be tried one after the other."""
    card, demand = large(), Demand.of(request)
    plan: MemoryPlan | None = fit(card, demand.shape, DEVICE, guided=demand.guided, pictures=demand.pictures)
    tried: list[str] = []
    while plan is not None:
        tried.append(plan.describe())
        plan = lower(rungs(card, demand, DEVICE), plan, stage, DEVICE)
    return tried


STAGES = (Stage.LOAD, Stage.ENCODE, Stage.DENOISE, Stage.DECODE)
REQUEST = CARD.resolve(Wish("a red ball on a green field", seconds=2, seed=3, num_inference_steps=4)).request
RUNGS = [(stage, rung) for stage in STAGES for rung in range(1, len(ladder(stage, REQUEST)))]


@pytest.mark.parametrize(("stage", "rung"), RUNGS)
def test_a_job_goes_on_by_a_plan_that_needs_less(
    settings: Settings, store: JobStore, add_job: AddJob, stage: Stage, rung: int
) -> None:
    job_id = add_job(request=REQUEST)
    tried = ladder(stage, REQUEST)
    shop = Shop(stage, left=rung)
    worker = Worker(Place(ANN, "cuda:0", 1), settings, store, models=shop.models(settings))
    worker.run_one()
    job = store.get(job_id)
    assert job.status is JobStatus.COMPLETED, job.error
    assert job.result is not None
    assert job.result.facts["plan"] == tried[rung]
    assert [f"ran out in {stage}" in warning for warning in job.result.warnings] == [True] * rung
    assert shop.plans == tried[: rung + 1]
    if stage is Stage.DECODE:
        # What was finished is kept: no step is made twice.
        assert shop.denoised == 1

    # What has proven too much is not tried again.
    following = add_job(request=REQUEST)
    worker.run_one()
    job = store.get(following)
    assert (job.status, job.result and job.result.warnings) == (JobStatus.COMPLETED, ())
    assert shop.plans == tried[: rung + 1]


@pytest.mark.parametrize("stage", STAGES)
def test_at_the_bottom_the_job_fails_with_the_numbers_and_the_next_one_runs(
    settings: Settings, store: JobStore, add_job: AddJob, make_request: Callable[..., GenerationRequest], stage: Stage
) -> None:
    request = make_request(shape=VideoShape(33, 96, 160, 8), delivery=VideoShape(32, 96, 160, 8))
    job_id = add_job(request=request)
    tried = ladder(stage, request)
    shop = Shop(stage, left=len(tried))
    worker = Worker(Place(ANN, "cuda:0", 1), settings, store, models=shop.models(settings))
    worker.run_one()
    job = store.get(job_id)
    assert job.error is not None
    assert (job.status, job.error.code) == (JobStatus.FAILED, "out_of_memory")
    assert f"in {stage} at 160x96 with 33 frames" in job.error.message
    assert tried[-1] in job.error.message
    assert " GiB of cuda:0" in job.error.message
    assert shop.plans == tried
    assert not list(settings.assets_dir.rglob("*.mp4"))

    following = add_job(request=make_request())
    worker.run_one()
    assert store.get(following).status is JobStatus.COMPLETED


@pytest.mark.skipif(not installed(CARD), reason="the embedded weights are not here")
def test_a_decoder_without_room_costs_no_step(
    settings: Settings, store: JobStore, assets: AssetStore, add_job: AddJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model that ships, loaded from its files; its decoder is told that there is no memory after the last step."""
    # A CPU that is planned for as a GPU is: parts come and go, in the same numbers.
    device = Device("cpu", "a CPU", 8 * GIB, 8 * GIB, 8 * GIB, (8, 9), frozenset({"float32"}))
    models = Residents("cpu", settings, Source(lambda _: CARD, probe=lambda _: device, release=lambda _: None))
    worker = Worker(Place(ANN, "cpu", 1), settings, store, models=models)
    twin_id, job_id = add_job(request=REQUEST), add_job(request=REQUEST)
    worker.run_one()
    decode, calls = AutoencoderKLLTXVideo.decode, [0]

    def without_room(self: Any, *arguments: Any, **more: Any) -> Any:
        calls[0] += 1
        if calls[0] == 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return decode(self, *arguments, **more)

    steps: list[int] = []
    forward = LTXVideoTransformer3DModel.forward

    def counted(self: Any, *arguments: Any, **more: Any) -> Any:
        steps.append(1)
        return forward(self, *arguments, **more)

    monkeypatch.setattr(AutoencoderKLLTXVideo, "decode", without_room)
    monkeypatch.setattr(LTXVideoTransformer3DModel, "forward", counted)
    worker.run_one()
    job = store.get(job_id)
    assert job.status is JobStatus.COMPLETED, job.error
    assert len(steps) == REQUEST.num_inference_steps
    assert job.result is not None
    (warning,) = job.result.warnings
    assert "ran out in decode with float32, all on the device; made again from there" in warning
    assert media.probe(assets.path(job_id, Variant.VIDEO)).shape == REQUEST.delivery
    # And the frames are those of a clip that had room.
    one, other = (list(footage.frames(assets.path(each, Variant.VIDEO))) for each in (twin_id, job_id))
    assert all((a == b).all() for a, b in zip(one, other, strict=True))
