"""The embedded VAE: a stock ``AutoencoderKLLTXVideo``, started in closed form and then trained.

Gradient training from random weights needs a GPU to get anywhere. A linear codec does not: the principal
components of 8x8x1 patches, 16x16x2 and 32x32x4 blocks nest like the levels of the network, so its convolutions
can be *set* to them (centre taps only). That gives about 31 dB after seconds. The encoder stays as it is, so the
latent space is fixed from the first minute; the decoder is then trained to be sharp where a linear one blurs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from diffusers import AutoencoderKLLTXVideo
from torch import Tensor

LATENTS = 128
CONFIG: dict[str, object] = {
    "latent_channels": LATENTS,
    "patch_size": 8,
    "block_out_channels": (64, 256, 256),
    "down_block_types": ("LTXVideo095DownBlock3D",) * 3,
    "layers_per_block": (0, 0, 0),
    "spatio_temporal_scaling": (True, True),
    "downsample_type": ("spatiotemporal", "spatiotemporal"),
    "decoder_block_out_channels": (64, 128),
    "decoder_layers_per_block": (2, 2, 0),
    "decoder_spatio_temporal_scaling": (True, True),
    "decoder_inject_noise": (False, False, False),
    "upsample_residual": (False, False),
    "upsample_factor": (1, 2),
}
PATCH, PATCHES = 8, 3 * 8 * 8
# RMS norms divide by the size of the whole feature vector. A constant far above the signal makes that
# division a constant too, which keeps the closed-form path linear.
ENCODER_OFFSET = 8.0
DECODER_CONSTANT = 60.0
DECODER_RANK = 31


@dataclass(frozen=True)
class Basis:
    """Principal components of blocks: ``mean`` (dims,) and ``vectors`` (dims, components), orthonormal."""

    mean: Tensor
    vectors: Tensor
    deviations: Tensor

    def codes(self, blocks: Tensor) -> Tensor:
        """Project ``(n, dims)`` to ``(n, components)``."""
        return (blocks - self.mean) @ self.vectors


def patches(video: Tensor) -> Tensor:
    """Rearrange ``(b, 3, f, h, w)`` in [-1, 1] to ``(b, 192, f, h/8, w/8)`` in the network's own channel order."""
    b, c, f, h, w = video.shape
    split = video.reshape(b, c, f, 1, h // PATCH, PATCH, w // PATCH, PATCH)
    return split.permute(0, 1, 3, 7, 5, 2, 4, 6).flatten(1, 4)


def gather(features: Tensor) -> Tensor:
    """Stack 2x2x2 neighbours as the downsampler does: ``(b, c, f, h, w)`` to ``(b, c*8, f//2+1, h/2, w/2)``."""
    features = torch.cat([features[:, :, :1], features], dim=2)
    features = features.unflatten(4, (-1, 2)).unflatten(3, (-1, 2)).unflatten(2, (-1, 2))
    return features.permute(0, 1, 3, 5, 7, 2, 4, 6).flatten(1, 4)


def rows(features: Tensor) -> Tensor:
    """Flatten ``(b, c, f, h, w)`` to ``(b*f*h*w, c)``."""
    return features.movedim(1, -1).flatten(0, -2)


def principal(blocks: Tensor, components: int) -> Basis:
    """Return the first principal components of ``(n, dims)``."""
    mean = blocks.mean(0)
    centred = (blocks - mean).double()
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(blocks))
    order = values.argsort(descending=True)[:components]
    return Basis(mean, vectors[:, order].float(), values[order].clamp(min=0).sqrt().float())


def _centre(conv: torch.nn.Module, weight: Tensor, bias: Tensor, tap: int) -> None:
    """Set a 3x3x3 convolution to one matrix ``(out, in)`` at temporal tap ``tap`` (1 non-causal, 2 causal)."""
    kernel = conv.conv
    torch.nn.init.zeros_(kernel.weight)
    kernel.weight.data[: len(weight), : weight.shape[1], tap, 1, 1] = weight
    kernel.bias.data.zero_()
    kernel.bias.data[: len(bias)] = bias


