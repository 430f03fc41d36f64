"""The map is fitted to pictures that went through the encoder, once, and to nothing else."""

import numpy as np
import torch
from torch import Tensor

from pipelines.accel import projection
from pipelines.accel.sketches import Sketcher
from pipelines.types import Frames

STRIDE, PIXELS = 4, 16


class Codec:
    """Keeps the mean colour of every block of ``STRIDE`` frames; of what no picture has, it makes grey."""

    def __init__(self) -> None:
        self.encoded: list[Tensor] = []
        self.decoded: list[Tensor] = []

    def encode(self, frames: Frames) -> Tensor:
        video = torch.from_numpy(frames).float().permute(3, 0, 1, 2)[None] / 127.5 - 1
        small = torch.nn.functional.avg_pool3d(video[:, :, 1:], (STRIDE, PIXELS, PIXELS))
        first = torch.nn.functional.avg_pool2d(video[:, :, 0], PIXELS)[:, :, None]
        # Far from where chance would look.
        self.encoded.append(4 * torch.cat([first, small], 2) + 8)
        return self.encoded[-1]

    def decode(self, latents: Tensor) -> Tensor:
        self.decoded.append(latents)
        seen = (latents - 8) / 4
        coloured = torch.where(seen.abs() <= 1, seen, 0)
        long = torch.cat([coloured[:, :, :1], coloured[:, :, 1:].repeat_interleave(STRIDE, 2)], 2)
        return long.repeat_interleave(PIXELS, 3).repeat_interleave(PIXELS, 4)


def test_it_is_fitted_once_to_what_the_encoder_makes_of_moving_pictures() -> None:
    codec = Codec()
    sketcher = Sketcher(codec.decode, codec.encode, STRIDE, PIXELS)
    sketcher.fit()
    sketcher.fit()
    assert len(codec.encoded) > 1
    assert all(torch.equal(one, other) for one, other in zip(codec.encoded, codec.decoded, strict=True))
    assert len({tuple(one.flatten().tolist()) for one in codec.encoded}) == len(codec.encoded)


def test_it_paints_a_picture_that_it_has_not_seen_in_the_decoders_colours() -> None:
    codec = Codec()
    sketcher = Sketcher(codec.decode, codec.encode, STRIDE, PIXELS)
    latents = codec.encode(projection.footage(9, 64, seed=99))
    painted = sketcher.paint(latents, 0.0)
    assert painted is not None
    wanted = codec.decode(latents)[0, :, :, ::2, ::2].permute(1, 2, 3, 0).add(1).mul(127.5).numpy()
    assert wanted.std() > 30
    assert np.abs(painted - wanted).mean() < 8


def test_noise_is_taken_off_along_the_line_from_the_step_before() -> None:
    codec = Codec()
    sketcher = Sketcher(codec.decode, codec.encode, STRIDE, PIXELS)
    clean = codec.encode(projection.footage(9, 64, seed=99))
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    later, earlier = (clean + level * (noise - clean) for level in (0.5, 0.75))
    assert sketcher.paint(later, 0.5) is None
    painted, wanted = sketcher.paint(later, 0.5, earlier, 0.75), sketcher.paint(clean, 0.0)
    assert painted is not None
    assert wanted is not None
    assert np.abs(painted.astype(int) - wanted).max() <= 1
