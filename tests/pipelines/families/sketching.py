"""What sketches of every family must be: a part of its contract."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pipelines.accel import projection
from pipelines.accel.pixels import video_of
from pipelines.accel.projection import Projection
from pipelines.engine import generate
from pipelines.types import Frames, Sketch
from tests.pipelines.families.checkpoints import CheckpointContract


class SketchContract(CheckpointContract):
    """Of tiny weights by chance: that the map is fitted to the right thing, not how good it looks."""

    @classmethod
    def seen_again(cls, pipe: Any, frames: Frames) -> Tensor:
        """Return what the VAE by itself makes of frames, ``(1, 3, frames, height, width)`` in [-1, 1]."""
        video = video_of(frames, "cpu", torch.float32)
        return pipe.vae.decode(pipe.vae.encode(video).latent_dist.mode()).sample

    def test_sketches_are_small_frames_of_the_clip(self, pipeline: Any, album: Path) -> None:
        sketches: list[Sketch] = []
        request = self.wish(album)
        list(generate(pipeline, request, lambda _: None, sketches.append).chunks)
        painted = [sketch() for sketch in sketches]
        assert len(painted) == request.steps
        shown = [frames for frames in painted if frames is not None]
        assert shown
        ratio = request.shape.width / request.shape.height
        for frames in shown:
            assert frames.dtype == np.uint8
            assert frames.shape[2] / frames.shape[1] == pytest.approx(ratio)

    @torch.no_grad()
    def test_sketches_know_how_the_family_reads_and_paints_pictures(self, pipeline: Any) -> None:
        sketcher = pipeline._sketcher
        clip = _footage(sketcher)
        latents = sketcher._encode(clip)
        assert latents.dtype == torch.float32
        assert latents.shape[2:] == (projection.FRAMES, projection.LATENT_SIDE, projection.LATENT_SIDE)
        painted, expected = sketcher._decode(latents).float(), self.seen_again(pipeline._host.pipe, clip)
        assert painted.shape == expected.shape == (1, 3, *clip.shape[:3])
        torch.testing.assert_close(painted, expected, atol=1e-3, rtol=1e-3)

    @torch.no_grad()
    def test_sketches_of_pictures_are_closer_to_the_decoder_than_what_chance_teaches(self, pipeline: Any) -> None:
        sketcher = pipeline._sketcher
        sketcher.fit()
        latents = sketcher._encode(_footage(sketcher))
        noise = 0.5 * torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
        chance = Projection.fitted(sketcher._decode, [noise], sketcher._stride)
        side = projection.LATENT_SIDE * projection.SIDE
        exact = torch.nn.functional.adaptive_avg_pool2d(sketcher._decode(latents)[0].float(), side)
        wanted = exact.permute(1, 2, 3, 0).add(1).mul(127.5).clamp(0, 255).numpy()
        off, off_by_chance, off_as_grey = (
            np.square(shown - wanted).mean()
            for shown in (sketcher.paint(latents, 0.0), chance.paint(latents[0]), wanted.mean((0, 1, 2)))
        )
        assert off < off_by_chance
        assert off < off_as_grey


def _footage(sketcher: Any) -> Frames:
    """Return the first clip that the map is fitted to."""
    frames = (projection.FRAMES - 1) * sketcher._stride + 1
    return projection.footage(frames, projection.LATENT_SIDE * sketcher._side, 0)