def _fit(features: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Least squares ``targets ~ features @ weight.T + bias``."""
    ones = torch.cat([features, torch.ones(len(features), 1)], dim=1).double()
    gram = ones.T @ ones
    ridge = 1e-9 * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    solution = torch.linalg.solve(gram + ridge, ones.T @ targets.double()).float()
    return solution[:-1].T.contiguous(), solution[-1]


def closed_form(batches: Callable[[int], Tensor], count: int) -> AutoencoderKLLTXVideo:
    """Build the VAE from principal components.

    Args:
        batches: Returns the i-th batch of clips, ``(b, 3, f, h, w)`` in [-1, 1].
        count: How many batches to look at.

    Returns:
        The VAE with its encoder final (weights rounded to float16) and its decoder at the linear optimum.
    """
    vae = AutoencoderKLLTXVideo(**CONFIG)
    vae.requires_grad_(False)
    videos = [batches(i) for i in range(count)]
    _set_encoder(vae, videos)
    _set_decoder(vae, videos)
    return vae


def _set_encoder(vae: AutoencoderKLLTXVideo, videos: list[Tensor]) -> None:
    encoder = vae.encoder
    first, second = (block.downsamplers[0].conv for block in encoder.down_blocks)
    level = principal(torch.cat([rows(patches(v))[::7] for v in videos]), 64)
    unit = level.vectors.T / level.deviations[0]
    _centre(encoder.conv_in, unit, -unit @ level.mean, tap=2)

    def run(stage: int, video: Tensor) -> Tensor:
        hidden = encoder.conv_in(patches(video))
        for block in encoder.down_blocks[:stage]:
            hidden = block(hidden)
        return hidden

    def projection(stage: int, components: int) -> Basis:
        sample = torch.cat([rows(run(stage, v))[::3] for v in videos])
        return principal(sample[torch.randperm(len(sample))[:60000]], components)

    one = projection(0, 32)
    _centre(first, one.vectors.T, -one.vectors.T @ one.mean, tap=2)
    two = projection(1, 32)
    scale = 1.0 / two.deviations[0]
    _centre(second, scale * two.vectors.T, -scale * two.vectors.T @ two.mean, tap=2)
    with torch.no_grad():
        second.conv.bias.add_(ENCODER_OFFSET)

    # The blocks' true principal components are too many dimensions for an exact covariance; the encoder's
    # own features span them, so take the components there and weight them by what they explain in pixels.
    hidden = torch.cat([rows(run(2, v)) for v in videos])
    blocks = torch.cat([rows(gather(gather(patches(v)))) for v in videos])
    mean = blocks.mean(0)
    weight, bias = _fit(hidden, blocks - mean)
    explained = hidden @ weight.T + bias
    _, _, vectors = torch.svd_lowrank(explained[torch.randperm(len(explained))[:12000]], q=LATENTS + 32, niter=4)
    targets = (blocks - mean) @ vectors[:, :LATENTS]
    active = torch.nn.functional.silu(torch.nn.functional.rms_norm(hidden, (hidden.shape[1],), eps=1e-8))
    weight, bias = _fit(active, targets)
    _centre(encoder.conv_out, weight, bias, tap=2)
    # Channel 128 is the log-variance shared by all latents: very small, so that sampling changes nothing.
    torch.nn.init.constant_(cast("Tensor", encoder.conv_out.conv.bias)[LATENTS:], -20.0)
    encoder.half().float()
    latents = torch.cat([rows(vae.encode(v).latent_dist.mode()) for v in videos])
    spread = latents.std(0)
    # Half-way to whitening: fine detail is lifted towards the level of coarse structure, but stays below it,
    # and overall brightness, the first component by far, does not drown the rest.
    wanted = (spread / spread.mean()).sqrt().clamp(max=2.0)
    wanted = wanted / wanted.pow(2).mean().sqrt()
    vae.latents_mean.copy_(latents.mean(0).half())
    vae.latents_std.copy_((spread / wanted).half())


def _set_decoder(vae: AutoencoderKLLTXVideo, videos: list[Tensor]) -> None:
    decoder = vae.decoder
    for block in (decoder.mid_block, *decoder.up_blocks):
        for resnet in block.resnets:
            torch.nn.init.zeros_(resnet.conv2.conv.weight)
            torch.nn.init.zeros_(resnet.conv2.conv.bias)
    latents = torch.cat([rows(vae.encode(v).latent_dist.mode()) for v in videos])
    _centre(decoder.conv_in, torch.eye(LATENTS) / vae.latents_std.mean(), torch.zeros(LATENTS), tap=1)
    latents = latents / vae.latents_std.mean()
    # Codes of the two inner levels; each upsampler maps a code to the codes of its 2x2x2 children.
    fine = principal(torch.cat([rows(patches(v))[::7] for v in videos]), DECODER_RANK)
    coded = [
        ((patches(v) - fine.mean.view(1, -1, 1, 1, 1)).movedim(1, -1) @ fine.vectors).movedim(-1, 1) for v in videos
    ]
    pairs = [gather(c) for c in coded]
    coarse = principal(torch.cat([rows(p)[::3] for p in pairs]), 64)
    codes = [((p - coarse.mean.view(1, -1, 1, 1, 1)).movedim(1, -1) @ coarse.vectors).movedim(-1, 1) for p in pairs]
    weight, bias = _fit(latents, torch.cat([rows(gather(c)) for c in codes]))
    _centre(decoder.up_blocks[0].upsamplers[0].conv, weight, bias, tap=1)
    # Each fine code goes out twice, as +c and -c: silu(c) - silu(-c) = c, so the activation costs nothing.
    child = coarse.vectors.reshape(DECODER_RANK, 8, 64)
    start = coarse.mean.reshape(DECODER_RANK, 8)
    weight = torch.zeros(64, 8, 64)
    bias = torch.zeros(64, 8)
    weight[:DECODER_RANK], bias[:DECODER_RANK] = child, start
    weight[DECODER_RANK : 2 * DECODER_RANK], bias[DECODER_RANK : 2 * DECODER_RANK] = -child, -start
    bias[2 * DECODER_RANK :] = DECODER_CONSTANT
    _centre(decoder.up_blocks[1].upsamplers[0].conv, weight.flatten(0, 1), bias.flatten(), tap=1)
    _refit_output(vae, videos)


def _refit_output(vae: AutoencoderKLLTXVideo, videos: list[Tensor]) -> None:
    """Set the last convolution by least squares on what really reaches it."""
    decoder = vae.decoder
    seen: list[Tensor] = []
    hook = decoder.conv_act.register_forward_hook(lambda _m, _i, out: seen.append(rows(out)))
    targets = []
    for video in videos[:12]:
        vae.decode(vae.encode(video).latent_dist.mode())
        targets.append(rows(patches(video)))
    hook.remove()
    weight, bias = _fit(torch.cat(seen), torch.cat(targets))
    _centre(decoder.conv_out, weight, bias, tap=1)


def psnr(first: Tensor, second: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of two videos in [-1, 1]."""
    error = ((first.clamp(-1, 1) - second.clamp(-1, 1)) / 2).pow(2).mean()
    return float(-10 * torch.log10(error))
