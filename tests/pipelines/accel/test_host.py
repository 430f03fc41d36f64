"""How a checkpoint comes to its place: part by part, told in shares, and without leaving anything behind."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pipelines.accel.devices import release
from pipelines.accel.offload import stay_on_cpu
from pipelines.card import ModelCard
from pipelines.engine import generate
from pipelines.errors import Cancelled
from pipelines.loading import listening
from pipelines.plan import MemoryPlan, Offload
from pipelines.registry import load_pipeline
from pipelines.types import Frames
from pipelines.wish import Wish

CPU = MemoryPlan("cpu")


def made(pipeline: Any, card: ModelCard) -> Frames:
    request = card.resolve(Wish("a red ball", num_frames=17, num_inference_steps=2, seed=1)).request
    return np.concatenate(list(generate(pipeline, request, lambda _: None).chunks))


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def folders(disk: Path) -> set[str]:
    return {path.name for path in disk.glob("homereel-offload-*")}


def test_loading_is_told_in_shares(card: ModelCard) -> None:
    shares: list[float] = []
    with listening(shares.append):
        load_pipeline(card, CPU).close()
    assert shares
    assert shares == sorted(shares)
    assert 0 < shares[0] <= shares[-1] <= 1


def test_loading_can_be_stopped(card: ModelCard) -> None:
    def stop(share: float) -> None:
        raise Cancelled("enough")

    with listening(stop), pytest.raises(Cancelled):
        load_pipeline(card, CPU)


def test_blocks_on_the_disk_make_the_same_clip_and_go_with_the_model(card: ModelCard, disk: Path) -> None:
    plain = load_pipeline(card, CPU)
    expected = made(plain, card)
    plain.close()
    offloaded = load_pipeline(card, MemoryPlan("cpu", offload=Offload.DISK))
    (folder,) = folders(disk)
    weights = sum(path.stat().st_size for path in (disk / folder).rglob("*.safetensors"))
    assert weights >= 4 * card.weights.components["transformer"].params
    assert (made(offloaded, card) == expected).all()
    offloaded.close()
    assert folders(disk) == set()


def test_what_a_dead_process_left_on_the_disk_goes(card: ModelCard, disk: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    dead, alive, foreign = (f"homereel-offload-{owner}-x" for owner in (ended.pid, os.getpid(), "someone"))
    for name in (dead, alive, foreign):
        (disk / name).mkdir()
    load_pipeline(card, MemoryPlan("cpu", offload=Offload.DISK)).close()
    assert folders(disk) == {alive, foreign}


def test_a_model_that_is_closed_is_gone(card: ModelCard) -> None:
    pipeline: Any = load_pipeline(card, CPU)
    transformer = weakref.ref(pipeline._host.pipe.transformer)
    pipeline.close()
    del pipeline
    release("cpu")
    assert transformer() is None


def test_another_plan_of_the_same_placement_is_followed(card: ModelCard) -> None:
    pipeline: Any = load_pipeline(card, CPU)
    vae = pipeline._host.pipe.vae
    assert not vae.use_tiling
    pipeline.adopt(MemoryPlan("cpu", tiled=True))
    assert vae.use_tiling
    pipeline.adopt(CPU)
    assert not vae.use_tiling
    pipeline.close()


def test_a_part_that_stays_on_the_cpu_gives_its_answer_on_the_device() -> None:
    part = nn.Linear(2, 3)
    stay_on_cpu(part, "meta")
    assert part(torch.ones(1, 2)).device.type == "meta"
    assert part.weight.device.type == "cpu"


@pytest.mark.gpu
def test_words_that_are_encoded_on_the_cpu_reach_the_gpu(card: ModelCard) -> None:
    pipeline = load_pipeline(card, MemoryPlan("cuda:0", "bfloat16", text_encoder_on_cpu=True))
    assert len(made(pipeline, card)) == 17
    pipeline.close()


@pytest.mark.gpu
@pytest.mark.parametrize("offload", [Offload.MODEL, Offload.GROUP, Offload.SEQUENTIAL, Offload.DISK])
def test_every_offload_makes_the_same_clip_on_a_gpu(card: ModelCard, offload: Offload) -> None:
    clips: list[Frames] = []
    for plan in (MemoryPlan("cuda:0", "bfloat16"), MemoryPlan("cuda:0", "bfloat16", offload=offload)):
        pipeline = load_pipeline(card, plan)
        clips.append(made(pipeline, card))
        pipeline.close()
    assert (clips[0] == clips[1]).all()
