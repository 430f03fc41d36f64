"""Editing by the difference of two flows: what the new words want otherwise than the old ones, and nothing else.

A clip and its edit share the noise at every step, and it is another at each: what one noise makes of the clip is not
taken for the clip, and a subject's path is kept that the words leave open. The edit moves by the difference between the
velocity of its own noisy state under the new words and the velocity of the clip's under the old ones. Where the words
agree the two cancel out, so the composition and the paths of things stay without inverting anything.
Source: "FlowEdit: Inversion-Free Text-Based Editing Using Pre-Trained Flow Models", https://arxiv.org/abs/2412.08629.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor


class Velocities(NamedTuple):
    """Where the noisy states are going, each ``(1, tokens, channels)``.

    Attributes:
        wanted: The edit, under the new words.
        unwanted: The edit, under the words to go away from.
        clip: The clip, under its own.
    """

    wanted: Tensor
    unwanted: Tensor
    clip: Tensor


Predict: TypeAlias = Callable[[Tensor, Tensor, float], Velocities]
"""From the noisy edit, the noisy clip and the noise level in (0, 1]."""


def edited(
    clip: Tensor,
    predict: Predict,
    sigmas: Sequence[float],
    guidance_scale: float,
    generator: torch.Generator,
    on_step: Callable[[int, Tensor], None],
) -> Tensor:
    """Return the edit of a clip.

    Args:
        clip: Clean latents ``(1, tokens, channels)``, float32.
        predict: The model.
        sigmas: Noise levels from the first to 0; the first says how far the edit may go.
        guidance_scale: How much further than the words say; 1 goes exactly as far.
        generator: Of the noise, on the CPU.
        on_step: Given the number of steps done and the edit so far; may raise.
    """
    edit = clip
    for step, (sigma, following) in enumerate(pairwise(sigmas), start=1):
        noise = torch.randn(clip.shape, generator=generator).to(clip.device)
        noisy = clip + sigma * (noise - clip)
        velocities = predict(edit + noisy - clip, noisy, sigma)
        change = velocities.unwanted - velocities.clip
        change = change + guidance_scale * (velocities.wanted - velocities.unwanted)
        edit = edit + (following - sigma) * change
        on_step(step, edit)
    return edit
