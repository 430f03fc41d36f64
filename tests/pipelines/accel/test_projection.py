"""A decoder that is linear is found exactly; what it paints stands where the decoder would put it."""

import numpy as np
import pytest
import torch
from torch import Tensor

from pipelines.accel.projection import FRAMES, LATENT_SIDE, SIDE, Projection, footage

CHANNELS = 12


class Decoder:
    """Paints every latent by itself: ``stride`` frames of flat colour per latent, but one for the first."""

    def __init__(self, stride: int, pixels: int) -> None:
        self.stride, self.pixels = stride, pixels
        generator = torch.Generator().manual_seed(1)
        self.weight = 0.1 * torch.randn(CHANNELS, stride, 3, generator=generator)
        self.bias = 0.2 * torch.randn(stride, 3, generator=generator)

    def __call__(self, latents: Tensor) -> Tensor:
        frames = torch.einsum("bcfhw,ctk->bkfthw", latents, self.weight) + self.bias.T[None, :, None, :, None, None]
        flat = frames.flatten(2, 3)[:, :, self.stride - 1 :]
        return flat.repeat_interleave(self.pixels, 3).repeat_interleave(self.pixels, 4)


@pytest.mark.parametrize(("stride", "pixels"), [(4, 32), (8, 32), (4, 16)])
@pytest.mark.parametrize("shape", [(9, 3, 5), (5, 5, 3), (1, 2, 2)])
def test_a_linear_decoder_is_painted_as_it_is(stride: int, pixels: int, shape: tuple[int, int, int]) -> None:
    decode = Decoder(stride, pixels)
    generator = torch.Generator().manual_seed(7)
    known = torch.randn(1, CHANNELS, FRAMES, LATENT_SIDE, LATENT_SIDE, generator=generator)
    projection = Projection.fitted(decode, [known], stride)
    latents = torch.randn(CHANNELS, *shape, generator=generator)
    painted = projection.paint(latents)
    count, height, width = shape
    assert painted.shape == ((count - 1) * stride + 1, SIDE * height, SIDE * width, 3)
    exact = decode(latents[None])[0, :, :, :: pixels // SIDE, :: pixels // SIDE].permute(1, 2, 3, 0)
    wanted = exact.add(1).mul(127.5).clamp(0, 255).numpy()
    assert np.abs(painted - wanted).mean() < 2.5


def test_what_a_decoder_is_fitted_to_moves_and_has_all_colours() -> None:
    clip, other = footage(9, 64, 0), footage(9, 64, 1)
    assert clip.shape == (9, 64, 64, 3)
    assert (clip == footage(9, 64, 0)).all()
    assert (clip != other).any()
    assert np.abs(clip[0].astype(int) - clip[-1]).mean() > 10
    assert clip.reshape(-1, 3).std(0).min() > 40
